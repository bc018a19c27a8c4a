//! Reads a table with one statement after the other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use connect::{Error, RunOptions};
use futures::TryStreamExt;
use model::FieldType;
use sqlx::{
    Connection, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow},
};

use super::{
    error::whole,
    value::{Value, column},
};
use crate::sql::{
    cursor::Cursor,
    quote::{Identifier, Origin, list, statement},
    reader::{Gather, Problem, RowKey, Rows, Stop, raw},
    text::Moment,
};

/// Reading may keep others from writing; after this time it pauses.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(2);

/// What to read of a table, all names checked.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) options: SqliteConnectOptions,
    pub(super) origin: Origin,
    /// What fails when reading fails.
    pub(super) what: String,
    pub(super) columns: Vec<Selected>,
    /// Indices of the key in `columns`.
    pub(super) key: Vec<usize>,
    /// Index of the cursor column.
    pub(super) cursor: Option<usize>,
    pub(super) lag: Duration,
    pub(super) run: Arc<RunOptions>,
}

/// A column to read.
#[derive(Debug, Clone)]
pub(super) struct Selected {
    pub(super) name: String,
    /// What the declared type promises.
    pub(super) field_type: FieldType,
    pub(super) required: bool,
}

impl Reading {
    /// Where to start again behind the greatest seen value, for binding.
    ///
    /// # Errors
    ///
    /// Stops the run where there is a lag and the value is no time.
    pub(super) fn start_from(&self, high: &str) -> Result<Value, Error> {
        let value = Value::from_tagged(high);
        if self.lag == Duration::ZERO {
            return value.ok_or_else(|| Error::stop(&*self.what, "run once with `--full`"));
        }
        let lag = i64::try_from(self.lag.as_micros()).unwrap_or(i64::MAX);
        let moment = match &value {
            Some(Value::Text(text)) => Moment::parse(text),
            _ => None,
        };
        moment.map(|moment| Value::Text(moment.before(lag))).ok_or_else(|| {
            let name = self.cursor.map_or("", |cursor| &self.columns[cursor].name);
            Error::stop(
                format!(
                    "`lag` is a time, but values of the cursor column `{name}` of {} are not written as one",
                    self.origin.shown()
                ),
                "set `lag: 0s`, or use a column with texts like `2024-01-31 23:59:59` as cursor",
            )
        })
    }
}

/// Binds a value as it is.
pub(super) fn bind(
    query: Query<'_, Sqlite, SqliteArguments>,
    value: Value,
) -> Query<'_, Sqlite, SqliteArguments> {
    match value {
        Value::Null => query.bind(None::<i64>),
        Value::Integer(value) => query.bind(value),
        Value::Real(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Blob(value) => query.bind(value),
    }
}

/// Reads the table.
pub(super) struct Selects {
    reading: Reading,
    values: Vec<Vec<Value>>,
}

impl Selects {
    pub(super) fn new(reading: Reading) -> Self {
        Self { values: vec![Vec::new(); reading.columns.len()], reading }
    }

    fn query(&self, cursor: &Cursor, condition: &str, limit: usize) -> String {
        let reading = &self.reading;
        // The length is known without reading the value.
        let selected = reading.columns.iter().map(|column| {
            let name = name(column);
            format!("case when octet_length({name}) > {limit} then null else {name} end")
        });
        let large = reading
            .columns
            .iter()
            .map(|column| format!("coalesce(octet_length({}) > {limit}, 0)", name(column)));
        format!(
            "select {}, {} from {} where {condition} order by {}",
            list(selected),
            large.collect::<Vec<_>>().join(" or "),
            reading.origin,
            list(self.order(cursor).iter().map(|index| name(&reading.columns[*index]))),
        )
    }

    /// Columns that the rows are ordered by.
    fn order(&self, cursor: &Cursor) -> Vec<usize> {
        let change = self.reading.cursor.filter(|_| !cursor.nulls);
        change.into_iter().chain(self.reading.key.iter().copied()).collect()
    }

    fn condition(&self, cursor: &Cursor) -> Result<(String, Vec<Value>), Error> {
        let mut conditions = vec!["1 = 1".to_owned()];
        let mut values = Vec::new();
        let columns = &self.reading.columns;
        if let Some(change) = self.reading.cursor {
            let is = if cursor.nulls { "is null" } else { "is not null" };
            conditions.push(format!("{} {is}", name(&columns[change])));
        }
        // A range has neither rows without a value nor rows beyond it.
        let run = &self.reading.run;
        for (bound, sign) in [(&run.from, ">="), (&run.to, "<=")] {
            if let (Some(change), Some(bound)) = (self.reading.cursor, bound) {
                conditions.push(format!("{} {sign} ?", name(&columns[change])));
                values.push(Value::Text(bound.clone()));
            }
        }
        let order = self.order(cursor);
        if cursor.after.len() == order.len() {
            let names = list(order.iter().map(|index| name(&columns[*index])));
            let marks = list(order.iter().map(|_| "?"));
            let behind = format!("({names}) > ({marks})");
            // A part of the key that is null makes the comparison unknown; such rows are refused,
            // not skipped.
            let certain = order
                .iter()
                .all(|column| Some(*column) == self.reading.cursor || columns[*column].required);
            conditions.push(if certain { behind } else { format!("({behind}) is not false") });
            for after in &cursor.after {
                values.push(Value::from_tagged(after).ok_or_else(|| {
                    Error::stop(
                        &*self.reading.what,
                        "run once with `--full`: the cursor is damaged",
                    )
                })?);
            }
        } else if let (Some(change), Some(high), false) =
            (self.reading.cursor, &cursor.high, cursor.nulls)
        {
            conditions.push(format!("{} >= ?", name(&columns[change])));
            values.push(self.reading.start_from(high)?);
        }
        Ok((conditions.join(" and "), values))
    }

    /// Takes one row.
    fn row(&mut self, row: &SqliteRow, gather: &mut Gather) -> Result<(), sqlx::Error> {
        let columns = &self.reading.columns;
        let limit = gather.limits.record_bytes;
        let mut values = Vec::with_capacity(columns.len());
        let mut unreadable = None;
        for index in 0..columns.len() {
            values.push(Value::of(row, index)?.unwrap_or_else(|| {
                unreadable = Some(index);
                Value::Null
            }));
        }
        let too_large = matches!(Value::of(row, columns.len())?, Some(Value::Integer(1)));
        let size: usize = values.iter().map(Value::size).sum();
        let key: Vec<_> = self.reading.key.iter().map(|index| &values[*index]).collect();
        let change = self.reading.cursor.map(|index| &values[index]);
        let row = RowKey {
            shown: key.iter().map(|value| value.text().unwrap_or_default()).collect(),
            key: key.iter().map(|value| value.tagged()).collect(),
            change: change.and_then(|value| Some((value.text()?, value.tagged()?))),
        };
        let missing = self.reading.key.iter().find(|index| values[**index] == Value::Null);
        let problem = if too_large || size > limit {
            Some(Problem::size(limit))
        } else if let Some(index) = unreadable {
            Some(Problem::of("encoding", &columns[index].name, "is not UTF-8"))
        } else {
            missing.map(|index| {
                Problem::of("key", &columns[*index].name, "is part of the key and has no value")
            })
        };
        match problem {
            None => {
                gather.accept(&row, size + 8 * values.len());
                for (column, value) in self.values.iter_mut().zip(values) {
                    column.push(value);
                }
            }
            Some(problem) => {
                let named = columns.iter().zip(&values);
                let texts = named.map(|(column, value)| (column.name.as_str(), value.text()));
                gather.refuse(&row, problem, raw(texts, limit));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Rows for Selects {
    fn has_cursor(&self) -> bool {
        self.reading.cursor.is_some()
    }

    async fn read(&mut self, gather: &mut Gather) -> Result<bool, Stop> {
        let what = self.reading.what.clone();
        let failed = |error| Stop::Error(whole(&what, error));
        let began = Instant::now();
        let mut connection =
            SqliteConnection::connect_with(&self.reading.options).await.map_err(failed)?;
        let (condition, values) = self.condition(&gather.cursor).map_err(Stop::Error)?;
        let sql = self.query(&gather.cursor, &condition, gather.limits.record_bytes);
        let mut query = sqlx::query(statement(sql));
        for value in values {
            query = bind(query, value);
        }
        let mut rows = query.fetch(&mut connection);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let left = LONGEST_TRANSACTION.saturating_sub(began.elapsed());
            if !gather.make_way(left).await? {
                return Ok(false);
            }
            self.row(&row, gather).map_err(failed)?;
            if gather.is_full() {
                gather.close(self)?;
            }
        }
        drop(rows);
        connection.close().await.map_err(failed)?;
        Ok(true)
    }

    fn take(&mut self) -> Result<RecordBatch, Error> {
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for (selected, values) in self.reading.columns.iter().zip(&mut self.values) {
            let (field_type, array) = column(std::mem::take(values), selected.field_type);
            fields.push(field_type.arrow_field(&selected.name));
            arrays.push(array);
        }
        let schema = Arc::new(arrow_schema::Schema::new(fields));
        RecordBatch::try_new(schema, arrays)
            .map_err(|cause| Error::stop(&*self.reading.what, "report this").because(cause))
    }
}

fn name(column: &Selected) -> Identifier {
    Identifier::known(column.name.clone())
}
