//! What a source promises.
//!
//! - Reading is by cursor: a chunk comes with the cursor after it, and reading from that cursor
//!   gives the record after the chunk. Cursors are text that only the connector understands; the
//!   empty text is the beginning. They hold no secrets.
//! - Reading the same range of an unchanged source twice gives the same records with the same ids,
//!   positions and order, however it is cut into chunks.
//! - A source consists of parts (files, key ranges) that may be read at the same time, by several
//!   processes. Within a part, order is the source's order.
//! - Memory is bounded by `Limits`, not by the size of the source or of a record.
//! - The caller retries what `Error::remedy` tells it to retry, by opening the part again.

use std::collections::BTreeMap;

use async_trait::async_trait;
use model::{Records, Schema};

use crate::Error;

/// A system, file or table that records are read from.
#[async_trait]
pub trait Source: Send + Sync {
    /// Tells in one sentence what was found, or why the source cannot be reached or read.
    ///
    /// # Errors
    ///
    /// When the source cannot be reached or read, or does not have the declared fields.
    async fn check(&self) -> Result<String, Error>;

    /// Lists the streams that could be read with this connection, with their fields.
    ///
    /// # Errors
    ///
    /// When the source cannot be reached.
    async fn discover(&self) -> Result<Vec<Stream>, Error>;

    /// Guesses the schema from the first records, carefully: what looks like a number but would not
    /// come back digit by digit (`+44…`, `007`) is text; money is a decimal.
    ///
    /// # Errors
    ///
    /// When the source cannot be reached, or has no records to learn from.
    async fn infer(&self) -> Result<Schema, Error>;

    /// Finds the parts that have news since `cursors`, in source order: a later part is newer.
    ///
    /// With `full`, every part is read from its beginning. Sources of strict shape compare every
    /// part with the schema here, before anything is read.
    ///
    /// # Errors
    ///
    /// Stops the run where the shape of the source does not fit the schema, naming the column, the
    /// file and the line, and how to accept it.
    async fn parts(&self, cursors: &[PartCursor], full: bool) -> Result<Parts, Error>;

    /// Opens one part behind `cursor`.
    ///
    /// The records of all chunks get `extraction_base` unchanged.
    ///
    /// # Errors
    ///
    /// When the part cannot be opened, or has changed so that the cursor means nothing any more.
    async fn open(
        &self,
        part: &str,
        cursor: &str,
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Box<dyn Reader>, Error>;

    /// Reads single objects by the ids under which the source knows them, because somebody said
    /// that they have changed.
    ///
    /// The records get `extraction_base` unchanged; positions count the objects from 0. The cursors of
    /// the chunks mean nothing. An object that is gone is a record that deletes, where the source can
    /// tell what identifies it, and is left out otherwise.
    ///
    /// # Errors
    ///
    /// Stops where the source cannot read single objects; as [`Source::open`] otherwise.
    async fn fetch(
        &self,
        ids: &[String],
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Vec<Chunk>, Error> {
        let _ = (ids, extraction_base, limits);
        Err(Error::stop(
            "this source cannot read single objects by their ids",
            "push whole records, or use a source that has a `fetch` resource",
        ))
    }
}

/// Reads one part from a cursor to its end.
#[async_trait]
pub trait Reader: Send {
    /// Returns the next records, or nothing at the end. Dropping the future may lose records; the
    /// part then has to be opened again.
    ///
    /// # Errors
    ///
    /// As [`Source::open`], and where the source stops being readable.
    async fn next(&mut self) -> Result<Option<Chunk>, Error>;

    /// Tells what the reading has cost since the part was opened.
    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// What reading from a source has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls that were made, repeated ones included.
    pub calls: u64,
    /// Bytes of the answers, as they came over the wire.
    pub received_bytes: u64,
    /// Time waited for a place under a quota, milliseconds.
    pub waited_quota_ms: u64,
    /// Time paused because the source answered slowly, milliseconds.
    pub slowed_ms: u64,
    /// Calls that were answered with *not modified*.
    pub not_modified: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.calls += more.calls;
        self.received_bytes += more.received_bytes;
        self.waited_quota_ms += more.waited_quota_ms;
        self.slowed_ms += more.slowed_ms;
        self.not_modified += more.not_modified;
    }
}

/// What a run was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Parameters by name.
    pub parameters: BTreeMap<String, String>,
    /// Reads the range of the source's cursor from here on, as the user wrote it, and leaves the
    /// cursor alone.
    pub from: Option<String>,
    /// Reads up to here, as the user wrote it.
    pub to: Option<String>,
    /// The run goes on where it paused: the cursors it gets are its own, in the middle of parts. A
    /// source that reads everything each time goes on there too.
    pub resumed: bool,
}

/// How much a reader may gather before it gives a chunk.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rough size of the values of a chunk.
    pub chunk_bytes: usize,
    /// Number of records of a chunk.
    pub chunk_records: usize,
    /// Size of one record above which it is refused.
    pub record_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { chunk_bytes: 256 * 1024, chunk_records: 16 * 1024, record_bytes: 384 * 1024 }
    }
}

/// Where a part stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartCursor {
    /// Name of the part; empty for a source that has one part only.
    pub part: String,
    /// The cursor.
    pub cursor: String,
}

/// A part that has news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Name; empty for a source that has one part only.
    pub name: String,
    /// Where to start; empty: at the beginning.
    pub cursor: String,
    /// No position in the part will be above this. 0 where that cannot be known.
    pub span: u64,
}

/// The parts of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Parts that have news, in source order.
    pub with_news: Vec<Part>,
    /// Names of parts that have a cursor and are gone from the source.
    pub gone: Vec<String>,
    /// What an operator may want to know, such as a file that was rewritten.
    pub notes: Vec<String>,
}

/// Some records in source order.
#[derive(Debug)]
pub struct Chunk {
    /// The records, with the fields and types that the source gives: text for CSV, JSON for JSON.
    pub records: Records,
    /// Records that could not be read, in source order. They are not in `records`.
    pub refused: Vec<RefusedRaw>,
    /// Cursor after the last record of either kind.
    pub cursor: String,
}

/// A record that could not be read.
#[derive(Debug, Clone)]
pub struct RefusedRaw {
    /// Id, made as for the other records of the part.
    pub id: String,
    /// Ordinal in the source.
    pub position: u64,
    /// Short name of the reason: `size`, `shape`, `encoding`, `duplicate_key`, ….
    pub code: &'static str,
    /// The reason in one sentence, without values.
    pub message: String,
    /// Field that is to blame, or empty.
    pub field: String,
    /// The record's text as far as it fits [`Limits::record_bytes`].
    pub raw: Vec<u8>,
}

/// One entry of the menu of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// Name: a table, a file.
    pub name: String,
    /// The fields, in source order; `required` where the source guarantees a value.
    pub schema: Schema,
    /// The fields that identify a record, as far as the source knows.
    pub key: Vec<String>,
}
