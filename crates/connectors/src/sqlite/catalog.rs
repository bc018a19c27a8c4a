//! What the file tells about its tables.

use std::{path::Path, time::Duration};

use sqlx::{
    SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::types::kind;
use crate::sql::{
    quote::{Identifier, Table, statement},
    shape::{Column, Shape},
};

/// How long to wait for another process that writes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns how to open a file that is only read.
pub(super) fn read_only(path: &str) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(Path::new(path)).read_only(true).busy_timeout(PATIENCE)
}

/// Returns how to open a file that is written; it is created.
pub(super) fn writable(path: &str) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(Path::new(path))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(PATIENCE)
        .pragma("temp_store", "memory")
}

/// A column as the file declares it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct CatalogColumn {
    pub(super) name: String,
    pub(super) declared: String,
    pub(super) required: bool,
    /// Place in the primary key, counted from 1; 0: not part of it.
    pub(super) key: i64,
}

/// Returns the columns of a table or view; none if there is no such table.
pub(super) async fn columns(
    connection: &mut SqliteConnection,
    table: &Table,
) -> Result<Vec<CatalogColumn>, sqlx::Error> {
    sqlx::query_as(
        "select name, type as declared, \"notnull\" <> 0 as required, pk as key \
         from pragma_table_xinfo($1) where hidden <> 1 order by cid",
    )
    .bind(table.name.name().to_owned())
    .fetch_all(connection)
    .await
}

/// Returns the columns of a query, without running it.
pub(super) async fn query_columns(
    connection: &mut SqliteConnection,
    query: &str,
) -> Result<Vec<CatalogColumn>, sqlx::Error> {
    // Temporary views are kept outside of the file, which may be open for reading only.
    let view = Table { schema: None, name: Identifier::known("_tributary_query") };
    let create = statement(format!("create temporary view {view} as {query}"));
    sqlx::query(create).execute(&mut *connection).await?;
    let columns = columns(connection, &view).await?;
    sqlx::query(statement(format!("drop view temp.{view}"))).execute(connection).await?;
    Ok(columns)
}

/// Returns the names of the columns of the primary key, in its order.
pub(super) fn primary_key(columns: &[CatalogColumn]) -> Vec<String> {
    let mut key: Vec<_> = columns.iter().filter(|column| column.key > 0).collect();
    key.sort_by_key(|column| column.key);
    key.into_iter().map(|column| column.name.clone()).collect()
}

/// Returns the shape of a table that is written, or nothing where there is none.
pub(super) async fn shape(
    connection: &mut SqliteConnection,
    table: &Table,
) -> Result<Option<Shape>, sqlx::Error> {
    let columns = columns(connection, table).await?;
    if columns.is_empty() {
        return Ok(None);
    }
    let indexed: Vec<(String, Option<String>)> = sqlx::query_as(
        "select l.name, i.name from pragma_index_list($1) l join pragma_index_info(l.name) i \
         where l.\"unique\" = 1 and l.partial = 0 order by l.seq, i.seqno",
    )
    .bind(table.name.name().to_owned())
    .fetch_all(connection)
    .await?;
    let mut unique = vec![primary_key(&columns)];
    let mut last = None;
    for (index, column) in indexed {
        if last.as_ref() != Some(&index) {
            unique.push(Vec::new());
        }
        // An index on an expression has no name there, and identifies no column.
        if let Some(columns) = unique.last_mut() {
            columns.push(column.unwrap_or_default());
        }
        last = Some(index);
    }
    unique.retain(|columns| !columns.is_empty());
    Ok(Some(Shape {
        columns: columns
            .into_iter()
            .map(|column| Column {
                kind: kind(&column.declared),
                name: column.name,
                declared: column.declared,
                base: "text".to_owned(),
                required: column.required,
            })
            .collect(),
        unique,
        fingerprint: 0,
    }))
}
