//! A loader's transaction.

use arrow_array::{
    Array, ArrayRef,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use arrow_schema::DataType;
use async_trait::async_trait;
use sqlx::{Row, Sqlite as Driver, Transaction, query::Query, sqlite::SqliteArguments};

use super::{error::failure, types::Sqlite};
use crate::sql::{
    failure::Failure,
    merge::Layout,
    quote::{Table, list, statement},
    session::{Bind, Dialect, Session},
    settings::Own,
    shape::Shape,
    text::{self, Years},
    unit::Unit,
};

/// Rows of one insert, falling: a statement is prepared for each of these sizes only.
const ROWS_AT_ONCE: [usize; 3] = [128, 16, 1];
/// Parameters of one statement. Source: sqlite.org, "Implementation Limits", section 9.
const MOST_PARAMETERS: usize = 32_766;

/// A transaction; it is rolled back when dropped. SQLite lets nobody else write meanwhile.
pub(super) struct SqliteSession {
    pub(super) transaction: Transaction<'static, Driver>,
    /// What is done, for errors.
    what: String,
}

impl SqliteSession {
    pub(super) fn new(transaction: Transaction<'static, Driver>, what: String) -> Self {
        Self { transaction, what }
    }

    /// Makes the transaction's work durable.
    pub(super) async fn commit(self) -> Result<(), Failure> {
        let what = self.what;
        self.transaction.commit().await.map_err(|error| failure(&what, error))
    }
}

fn bound<'q>(sql: String, values: &[Bind]) -> Query<'q, Driver, SqliteArguments> {
    let mut query = sqlx::query(statement(sql));
    for value in values {
        query = match value {
            Bind::Integer(value) => query.bind(*value),
            Bind::Text(value) => query.bind(value.clone()),
        };
    }
    query
}

/// Binds a value as SQLite keeps it.
fn bind_cell<'q>(
    query: Query<'q, Driver, SqliteArguments>,
    values: &ArrayRef,
    row: usize,
) -> Query<'q, Driver, SqliteArguments> {
    if values.is_null(row) {
        return query.bind(None::<i64>);
    }
    match values.data_type() {
        DataType::Boolean => query.bind(i64::from(values.as_boolean().value(row))),
        DataType::Int64 => query.bind(values.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => query.bind(values.as_primitive::<Float64Type>().value(row)),
        DataType::Binary => query.bind(values.as_binary::<i32>().value(row).to_vec()),
        _ => query.bind(text::cell(values, row, Years::Signed)),
    }
}

#[async_trait]
impl Session for SqliteSession {
    fn dialect(&self) -> &'static dyn Dialect {
        &Sqlite
    }

    async fn execute(&mut self, sql: String, values: &[Bind]) -> Result<u64, Failure> {
        let done = bound(sql, values).execute(&mut *self.transaction).await;
        done.map(|done| done.rows_affected()).map_err(|error| failure(&self.what, error))
    }

    async fn numbers(&mut self, sql: String, values: &[Bind]) -> Result<Vec<Vec<i64>>, Failure> {
        let rows = bound(sql, values).fetch_all(&mut *self.transaction).await;
        rows.and_then(|rows| {
            let numbers = |row: &sqlx::sqlite::SqliteRow| {
                (0..row.len()).map(|column| row.try_get(column)).collect()
            };
            rows.iter().map(numbers).collect()
        })
        .map_err(|error| failure(&self.what, error))
    }

    async fn exists(&mut self, table: &Table) -> Result<bool, Failure> {
        let sql = "select exists (select 1 from sqlite_schema where lower(name) = lower($1))";
        sqlx::query_scalar(sql)
            .bind(table.name.name().to_owned())
            .fetch_one(&mut *self.transaction)
            .await
            .map_err(|error| failure(&self.what, error))
    }

    async fn lock(&mut self, _: &Table, _: &Shape, _: bool) -> Result<(), Failure> {
        // The transaction began as the only writer.
        Ok(())
    }

    async fn stage(
        &mut self,
        unit: &Unit<'_>,
        layout: &Layout,
        rows: &[u32],
        keys_only_from: usize,
    ) -> Result<(), Failure> {
        let stage = &layout.stage;
        let columns: Vec<_> = (0..layout.columns.len()).map(|index| format!("c{index}")).collect();
        let create = format!(
            "create temporary table if not exists {stage} \
             (r integer primary key, b, v, e, id, run, {})",
            list(&columns)
        );
        self.execute(create, &[]).await?;
        self.execute(format!("delete from {stage}"), &[]).await?;
        let width = columns.len() + 6;
        let named = layout.own.contains(&Own::Record);
        let mut start = 0;
        while start < rows.len() {
            let left = rows.len() - start;
            let size = ROWS_AT_ONCE
                .into_iter()
                .find(|size| *size <= left && size * width <= MOST_PARAMETERS)
                .unwrap_or(1);
            let one_row = format!("({})", list((0..width).map(|_| "?")));
            let sql = format!("insert into {stage} values {}", list((0..size).map(|_| &one_row)));
            let mut query = sqlx::query(statement(sql));
            for (number, &row) in rows.iter().enumerate().skip(start).take(size) {
                let index = row as usize;
                query = query
                    .bind(i64::try_from(number).unwrap_or(i64::MAX))
                    .bind(i64::from(unit.origins[index].0))
                    .bind(unit.versions[index].0)
                    .bind(unit.versions[index].1)
                    .bind(named.then(|| unit.id(row)))
                    .bind(unit.run(row));
                let whole = number < keys_only_from && !unit.deletes(index);
                for (column, values) in unit.columns.columns().iter().enumerate() {
                    query = if whole || layout.key.contains(&column) {
                        bind_cell(query, values, index)
                    } else {
                        query.bind(None::<i64>)
                    };
                }
            }
            query
                .execute(&mut *self.transaction)
                .await
                .map_err(|error| failure(&self.what, error))?;
            start += size;
        }
        Ok(())
    }

    async fn index_stage(&mut self, _: &Layout) -> Result<(), Failure> {
        // The number is the primary key.
        Ok(())
    }

    fn copies(&self) -> bool {
        false
    }

    async fn copy(&mut self, _: &Unit<'_>, _: &Layout, _: &[u32]) -> Result<(), Failure> {
        Ok(())
    }
}
