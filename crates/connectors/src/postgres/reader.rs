//! Reads a table in order, in a task of its own, so that the next chunk is read while the last one
//! is on its way.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{RecordBatch, StringArray, builder::StringBuilder};
use async_trait::async_trait;
use connect::{Chunk, Error, Limits, RefusedRaw};
use futures::StreamExt;
use model::{Ids, Records};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    decode::{Builder, Rows, Selected},
    error::whole,
};
use crate::sql::{
    cursor::{Cursor, write_id},
    quote::{Identifier, Table, list},
    text::Moment,
};

/// A transaction keeps the database from removing old rows; after this time the next one begins.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(60);

/// What to read of a table, all names checked.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) options: PgConnectOptions,
    pub(super) table: Table,
    /// What fails when reading fails.
    pub(super) what: String,
    pub(super) columns: Vec<Selected>,
    /// Indices of the key in `columns`.
    pub(super) key: Vec<usize>,
    /// Index of the cursor column.
    pub(super) cursor: Option<usize>,
    pub(super) lag: Duration,
    /// Values may be larger than a page.
    pub(super) guarded: bool,
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
            let what = reading.what.clone();
            let mut work = Work::new(reading, cursor, base, limits, sender.clone());
            if let Err(error) = work.run().await {
                let error = match error {
                    Stop::Gone => return,
                    Stop::Database(error) => whole(&what, error),
                    Stop::Shape(error) => error,
                };
                // Without a receiver nobody wants to know.
                sender.send(Err(error)).await.ok();
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
    Database(sqlx::Error),
    Shape(Error),
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

struct Work {
    reading: Reading,
    limits: Limits,
    base: i64,
    sender: mpsc::Sender<Result<Chunk, Error>>,
    schema: Arc<arrow_schema::Schema>,
    cursor: Cursor,
    /// A chunk is kept back until it is known whether it is the last one.
    held: Option<(Chunk, Cursor)>,
    builders: Vec<Builder>,
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
        let fields: Vec<_> = reading
            .columns
            .iter()
            .map(|column| column.field_type().arrow_field(&column.name))
            .collect();
        Self {
            table: reading.table.plain(),
            builders: builders(&reading),
            schema: Arc::new(arrow_schema::Schema::new(fields)),
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
                self.send(chunk).await?;
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
            self.send(chunk).await?;
        }
        Ok(())
    }

    /// Reads from the cursor on in one transaction and tells whether it came to the end of the
    /// range of rows with or without a cursor value.
    async fn read(&mut self) -> Result<bool, Stop> {
        let began = Instant::now();
        let mut connection = PgConnection::connect_with(&self.reading.options).await?;
        sqlx::raw_sql("begin isolation level repeatable read read only")
            .execute(&mut connection)
            .await?;
        for (name, value) in self.settings() {
            sqlx::query("select set_config($1, $2, true)")
                .bind(name)
                .bind(value)
                .execute(&mut connection)
                .await?;
        }
        let sql = self.query();
        let mut stream = connection.copy_out_raw(&sql).await?;
        let mut rows = Rows::default();
        let mut fields = Vec::new();
        while let Some(piece) = stream.next().await {
            rows.push(&piece?);
            while rows.next(&mut fields) {
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
                self.take(rows.bytes(), &fields);
                let full = self.bytes >= self.limits.chunk_bytes
                    || self.positions.len() + self.refused.len() >= self.limits.chunk_records;
                if full {
                    self.cut()?;
                }
            }
        }
        drop(stream);
        connection.close().await?;
        Ok(true)
    }

    /// Values for the query: a COPY takes no parameters.
    fn settings(&self) -> Vec<(String, String)> {
        let micros = self.reading.lag.as_micros();
        let mut settings = vec![("tributary.lag".to_owned(), format!("{micros} microseconds"))];
        if let Some(high) = &self.cursor.high {
            settings.push(("tributary.high".to_owned(), high.clone()));
        }
        for (index, value) in self.cursor.after.iter().enumerate() {
            settings.push((format!("tributary.after_{index}"), value.clone()));
        }
        settings
    }

    fn query(&self) -> String {
        let reading = &self.reading;
        let limit = self.limits.record_bytes;
        let mut selected: Vec<_> = reading
            .columns
            .iter()
            .map(|column| {
                let expression = &column.expression;
                if reading.guarded && column.toastable {
                    format!("case when octet_length({expression}) > {limit} then null else {expression} end")
                } else {
                    expression.clone()
                }
            })
            .collect();
        if reading.guarded {
            let large = reading.columns.iter().filter(|column| column.toastable);
            let large: Vec<_> = large
                .map(|column| {
                    format!("coalesce(octet_length({}) > {limit}, false)", column.expression)
                })
                .collect();
            selected.push(if large.is_empty() { "false".to_owned() } else { large.join(" or ") });
        }
        format!(
            "copy (select {} from {} where {} order by {}) to stdout (format binary)",
            list(selected),
            reading.table,
            self.condition(),
            list(self.order().iter().map(|index| name(&reading.columns[*index]))),
        )
    }

    /// Columns that the rows are ordered by.
    fn order(&self) -> Vec<usize> {
        let cursor = self.reading.cursor.filter(|_| !self.cursor.nulls);
        cursor.into_iter().chain(self.reading.key.iter().copied()).collect()
    }

    fn condition(&self) -> String {
        let mut conditions = vec!["true".to_owned()];
        if let Some(cursor) = self.reading.cursor {
            conditions.push(in_range(&self.reading.columns[cursor], self.cursor.nulls));
        }
        let order = self.order();
        let setting = |name: String, column: usize| {
            format!(
                "cast(current_setting('tributary.{name}') as {})",
                self.reading.columns[column].base
            )
        };
        if self.cursor.after.len() == order.len() {
            let after = order
                .iter()
                .enumerate()
                .map(|(index, column)| setting(format!("after_{index}"), *column));
            let names = order.iter().map(|index| name(&self.reading.columns[*index]));
            let behind = format!("({}) > ({})", list(names), list(after));
            // A part of the key that is null makes the comparison unknown; such rows are refused,
            // not skipped.
            let certain = order.iter().all(|column| {
                Some(*column) == self.reading.cursor || self.reading.columns[*column].required
            });
            conditions.push(if certain { behind } else { format!("({behind}) is not false") });
        } else if let (Some(cursor), Some(_), false) =
            (self.reading.cursor, &self.cursor.high, self.cursor.nulls)
        {
            conditions.push(from_high(
                &self.reading.columns[cursor],
                &setting("high".to_owned(), cursor),
                self.reading.lag,
                "cast(current_setting('tributary.lag') as interval)",
            ));
        }
        conditions.join(" and ")
    }

    /// Takes one row into the chunk.
    fn take(&mut self, bytes: &[u8], fields: &[Option<Range<usize>>]) {
        let values: Vec<Option<&[u8]>> =
            fields.iter().map(|field| field.clone().map(|range| &bytes[range])).collect();
        self.cursor.row += 1;
        let size: usize = values.iter().flatten().map(|value| value.len()).sum();
        let columns = &self.reading.columns;
        let text = |index: usize| {
            values[index].map(|value| {
                let mut text = String::new();
                columns[index].format.write_text(value, &mut text);
                text
            })
        };
        let key: Vec<_> = self.reading.key.iter().map(|index| text(*index)).collect();
        let change = self.reading.cursor.and_then(text);
        let problem = self.problem(&values, size);
        let whole_key: Option<Vec<String>> = key.iter().cloned().collect();
        let shown: Vec<_> = key.into_iter().map(Option::unwrap_or_default).collect();
        let mut id = String::new();
        write_id(&mut id, &self.table, &shown, change.as_deref());
        match problem {
            None => {
                for (builder, value) in self.builders.iter_mut().zip(&values) {
                    builder.append(*value);
                }
                self.ids.append_value(&id);
                self.positions.push(self.cursor.row);
                self.bytes += size + 8 * columns.len();
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
            let change = change.filter(|_| !self.cursor.nulls);
            if let Some(change) = &change {
                self.rise(change);
            }
            self.cursor.after = change.into_iter().chain(key).collect();
        }
    }

    /// Keeps the greatest value of the cursor column. With a lag reading starts behind it; without
    /// one, and for all types but times, the order of the rows is the order of the values.
    fn rise(&mut self, value: &str) {
        let moment = |text: &str| Moment::parse(text);
        let lower = self.reading.lag > Duration::ZERO
            && self.cursor.high.as_deref().and_then(moment) > moment(value);
        if !lower && self.cursor.high.as_deref() != Some(value) {
            self.cursor.high = Some(value.to_owned());
        }
    }

    /// Tells why a row cannot be taken.
    fn problem(
        &self,
        values: &[Option<&[u8]>],
        size: usize,
    ) -> Option<(&'static str, String, String)> {
        let columns = &self.reading.columns;
        let too_large = self.reading.guarded && values.last() == Some(&Some(&[1]));
        if too_large || size > self.limits.record_bytes {
            let message = format!("the row is larger than {} bytes", self.limits.record_bytes);
            return Some(("size", message, String::new()));
        }
        for index in &self.reading.key {
            if values[*index].is_none() {
                let name = &columns[*index].name;
                return Some((
                    "key",
                    format!("`{name}` is part of the key and has no value"),
                    name.clone(),
                ));
            }
        }
        for (column, value) in columns.iter().zip(values) {
            if value.is_some_and(|value| column.format.is_out_of_range(value)) {
                let message = format!("`{}` is infinite or not a number", column.name);
                return Some(("range", message, column.name.clone()));
            }
        }
        None
    }

    /// Closes the chunk.
    fn cut(&mut self) -> Result<(), Stop> {
        if self.positions.is_empty() && self.refused.is_empty() {
            return Ok(());
        }
        let columns = self.builders.iter_mut().map(Builder::finish).collect();
        let columns = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|cause| {
            Stop::Shape(Error::stop(&*self.reading.what, "report this").because(cause))
        })?;
        let ids: StringArray = self.ids.finish();
        self.builders = builders(&self.reading);
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

    async fn send(&self, chunk: Chunk) -> Result<(), Stop> {
        self.sender.send(Ok(chunk)).await.map_err(|_| Stop::Gone)
    }
}

fn builders(reading: &Reading) -> Vec<Builder> {
    reading.columns.iter().map(|column| Builder::new(column.format)).collect()
}

fn name(column: &Selected) -> Identifier {
    Identifier::known(column.name.clone())
}

/// The rows whose cursor value can, or cannot, be compared with others. An infinite time would be
/// the greatest value for ever.
pub(super) fn in_range(cursor: &Selected, nulls: bool) -> String {
    let name = name(cursor);
    let finite = matches!(
        cursor.base.as_str(),
        "date" | "timestamp without time zone" | "timestamp with time zone"
    );
    match (finite, nulls) {
        (true, true) => format!("({name} is null or not isfinite({name}))"),
        (true, false) => format!("isfinite({name})"),
        (false, true) => format!("{name} is null"),
        (false, false) => format!("{name} is not null"),
    }
}

/// The rows from the greatest seen value on, less the lag.
pub(super) fn from_high(cursor: &Selected, high: &str, lag: Duration, interval: &str) -> String {
    if lag > Duration::ZERO {
        format!("{} >= {high} - {interval}", name(cursor))
    } else {
        format!("{} >= {high}", name(cursor))
    }
}

/// The row as JSON, cut where it gets too long.
fn raw(columns: &[Selected], values: &[Option<&[u8]>], most: usize) -> Vec<u8> {
    let mut object = serde_json::Map::new();
    let mut size = 0;
    for (column, value) in columns.iter().zip(values) {
        let mut text = String::new();
        let value = value.map_or(serde_json::Value::Null, |value| {
            let value = &value[..value.len().min(most)];
            column.format.write_text(value, &mut text);
            serde_json::Value::String(text)
        });
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
