//! Reads a table in order, in a task of its own, so that the next chunk is read while the last one
//! is on its way.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{RecordBatch, StringArray, builder::StringBuilder};
use async_trait::async_trait;
use connect::{Chunk, Error, Limits, RefusedRaw};
use futures::TryStreamExt;
use model::{FieldType, Ids, Records};
use sqlx::{
    Connection, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    error::whole,
    value::{Value, column},
};
use crate::sql::{
    cursor::{Cursor, write_id},
    quote::{Identifier, Table, list, statement},
    text::Moment,
};

/// Reading may keep others from writing; after this time it pauses.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(2);

/// What to read of a table, all names checked.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) options: SqliteConnectOptions,
    pub(super) table: Table,
    /// What fails when reading fails.
    pub(super) what: String,
    pub(super) columns: Vec<Selected>,
    /// Indices of the key in `columns`.
    pub(super) key: Vec<usize>,
    /// Index of the cursor column.
    pub(super) cursor: Option<usize>,
    pub(super) lag: Duration,
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
                    "`lag` is a time, but values of the cursor column `{name}` of table `{}` are not written as one",
                    self.table.plain()
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

/// Gives what the task has read.
pub(super) struct Reader {
    chunks: mpsc::Receiver<Result<Chunk, Error>>,
    task: JoinHandle<()>,
}

impl Reader {
    pub(super) fn start(reading: Reading, cursor: Cursor, base: i64, limits: Limits) -> Self {
        let (sender, chunks) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut work = Work::new(reading, cursor, base, limits, sender.clone());
            match work.run().await {
                // Without a receiver nobody wants to know.
                Err(Stop::Error(error)) => drop(sender.send(Err(error)).await),
                Ok(()) | Err(Stop::Gone) => {}
            }
        });
        Self { chunks, task }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl connect::Reader for Reader {
    async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        self.chunks.recv().await.transpose()
    }
}

/// Why reading ends early.
enum Stop {
    /// Nobody takes the chunks any more.
    Gone,
    Error(Error),
}

struct Work {
    reading: Reading,
    limits: Limits,
    base: i64,
    sender: mpsc::Sender<Result<Chunk, Error>>,
    cursor: Cursor,
    /// A chunk is kept back until it is known whether it is the last one.
    held: Option<(Chunk, Cursor)>,
    values: Vec<Vec<Value>>,
    ids: StringBuilder,
    positions: Vec<u64>,
    refused: Vec<RefusedRaw>,
    bytes: usize,
    table: String,
}

impl Work {
    fn new(
        reading: Reading,
        cursor: Cursor,
        base: i64,
        limits: Limits,
        sender: mpsc::Sender<Result<Chunk, Error>>,
    ) -> Self {
        Self {
            table: reading.table.plain(),
            values: vec![Vec::new(); reading.columns.len()],
            reading,
            limits,
            base,
            sender,
            cursor,
            held: None,
            ids: StringBuilder::new(),
            positions: Vec::new(),
            refused: Vec::new(),
            bytes: 0,
        }
    }

    async fn run(&mut self) -> Result<(), Stop> {
        if self.reading.cursor.is_some() && self.cursor.after.is_empty() {
            self.cursor.nulls = true;
        }
        loop {
            let ended = self.read().await?;
            if !ended && let Some((chunk, _)) = self.held.take() {
                self.sender.send(Ok(chunk)).await.map_err(|_| Stop::Gone)?;
            }
            if ended && self.cursor.nulls {
                self.cursor.nulls = false;
                self.cursor.after.clear();
            } else if ended {
                break;
            }
        }
        self.cut()?;
        if let Some((mut chunk, mut cursor)) = self.held.take() {
            cursor.end = true;
            chunk.cursor = cursor.to_text();
            self.sender.send(Ok(chunk)).await.map_err(|_| Stop::Gone)?;
        }
        Ok(())
    }

    /// Reads from the cursor on with one statement and tells whether it came to the end of the
    /// range of rows with or without a cursor value.
    async fn read(&mut self) -> Result<bool, Stop> {
        let what = self.reading.what.clone();
        let failed = |error| Stop::Error(whole(&what, error));
        let began = Instant::now();
        let mut connection =
            SqliteConnection::connect_with(&self.reading.options).await.map_err(failed)?;
        let (condition, values) = self.condition().map_err(Stop::Error)?;
        let mut query = sqlx::query(statement(self.query(&condition)));
        for value in values {
            query = bind(query, value);
        }
        let mut rows = query.fetch(&mut connection);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            if self.held.is_some() {
                // There is a further row, so this is not the last chunk.
                let left = LONGEST_TRANSACTION.saturating_sub(began.elapsed());
                let sender = self.sender.clone();
                let Ok(permit) = tokio::time::timeout(left, sender.reserve()).await else {
                    return Ok(false);
                };
                let permit = permit.map_err(|_| Stop::Gone)?;
                if let Some((chunk, _)) = self.held.take() {
                    permit.send(Ok(chunk));
                }
            }
            self.take(&row).map_err(failed)?;
            let full = self.bytes >= self.limits.chunk_bytes
                || self.positions.len() + self.refused.len() >= self.limits.chunk_records;
            if full {
                self.cut()?;
            }
        }
        drop(rows);
        connection.close().await.map_err(failed)?;
        Ok(true)
    }

    fn query(&self, condition: &str) -> String {
        let reading = &self.reading;
        let limit = self.limits.record_bytes;
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
            reading.table,
            list(self.order().iter().map(|index| name(&reading.columns[*index]))),
        )
    }

    /// Columns that the rows are ordered by.
    fn order(&self) -> Vec<usize> {
        let cursor = self.reading.cursor.filter(|_| !self.cursor.nulls);
        cursor.into_iter().chain(self.reading.key.iter().copied()).collect()
    }

    fn condition(&self) -> Result<(String, Vec<Value>), Error> {
        let mut conditions = vec!["1 = 1".to_owned()];
        let mut values = Vec::new();
        let columns = &self.reading.columns;
        if let Some(cursor) = self.reading.cursor {
            let is = if self.cursor.nulls { "is null" } else { "is not null" };
            conditions.push(format!("{} {is}", name(&columns[cursor])));
        }
        let order = self.order();
        if self.cursor.after.len() == order.len() {
            let names = list(order.iter().map(|index| name(&columns[*index])));
            let marks = list(order.iter().map(|_| "?"));
            let behind = format!("({names}) > ({marks})");
            // A part of the key that is null makes the comparison unknown; such rows are refused,
            // not skipped.
            let certain = order
                .iter()
                .all(|column| Some(*column) == self.reading.cursor || columns[*column].required);
            conditions.push(if certain { behind } else { format!("({behind}) is not false") });
            for after in &self.cursor.after {
                values.push(Value::from_tagged(after).ok_or_else(|| {
                    Error::stop(
                        &*self.reading.what,
                        "run once with `--full`: the cursor is damaged",
                    )
                })?);
            }
        } else if let (Some(cursor), Some(high), false) =
            (self.reading.cursor, &self.cursor.high, self.cursor.nulls)
        {
            conditions.push(format!("{} >= ?", name(&columns[cursor])));
            values.push(self.reading.start_from(high)?);
        }
        Ok((conditions.join(" and "), values))
    }

    /// Takes one row into the chunk.
    fn take(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        let count = self.reading.columns.len();
        self.cursor.row += 1;
        let mut values = Vec::with_capacity(count);
        let mut unreadable = None;
        for index in 0..count {
            values.push(Value::of(row, index)?.unwrap_or_else(|| {
                unreadable = Some(index);
                Value::Null
            }));
        }
        let too_large = matches!(Value::of(row, count)?, Some(Value::Integer(1)));
        let size: usize = values.iter().map(Value::size).sum();
        let columns = &self.reading.columns;
        let key: Vec<_> = self.reading.key.iter().map(|index| &values[*index]).collect();
        let change = self.reading.cursor.map(|index| &values[index]);
        let problem = if too_large || size > self.limits.record_bytes {
            let message = format!("the row is larger than {} bytes", self.limits.record_bytes);
            Some(("size", message, String::new()))
        } else if let Some(index) = unreadable {
            let name = &columns[index].name;
            Some(("encoding", format!("`{name}` is not UTF-8"), name.clone()))
        } else {
            let missing = self.reading.key.iter().find(|index| values[**index] == Value::Null);
            missing.map(|index| {
                let name = &columns[*index].name;
                ("key", format!("`{name}` is part of the key and has no value"), name.clone())
            })
        };
        let shown: Vec<_> = key.iter().map(|value| value.text().unwrap_or_default()).collect();
        let mut id = String::new();
        write_id(&mut id, &self.table, &shown, change.and_then(Value::text).as_deref());
        let whole_key: Option<Vec<_>> = key.iter().map(|value| value.tagged()).collect();
        let change = change.filter(|_| !self.cursor.nulls).and_then(Value::tagged);
        match problem {
            None => {
                self.ids.append_value(&id);
                self.positions.push(self.cursor.row);
                self.bytes += size + 8 * count;
                for (column, value) in self.values.iter_mut().zip(values) {
                    column.push(value);
                }
            }
            Some((code, message, field)) => {
                let raw = raw(columns, &values, self.limits.record_bytes);
                self.bytes += raw.len();
                self.refused.push(RefusedRaw {
                    id,
                    position: self.cursor.row,
                    code,
                    message,
                    field,
                    raw,
                });
            }
        }
        if let Some(key) = whole_key {
            if let Some(change) = &change {
                self.rise(change);
            }
            self.cursor.after = change.into_iter().chain(key).collect();
        }
        Ok(())
    }

    /// Keeps the greatest value of the cursor column. With a lag reading starts behind it; without
    /// one the order of the rows is the order of the values.
    fn rise(&mut self, value: &str) {
        let moment = |text: &str| Moment::parse(text.strip_prefix("t:")?);
        let lower = self.reading.lag > Duration::ZERO
            && self.cursor.high.as_deref().and_then(moment) > moment(value);
        if !lower && self.cursor.high.as_deref() != Some(value) {
            self.cursor.high = Some(value.to_owned());
        }
    }

    /// Closes the chunk.
    fn cut(&mut self) -> Result<(), Stop> {
        if self.positions.is_empty() && self.refused.is_empty() {
            return Ok(());
        }
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for (selected, values) in self.reading.columns.iter().zip(&mut self.values) {
            let (field_type, array) = column(std::mem::take(values), selected.field_type);
            fields.push(field_type.arrow_field(&selected.name));
            arrays.push(array);
        }
        let schema = Arc::new(arrow_schema::Schema::new(fields));
        let columns = RecordBatch::try_new(schema, arrays).map_err(|cause| {
            Stop::Error(Error::stop(&*self.reading.what, "report this").because(cause))
        })?;
        let ids: StringArray = self.ids.finish();
        self.bytes = 0;
        let chunk = Chunk {
            records: Records {
                columns,
                presence: Vec::new(),
                ids: Ids::Explicit(ids),
                positions: std::mem::take(&mut self.positions),
                extraction_base: self.base,
                versions: None,
                operations: None,
            },
            refused: std::mem::take(&mut self.refused),
            cursor: self.cursor.to_text(),
        };
        self.held = Some((chunk, self.cursor.clone()));
        Ok(())
    }
}

fn name(column: &Selected) -> Identifier {
    Identifier::known(column.name.clone())
}

/// The row as JSON, cut where it gets too long.
fn raw(columns: &[Selected], values: &[Value], most: usize) -> Vec<u8> {
    let mut object = serde_json::Map::new();
    let mut size = 0;
    for (column, value) in columns.iter().zip(values) {
        let value = value.text().map_or(serde_json::Value::Null, serde_json::Value::String);
        size += column.name.len() + value.as_str().map_or(4, str::len) + 6;
        if size > most {
            break;
        }
        object.insert(column.name.clone(), value);
    }
    let mut raw = serde_json::Value::Object(object).to_string().into_bytes();
    raw.truncate(most);
    raw
}
