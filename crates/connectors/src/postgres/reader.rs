//! Reads a table by `COPY … TO STDOUT`, in binary.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use connect::{Error, RunOptions};
use futures::StreamExt;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use super::{
    decode::{Builder, CopyRows, Format, Selected},
    error::whole,
};
use crate::sql::{
    cursor::Cursor,
    quote::{Identifier, Origin, list},
    reader::{Gather, Problem, RowKey, Rows, Stop, raw},
};

/// A transaction keeps the database from removing old rows; after this time the next one begins.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(60);

/// What to read of a table, all names checked.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) options: PgConnectOptions,
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
    /// Values may be larger than a page.
    pub(super) guarded: bool,
}

/// Reads the table with one COPY after the other.
pub(super) struct Copies {
    reading: Reading,
    /// A transaction that is open already and is read to its end, however long that takes.
    session: Option<PgConnection>,
    schema: Arc<arrow_schema::Schema>,
    builders: Vec<Builder>,
    /// What identifies the row in hand; its memory is used again for the next one.
    row: RowKey,
}

impl Copies {
    pub(super) fn new(reading: Reading) -> Self {
        let fields: Vec<_> = reading
            .columns
            .iter()
            .map(|column| column.field_type().arrow_field(&column.name))
            .collect();
        Self {
            builders: builders(&reading),
            row: RowKey::default(),
            schema: Arc::new(arrow_schema::Schema::new(fields)),
            reading,
            session: None,
        }
    }

    /// Reads in this session's transaction instead of transactions of its own.
    pub(super) fn within(reading: Reading, session: PgConnection) -> Self {
        Self { session: Some(session), ..Self::new(reading) }
    }

    /// Values for the query: a COPY takes no parameters.
    fn settings(&self, cursor: &Cursor) -> Vec<(String, String)> {
        let micros = self.reading.lag.as_micros();
        let mut settings = vec![("tributary.lag".to_owned(), format!("{micros} microseconds"))];
        if let Some(high) = &cursor.high {
            settings.push(("tributary.high".to_owned(), high.clone()));
        }
        for (name, value) in [("from", &self.reading.run.from), ("to", &self.reading.run.to)] {
            if let Some(value) = value {
                settings.push((format!("tributary.{name}"), value.clone()));
            }
        }
        for (index, value) in cursor.after.iter().enumerate() {
            settings.push((format!("tributary.after_{index}"), value.clone()));
        }
        settings
    }

    fn query(&self, cursor: &Cursor, limit: usize) -> String {
        let reading = &self.reading;
        let size = |column: &Selected| match column.format {
            Format::Bytes => format!("octet_length({})", column.expression),
            _ => format!("octet_length(cast({} as text))", column.expression),
        };
        let guarded = |column: &&Selected| reading.guarded && column.toastable;
        let mut selected: Vec<_> = reading
            .columns
            .iter()
            .map(|column| match Some(column).filter(guarded) {
                Some(column) => format!(
                    "case when {} > {limit} then null else {} end",
                    size(column),
                    column.expression
                ),
                None => column.expression.clone(),
            })
            .collect();
        if reading.guarded {
            let large = reading.columns.iter().filter(guarded);
            let large: Vec<_> = large
                .map(|column| format!("coalesce({} > {limit}, false)", size(column)))
                .collect();
            selected.push(if large.is_empty() { "false".to_owned() } else { large.join(" or ") });
        }
        format!(
            "copy (select {} from {} where {} order by {}) to stdout (format binary)",
            list(selected),
            reading.origin,
            self.condition(cursor),
            list(self.order(cursor).iter().map(|index| name(&reading.columns[*index]))),
        )
    }

    /// Columns that the rows are ordered by.
    fn order(&self, cursor: &Cursor) -> Vec<usize> {
        let change = self.reading.cursor.filter(|_| !cursor.nulls);
        change.into_iter().chain(self.reading.key.iter().copied()).collect()
    }

    fn condition(&self, cursor: &Cursor) -> String {
        let mut conditions = vec!["true".to_owned()];
        if let Some(change) = self.reading.cursor {
            conditions.push(in_range(&self.reading.columns[change], cursor.nulls));
        }
        let order = self.order(cursor);
        let setting = |name: String, column: usize| {
            format!(
                "cast(current_setting('tributary.{name}') as {})",
                self.reading.columns[column].base
            )
        };
        // A range has neither rows without a value nor rows beyond it.
        let run = &self.reading.run;
        for (bound, sign, is_set) in
            [("from", ">=", run.from.is_some()), ("to", "<=", run.to.is_some())]
        {
            if let Some(change) = self.reading.cursor.filter(|_| is_set) {
                let column = name(&self.reading.columns[change]);
                conditions.push(format!("{column} {sign} {}", setting(bound.to_owned(), change)));
            }
        }
        if cursor.after.len() == order.len() {
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
        } else if let (Some(change), Some(_), false) =
            (self.reading.cursor, &cursor.high, cursor.nulls)
        {
            conditions.push(from_high(
                &self.reading.columns[change],
                &setting("high".to_owned(), change),
                self.reading.lag,
                "cast(current_setting('tributary.lag') as interval)",
            ));
        }
        conditions.join(" and ")
    }

    async fn copy(&mut self, gather: &mut Gather) -> Result<bool, Halt> {
        let began = Instant::now();
        let given = self.session.take();
        let longest = if given.is_some() { Duration::MAX } else { LONGEST_TRANSACTION };
        let mut connection = match given {
            Some(session) => session,
            None => {
                let mut session = PgConnection::connect_with(&self.reading.options).await?;
                sqlx::raw_sql("begin isolation level repeatable read read only")
                    .execute(&mut session)
                    .await?;
                session
            }
        };
        for (name, value) in self.settings(&gather.cursor) {
            sqlx::query("select set_config($1, $2, true)")
                .bind(name)
                .bind(value)
                .execute(&mut connection)
                .await?;
        }
        let sql = self.query(&gather.cursor, gather.limits.record_bytes);
        let mut stream = connection.copy_out_raw(&sql).await?;
        let mut rows = CopyRows::default();
        let mut fields = Vec::new();
        while let Some(piece) = stream.next().await {
            rows.push(&piece?);
            while rows.next(&mut fields) {
                // The time is asked once a chunk, not once a row.
                if gather.is_held() {
                    let left = longest.saturating_sub(began.elapsed());
                    if !gather.make_way(left).await? {
                        return Ok(false);
                    }
                }
                self.row(rows.bytes(), &fields, gather);
                if gather.is_full() {
                    gather.close(self)?;
                }
            }
        }
        drop(stream);
        connection.close().await?;
        Ok(true)
    }

    /// Takes one row.
    fn row(&mut self, bytes: &[u8], fields: &[Option<Range<usize>>], gather: &mut Gather) {
        let values: Vec<Option<&[u8]>> =
            fields.iter().map(|field| field.clone().map(|range| &bytes[range])).collect();
        self.identify(&values);
        let columns = &self.reading.columns;
        let size: usize = values.iter().flatten().map(|value| value.len()).sum();
        match self.problem(&values, size, gather.limits.record_bytes) {
            None => {
                let mut encoded = 0;
                let appended = self.builders.iter_mut().zip(columns).zip(&values);
                for ((builder, column), value) in appended {
                    encoded += column.format.encoded_size(*value);
                    builder.append(*value);
                }
                gather.accept(&self.row, encoded);
            }
            Some(problem) => {
                let most = gather.limits.record_bytes;
                let texts = columns.iter().zip(&values).map(|(column, value)| {
                    let text = value.map(|value| {
                        let mut text = String::new();
                        let kept = &value[..value.len().min(most)];
                        column.format.write_text(kept, &mut text);
                        text
                    });
                    (column.name.as_str(), text)
                });
                gather.refuse(&self.row, problem, raw(texts, most));
            }
        }
    }

    /// Sets `row` to what identifies the row with these values.
    fn identify(&mut self, values: &[Option<&[u8]>]) {
        let Self { reading: Reading { columns, key, cursor, .. }, row, .. } = self;
        let write = |index: usize, text: &mut String| {
            text.clear();
            if let Some(value) = values[index] {
                columns[index].format.write_text(value, text);
            }
        };
        row.shown.resize_with(key.len(), String::new);
        for (text, index) in row.shown.iter_mut().zip(&*key) {
            write(*index, text);
        }
        if key.iter().all(|index| values[*index].is_some()) {
            row.key.get_or_insert_default().clone_from(&row.shown);
        } else {
            row.key = None;
        }
        match cursor.filter(|index| values[*index].is_some()) {
            Some(index) => {
                let (shown, kept) = row.change.get_or_insert_default();
                write(index, shown);
                kept.clone_from(shown);
            }
            None => row.change = None,
        }
    }

    /// Tells why a row cannot be taken.
    fn problem(&self, values: &[Option<&[u8]>], size: usize, limit: usize) -> Option<Problem> {
        let columns = &self.reading.columns;
        let too_large = self.reading.guarded && values.last() == Some(&Some(&[1]));
        if too_large || size > limit {
            return Some(Problem::size(limit));
        }
        let missing = self.reading.key.iter().find(|index| values[**index].is_none());
        if let Some(index) = missing {
            let name = &columns[*index].name;
            return Some(Problem::of("key", name, "is part of the key and has no value"));
        }
        let infinite = columns.iter().zip(values).find(|(column, value)| {
            value.is_some_and(|value| column.format.is_out_of_range(value))
        });
        infinite
            .map(|(column, _)| Problem::of("range", &column.name, "is infinite or not a number"))
    }
}

/// Why a COPY ends early.
enum Halt {
    Database(sqlx::Error),
    Stop(Stop),
}

impl From<sqlx::Error> for Halt {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

#[async_trait]
impl Rows for Copies {
    fn has_cursor(&self) -> bool {
        self.reading.cursor.is_some()
    }

    async fn read(&mut self, gather: &mut Gather) -> Result<bool, Stop> {
        self.copy(gather).await.map_err(|halt| match halt {
            Halt::Database(error) => Stop::Error(whole(&self.reading.what, error)),
            Halt::Stop(stop) => stop,
        })
    }

    fn take(&mut self) -> Result<RecordBatch, Error> {
        let columns = self.builders.iter_mut().map(Builder::finish).collect();
        self.builders = builders(&self.reading);
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|cause| Error::stop(&*self.reading.what, "report this").because(cause))
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
