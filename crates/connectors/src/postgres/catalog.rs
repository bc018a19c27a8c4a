//! What the catalog tells about tables.

use sqlx::PgConnection;

use super::types::kind;
use crate::sql::{
    quote::Table,
    shape::{Column, Shape},
};

/// A column of a table that is read.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct CatalogColumn {
    pub(super) name: String,
    /// Type with length and precision.
    pub(super) declared: String,
    /// Type behind all domains, without length and precision.
    pub(super) base: String,
    /// Name of that type in the catalog.
    pub(super) type_name: String,
    /// Length or precision and scale, -1 if there is none.
    pub(super) modifier: i32,
    pub(super) required: bool,
    /// `typcategory`: `A` is an array, `C` a composite.
    pub(super) category: String,
    /// The value may lie outside of the row, where its size has no bound.
    pub(super) toastable: bool,
}

/// The type behind a domain takes as many steps as domains are nested.
const COLUMNS: &str = "
with recursive chain as (
  select a.attnum, t.oid, t.typtype, t.typbasetype, t.typtypmod, a.atttypmod as modifier
  from pg_attribute a join pg_type t on t.oid = a.atttypid
  where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
  union all
  select c.attnum, t.oid, t.typtype, t.typbasetype, t.typtypmod, c.typtypmod
  from chain c join pg_type t on t.oid = c.typbasetype where c.typtype = 'd'
)
select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as declared,
  format_type(c.oid, -1) as base, t.typname::text as type_name, c.modifier,
  a.attnotnull as required, t.typcategory::text as category,
  t.typlen = -1 and t.typname <> 'numeric' as toastable
from chain c
join pg_attribute a on a.attrelid = to_regclass($1) and a.attnum = c.attnum
join pg_type t on t.oid = c.oid
where c.typtype <> 'd'
order by a.attnum";

const UNIQUE: &str = "
select i.indisprimary, array(
  select a.attname::text from unnest(i.indkey::int2[]) with ordinality as k (number, place)
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
  where k.place <= i.indnkeyatts order by k.place)
from pg_index i
where i.indrelid = to_regclass($1) and i.indisunique and i.indisvalid and i.indimmediate
  and i.indpred is null and i.indexprs is null
order by i.indisprimary desc";

/// Returns the columns of a table or view; none if there is no such table.
pub(super) async fn columns(
    connection: &mut PgConnection,
    table: &Table,
) -> Result<Vec<CatalogColumn>, sqlx::Error> {
    sqlx::query_as(COLUMNS).bind(table.to_string()).fetch_all(connection).await
}

/// Returns the columns of each unique index, the primary key first, and whether it is that.
pub(super) async fn unique(
    connection: &mut PgConnection,
    table: &Table,
) -> Result<Vec<(bool, Vec<String>)>, sqlx::Error> {
    sqlx::query_as(UNIQUE).bind(table.to_string()).fetch_all(connection).await
}

/// Returns a number that changes when a column of the table does.
pub(super) async fn fingerprint(
    connection: &mut PgConnection,
    table: &Table,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce(hashtextextended(string_agg(concat_ws(' ', attnum, attname, atttypid, \
         atttypmod), ',' order by attnum), 0), 0) from pg_attribute \
         where attrelid = to_regclass($1) and attnum > 0 and not attisdropped",
    )
    .bind(table.to_string())
    .fetch_one(connection)
    .await
}

/// Returns the shape of a table that is written, or nothing where there is none.
pub(super) async fn shape(
    connection: &mut PgConnection,
    table: &Table,
) -> Result<Option<Shape>, sqlx::Error> {
    let columns = columns(connection, table).await?;
    if columns.is_empty() {
        return Ok(None);
    }
    let unique = unique(connection, table).await?;
    let fingerprint = fingerprint(connection, table).await?;
    Ok(Some(Shape {
        columns: columns
            .into_iter()
            .map(|column| Column {
                kind: kind(&column.type_name, column.modifier),
                name: column.name,
                declared: column.declared,
                base: column.base,
                required: column.required,
            })
            .collect(),
        unique: unique.into_iter().map(|(_, columns)| columns).collect(),
        fingerprint,
    }))
}
