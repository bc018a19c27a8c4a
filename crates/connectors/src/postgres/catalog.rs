//! What the catalog tells about tables.

use sqlx::{Column as _, Executor, PgConnection, SqlSafeStr, Statement, postgres::types::Oid};

use super::types::kind;
use crate::sql::{
    quote::{Table, statement},
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
    /// Computed from others, which replication leaves out.
    pub(super) generated: bool,
}

/// A column as the protocol describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) type_id: u32,
    /// Length or precision and scale, -1 if there is none.
    pub(super) modifier: i32,
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
  t.typlen = -1 and t.typname <> 'numeric' as toastable,
  coalesce(to_jsonb(a) ->> 'attgenerated', '') <> '' as generated
from chain c
join pg_attribute a on a.attrelid = to_regclass($1) and a.attnum = c.attnum
join pg_type t on t.oid = c.oid
where c.typtype <> 'd'
order by a.attnum";

const DESCRIBED: &str = "
with recursive chain as (
  select n.place, n.name, n.type, n.modifier as given, t.oid, t.typtype, t.typbasetype,
    t.typtypmod, n.modifier
  from unnest($1::text[], $2::oid[], $3::int4[]) with ordinality as n (name, type, modifier, place)
  join pg_type t on t.oid = n.type
  union all
  select c.place, c.name, c.type, c.given, t.oid, t.typtype, t.typbasetype, t.typtypmod, c.typtypmod
  from chain c join pg_type t on t.oid = c.typbasetype where c.typtype = 'd'
)
select c.name, format_type(c.type, c.given) as declared, format_type(c.oid, -1) as base,
  t.typname::text as type_name, c.modifier, false as required, t.typcategory::text as category,
  t.typlen = -1 and t.typname <> 'numeric' as toastable, false as generated
from chain c join pg_type t on t.oid = c.oid
where c.typtype <> 'd'
order by c.place";

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

/// Returns columns that the protocol describes, in their order. A column is left out if its type is
/// gone.
pub(super) async fn described(
    connection: &mut PgConnection,
    columns: &[Described],
) -> Result<Vec<CatalogColumn>, sqlx::Error> {
    let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
    let types: Vec<_> = columns.iter().map(|column| Oid(column.type_id)).collect();
    let modifiers: Vec<_> = columns.iter().map(|column| column.modifier).collect();
    sqlx::query_as(DESCRIBED).bind(names).bind(types).bind(modifiers).fetch_all(connection).await
}

/// Returns the columns of a query, without running it.
pub(super) async fn query_columns(
    connection: &mut PgConnection,
    query: &str,
) -> Result<Vec<CatalogColumn>, sqlx::Error> {
    let prepared = (&mut *connection).prepare(statement(query).into_sql_str()).await?;
    let mut columns: Vec<_> = prepared
        .columns()
        .iter()
        .map(|column| Described {
            name: column.name().to_owned(),
            type_id: column.type_info().oid().map_or(0, |oid| oid.0),
            modifier: -1,
        })
        .collect();
    // The modifier of a column that is taken from a table as it is; the protocol leaves it out.
    let (tables, numbers): (Vec<_>, Vec<_>) = prepared
        .columns()
        .iter()
        .map(|column| (column.relation_id(), column.relation_attribute_no()))
        .unzip();
    let modifiers: Vec<i32> = sqlx::query_scalar(
        "select case when a.atttypid = n.type then a.atttypmod else -1 end \
         from unnest($1::oid[], $2::int2[], $3::oid[]) with ordinality \
             as n (relation, number, type, place) \
         left join pg_attribute a on a.attrelid = n.relation and a.attnum = n.number \
         order by n.place",
    )
    .bind(tables)
    .bind(numbers)
    .bind(columns.iter().map(|column| Oid(column.type_id)).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    for (column, modifier) in columns.iter_mut().zip(modifiers) {
        column.modifier = modifier;
    }
    described(connection, &columns).await
}

/// Returns the columns of each unique index, the primary key first, and whether it is that.
pub(super) async fn unique(
    connection: &mut PgConnection,
    table: &Table,
) -> Result<Vec<(bool, Vec<String>)>, sqlx::Error> {
    sqlx::query_as(UNIQUE).bind(table.to_string()).fetch_all(connection).await
}

/// Tells whether a value of the table may be larger than a page.
///
/// Values are kept outside of the row only where the table has such a relation with something in
/// it; all others fit a page, compressed.
pub(super) async fn may_be_large(
    connection: &mut PgConnection,
    table: &Table,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce(c.relkind not in ('r', 'm') or \
         pg_relation_size(nullif(c.reltoastrelid, 0)) > 0, false) \
         from pg_class c where c.oid = to_regclass($1)",
    )
    .bind(table.to_string())
    .fetch_one(connection)
    .await
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
