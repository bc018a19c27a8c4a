//! A loader's transaction.

use std::{
    collections::HashSet,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use connect::Error;
use model::FieldType;
use sqlx::{Postgres as Driver, Row, Transaction, postgres::PgArguments, query::Query};

use super::{
    arrays::{self, Element},
    catalog,
    encode::{HEADER, TRAILER, Values, begin_row, integer, null, sized},
    error::failure,
    types::{EPOCH_MICROS, Postgres},
};
use crate::sql::{
    failure::Failure,
    merge::Layout,
    quote::{Table, list, statement},
    session::{Bind, Dialect, Session},
    settings::Own,
    shape::{Kind, Shape},
    unit::Unit,
};

/// Bytes that are sent at a time.
const PIECE: usize = 128 * 1024;
/// Keeps our advisory locks apart from others; the low half is the table's object id.
const LOCK_SPACE: i64 = 0x7472_6962_0000_0000;

/// A transaction; it is rolled back when dropped.
pub(super) struct PgSession {
    pub(super) transaction: Transaction<'static, Driver>,
    /// What is done, for errors.
    what: String,
    staged: HashSet<String>,
}

impl PgSession {
    pub(super) fn new(transaction: Transaction<'static, Driver>, what: String) -> Self {
        Self { transaction, what, staged: HashSet::new() }
    }

    /// Makes the transaction's work durable.
    pub(super) async fn commit(self) -> Result<(), Failure> {
        let what = self.what;
        self.transaction.commit().await.map_err(|error| failure(&what, error))
    }

    /// Writes rows, each as a row of a binary COPY whose fields have the types of `elements`.
    async fn write_rows(
        &mut self,
        target: &str,
        elements: &[Element],
        rows: &[u32],
        mut write: impl FnMut(usize, u32, &mut Vec<u8>) + Send,
    ) -> Result<(), Failure> {
        if rows.len() > arrays::FEW {
            return self.copy_rows(target, rows, write).await;
        }
        let mut buffer = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            write(number, *row, &mut buffer);
        }
        let places = list((1..=elements.len()).map(|place| format!("${place}")));
        // As a COPY does, it takes the values of identity columns as they are.
        let sql =
            format!("insert into {target} overriding system value select * from unnest({places})");
        let mut query = sqlx::query(statement(sql));
        for array in arrays::columns(&buffer, rows.len(), elements) {
            query = query.bind(array);
        }
        let written = query.execute(&mut *self.transaction).await;
        written.map(|_| ()).map_err(|error| failure(&self.what, error))
    }

    async fn copy_rows(
        &mut self,
        target: &str,
        rows: &[u32],
        mut write: impl FnMut(usize, u32, &mut Vec<u8>) + Send,
    ) -> Result<(), Failure> {
        let copied = async {
            let sql = format!("copy {target} from stdin (format binary)");
            let mut copy = self.transaction.copy_in_raw(&sql).await?;
            let mut buffer = Vec::with_capacity(PIECE + PIECE / 4);
            buffer.extend_from_slice(HEADER);
            for (number, row) in rows.iter().enumerate() {
                write(number, *row, &mut buffer);
                if buffer.len() >= PIECE {
                    copy.send(&*buffer).await?;
                    buffer.clear();
                }
            }
            buffer.extend_from_slice(TRAILER);
            copy.send(&*buffer).await?;
            copy.finish().await
        };
        copied.await.map(|_| ()).map_err(|error| failure(&self.what, error))
    }
}

fn bound<'q>(sql: String, values: &[Bind]) -> Query<'q, Driver, PgArguments> {
    let mut query = sqlx::query(statement(sql));
    for value in values {
        query = match value {
            Bind::Integer(value) => query.bind(*value),
            Bind::Text(value) => query.bind(value.clone()),
        };
    }
    query
}

#[async_trait]
impl Session for PgSession {
    fn dialect(&self) -> &'static dyn Dialect {
        &Postgres
    }

    async fn execute(&mut self, sql: String, values: &[Bind]) -> Result<u64, Failure> {
        let done = bound(sql, values).execute(&mut *self.transaction).await;
        done.map(|done| done.rows_affected()).map_err(|error| failure(&self.what, error))
    }

    async fn numbers(&mut self, sql: String, values: &[Bind]) -> Result<Vec<Vec<i64>>, Failure> {
        let rows = bound(sql, values).fetch_all(&mut *self.transaction).await;
        rows.and_then(|rows| {
            let numbers = |row: &sqlx::postgres::PgRow| {
                (0..row.len()).map(|column| row.try_get(column)).collect()
            };
            rows.iter().map(numbers).collect()
        })
        .map_err(|error| failure(&self.what, error))
    }

    async fn exists(&mut self, table: &Table) -> Result<bool, Failure> {
        sqlx::query_scalar("select to_regclass($1) is not null")
            .bind(table.to_string())
            .fetch_one(&mut *self.transaction)
            .await
            .map_err(|error| failure(&self.what, error))
    }

    async fn lock(&mut self, table: &Table, shape: &Shape, exclusive: bool) -> Result<(), Failure> {
        // Binary rows of other types than the table's could be taken for something else.
        self.execute(format!("lock table {table} in row exclusive mode"), &[]).await?;
        let found = catalog::fingerprint(&mut self.transaction, table)
            .await
            .map_err(|error| failure(&self.what, error))?;
        if found != shape.fingerprint {
            return Err(Failure::Stale(Error::retry(&*self.what, "the table has just changed")));
        }
        let sql = if exclusive {
            "select pg_advisory_xact_lock($1 + to_regclass($2)::oid::bigint)"
        } else {
            "select pg_advisory_xact_lock_shared($1 + to_regclass($2)::oid::bigint)"
        };
        sqlx::query(sql)
            .bind(LOCK_SPACE)
            .bind(table.to_string())
            .execute(&mut *self.transaction)
            .await
            .map(|_| ())
            .map_err(|error| failure(&self.what, error))
    }

    async fn stage(
        &mut self,
        unit: &Unit<'_>,
        layout: &Layout,
        rows: &[u32],
        keys_only_from: usize,
    ) -> Result<(), Failure> {
        let stage = &layout.stage;
        let columns = layout.columns.iter().enumerate();
        let types = columns.map(|(index, column)| {
            let stage_type = match column.field_type {
                FieldType::Boolean => "boolean",
                FieldType::Integer => "bigint",
                FieldType::Double => "double precision",
                FieldType::Decimal { .. } => "numeric",
                FieldType::Text | FieldType::Json => "text",
                FieldType::Bytes => "bytea",
                FieldType::Date => "date",
                FieldType::Timestamp => "timestamp with time zone",
            };
            format!("c{index} {stage_type}")
        });
        let create = format!(
            "create temporary table if not exists {stage} (r bigint, b bigint, v bigint, e bigint, \
             id text, run text, {}) on commit delete rows",
            list(types)
        );
        self.execute(create, &[]).await?;
        if !self.staged.insert(stage.clone()) {
            self.execute(format!("truncate {stage}"), &[]).await?;
        }
        let values = encoders(unit, |_| false);
        let fields = values.len() + 6;
        let mut elements = vec![Element::INTEGER; 4];
        elements.extend([Element::TEXT; 2]);
        elements.extend(values.iter().map(|values| Element::of(values, None)));
        let named = layout.own.contains(&Own::Record);
        let mut run = RunText::default();
        self.write_rows(stage, &elements, rows, |number, row, out| {
            begin_row(fields, out);
            let index = row as usize;
            integer(i64::try_from(number).unwrap_or(i64::MAX), out);
            integer(i64::from(unit.origins[index].0), out);
            integer(unit.versions[index].0, out);
            integer(unit.versions[index].1, out);
            if named {
                sized(unit.id(row).as_bytes(), out);
            } else {
                null(out);
            }
            sized(run.of(unit, row).as_bytes(), out);
            let whole = number < keys_only_from && !unit.deletes(index);
            for (column, values) in values.iter().enumerate() {
                if whole || layout.key.contains(&column) {
                    values.write(index, out);
                } else {
                    null(out);
                }
            }
        })
        .await
    }

    async fn index_stage(&mut self, layout: &Layout) -> Result<(), Failure> {
        let stage = &layout.stage;
        let sql = format!("create index if not exists {stage}_r on {stage} (r)");
        self.execute(sql, &[]).await.map(|_| ())
    }

    fn copies(&self) -> bool {
        true
    }

    async fn copy(
        &mut self,
        unit: &Unit<'_>,
        layout: &Layout,
        rows: &[u32],
    ) -> Result<(), Failure> {
        let own: Vec<_> =
            layout.own.iter().filter(|own| **own != Own::DeletedAt).copied().collect();
        let mut names: Vec<_> =
            layout.columns.iter().map(|column| column.name.to_string()).collect();
        names.extend(own.iter().map(|own| own.identifier().to_string()));
        let target = format!("{} ({})", layout.table, list(&names));
        let values = encoders(unit, |column| layout.columns[column].kind == Kind::Jsonb);
        let kinds = layout.columns.iter().map(|column| Some(column.kind));
        let mut elements: Vec<_> =
            values.iter().zip(kinds).map(|(values, kind)| Element::of(values, kind)).collect();
        elements.extend(own.iter().map(|own| Element::of_own(*own)));
        let now = now();
        let mut run = RunText::default();
        self.write_rows(&target, &elements, rows, |_, row, out| {
            begin_row(values.len() + own.len(), out);
            let index = row as usize;
            for values in &values {
                values.write(index, out);
            }
            for own in &own {
                match own {
                    Own::Version => integer(unit.versions[index].0, out),
                    Own::ExtractedAt => integer(unit.versions[index].1, out),
                    Own::Record => sized(unit.id(row).as_bytes(), out),
                    Own::Run => sized(run.of(unit, row).as_bytes(), out),
                    Own::LoadedAt => integer(now, out),
                    Own::DeletedAt => null(out),
                }
            }
        })
        .await
    }
}

fn encoders<'a>(unit: &'a Unit<'_>, jsonb: impl Fn(usize) -> bool) -> Vec<Values<'a>> {
    let columns = unit.columns.columns().iter().enumerate();
    columns.map(|(column, values)| Values::new(values, jsonb(column))).collect()
}

/// Microseconds since PostgreSQL's epoch.
fn now() -> i64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX));
    since_1970 - EPOCH_MICROS
}

/// The run of the last row, which most rows share.
#[derive(Default)]
struct RunText {
    batch: Option<u32>,
    text: String,
}

impl RunText {
    fn of(&mut self, unit: &Unit<'_>, row: u32) -> &str {
        let batch = unit.origins[row as usize].0;
        if self.batch != Some(batch) {
            self.batch = Some(batch);
            self.text = unit.run(row);
        }
        &self.text
    }
}
