//! Reading a table in order, in a task of its own, so that the next chunk is read while the last
//! one is on its way.

use std::time::Duration;

use arrow_array::{RecordBatch, builder::StringBuilder};
use async_trait::async_trait;
use connect::{Chunk, Error, Limits, RefusedRaw};
use model::{Ids, Records};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    cursor::{Cursor, write_id},
    text::Moment,
};

/// Why reading ends early.
pub(crate) enum Stop {
    /// Nobody takes the chunks any more.
    Gone,
    /// The database or the table.
    Error(Error),
}

/// A database from which rows are read.
#[async_trait]
pub(crate) trait Rows: Send {
    /// Tells whether there is a cursor column. Its rows without a value are then read first.
    fn has_cursor(&self) -> bool;

    /// Reads from the cursor of `gather` on and tells whether that was to the end: of the rows
    /// with, or of those without a value in the cursor column.
    ///
    /// Before each row it asks [`Gather::make_way`], and ends early if that says so.
    async fn read(&mut self, gather: &mut Gather) -> Result<bool, Stop>;

    /// Returns the values of the accepted rows since the last call.
    fn take(&mut self) -> Result<RecordBatch, Error>;
}

/// Gives what the task has read.
pub(crate) struct Reader {
    chunks: mpsc::Receiver<Result<Chunk, Error>>,
    task: JoinHandle<()>,
}

impl Reader {
    /// Starts reading behind `cursor`. `table` begins the ids.
    pub(crate) fn start(
        mut rows: impl Rows + 'static,
        table: String,
        lag: Duration,
        cursor: Cursor,
        extraction_base: i64,
        limits: Limits,
    ) -> Self {
        let (sender, chunks) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut gather = Gather {
                cursor,
                limits,
                table,
                lag,
                extraction_base,
                sender: sender.clone(),
                held: None,
                ids: StringBuilder::new(),
                id: String::new(),
                positions: Vec::new(),
                refused: Vec::new(),
                bytes: 0,
            };
            if let Err(Stop::Error(error)) = run(&mut rows, &mut gather).await {
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

async fn run(rows: &mut impl Rows, gather: &mut Gather) -> Result<(), Stop> {
    if rows.has_cursor() && gather.cursor.after.is_empty() {
        gather.cursor.nulls = true;
    }
    loop {
        let ended = rows.read(gather).await?;
        if !ended {
            gather.send_held(false).await?;
        } else if gather.cursor.nulls {
            gather.cursor.nulls = false;
            gather.cursor.after.clear();
        } else {
            break;
        }
    }
    gather.close(rows)?;
    gather.send_held(true).await
}

/// What identifies a row.
#[derive(Default)]
pub(crate) struct RowKey {
    /// Values of the key as an id shows them.
    pub(crate) shown: Vec<String>,
    /// Values of the key as a cursor holds them; `None` where one is null.
    pub(crate) key: Option<Vec<String>>,
    /// Value of the cursor column, as an id shows it and as a cursor holds it.
    pub(crate) change: Option<(String, String)>,
}

/// A chunk in the making.
pub(crate) struct Gather {
    /// Where reading stands.
    pub(crate) cursor: Cursor,
    pub(crate) limits: Limits,
    table: String,
    lag: Duration,
    extraction_base: i64,
    sender: mpsc::Sender<Result<Chunk, Error>>,
    /// A chunk is kept back until it is known whether it is the last one.
    held: Option<(Chunk, Cursor)>,
    ids: StringBuilder,
    /// Memory for the id in hand.
    id: String,
    positions: Vec<u64>,
    refused: Vec<RefusedRaw>,
    bytes: usize,
}

impl Gather {
    /// Tells whether a chunk waits for [`Gather::make_way`].
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Gives away the chunk before, now that there is a further row. Tells whether to go on: not
    /// if nobody took it in that time.
    pub(crate) async fn make_way(&mut self, patience: Duration) -> Result<bool, Stop> {
        if self.held.is_none() {
            return Ok(true);
        }
        let sender = self.sender.clone();
        let Ok(permit) = tokio::time::timeout(patience, sender.reserve()).await else {
            return Ok(false);
        };
        let permit = permit.map_err(|_| Stop::Gone)?;
        if let Some((chunk, _)) = self.held.take() {
            permit.send(Ok(chunk));
        }
        Ok(true)
    }

    /// Takes a row whose values were taken; `size` is what they take in a message.
    pub(crate) fn accept(&mut self, row: &RowKey, size: usize) {
        self.cursor.row += 1;
        let mut id = std::mem::take(&mut self.id);
        self.write_id(row, &mut id);
        self.ids.append_value(&id);
        self.positions.push(self.cursor.row);
        self.bytes += size + id.len();
        self.id = id;
        self.advance(row);
    }

    /// Takes a row that cannot be a record.
    pub(crate) fn refuse(&mut self, row: &RowKey, problem: Problem, raw: Vec<u8>) {
        self.cursor.row += 1;
        self.bytes += raw.len();
        let mut id = String::new();
        self.write_id(row, &mut id);
        self.refused.push(RefusedRaw {
            id,
            position: self.cursor.row,
            code: problem.code,
            message: problem.message,
            field: problem.field,
            raw,
        });
        self.advance(row);
    }

    fn write_id(&self, row: &RowKey, id: &mut String) {
        id.clear();
        let change = row.change.as_ref().map(|(shown, _)| shown.as_str());
        write_id(id, &self.table, &row.shown, change);
    }

    fn advance(&mut self, row: &RowKey) {
        // There is no way to go on behind a row without a key: the one before it is kept.
        let Some(key) = &row.key else { return };
        let change = row.change.as_ref().filter(|_| !self.cursor.nulls).map(|(_, change)| change);
        // The texts of the row before make room for those of this one.
        let after = &mut self.cursor.after;
        after.resize_with(key.len() + usize::from(change.is_some()), String::new);
        for (text, value) in after.iter_mut().zip(change.into_iter().chain(key)) {
            text.clone_from(value);
        }
        if let Some(change) = change {
            let moment = |text: &str| Moment::parse(text.strip_prefix("t:").unwrap_or(text));
            // With a lag reading starts behind the greatest value; without one, and for all types
            // but times, the order of the rows is the order of the values.
            let lower = self.lag > Duration::ZERO
                && self.cursor.high.as_deref().and_then(moment) > moment(change);
            if !lower && self.cursor.high.as_ref() != Some(change) {
                self.cursor.high.get_or_insert_default().clone_from(change);
            }
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.limits.chunk_bytes
            || self.positions.len() + self.refused.len() >= self.limits.chunk_records
    }

    /// Closes the chunk, if there is anything in it.
    pub(crate) fn close(&mut self, rows: &mut (impl Rows + ?Sized)) -> Result<(), Stop> {
        if self.positions.is_empty() && self.refused.is_empty() {
            return Ok(());
        }
        let records = Records {
            columns: rows.take().map_err(Stop::Error)?,
            presence: Vec::new(),
            ids: Ids::Explicit(self.ids.finish()),
            positions: std::mem::take(&mut self.positions),
            extraction_base: self.extraction_base,
            versions: None,
            operations: None,
        };
        let refused = std::mem::take(&mut self.refused);
        let chunk = Chunk { records, refused, cursor: self.cursor.to_text() };
        self.bytes = 0;
        self.held = Some((chunk, self.cursor.clone()));
        Ok(())
    }

    async fn send_held(&mut self, last: bool) -> Result<(), Stop> {
        let Some((mut chunk, mut cursor)) = self.held.take() else {
            return Ok(());
        };
        if last {
            cursor.end = true;
            chunk.cursor = cursor.to_text();
        }
        self.sender.send(Ok(chunk)).await.map_err(|_| Stop::Gone)
    }
}

/// Why a row cannot be a record.
pub(crate) struct Problem {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Column to blame, or empty.
    pub(crate) field: String,
}

impl Problem {
    /// The row is larger than it may be.
    pub(crate) fn size(limit: usize) -> Self {
        Self {
            code: "size",
            message: format!("the row is larger than {limit} bytes"),
            field: String::new(),
        }
    }

    /// A column is to blame; `what` goes on behind its name.
    pub(crate) fn of(code: &'static str, column: &str, what: &str) -> Self {
        Self { code, message: format!("`{column}` {what}"), field: column.to_owned() }
    }
}

/// Returns a row as JSON, cut where it gets longer than `most`.
pub(crate) fn raw<'a>(
    values: impl Iterator<Item = (&'a str, Option<String>)>,
    most: usize,
) -> Vec<u8> {
    let mut object = serde_json::Map::new();
    let mut size = 0;
    for (name, text) in values {
        size += name.len() + text.as_ref().map_or(4, String::len) + 6;
        if size > most {
            break;
        }
        let value = text.map_or(serde_json::Value::Null, serde_json::Value::String);
        object.insert(name.to_owned(), value);
    }
    let mut raw = serde_json::Value::Object(object).to_string().into_bytes();
    raw.truncate(most);
    raw
}
