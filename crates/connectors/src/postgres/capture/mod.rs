//! Change capture by logical replication.
//!
//! A captured table is a source of one part. The first run reads the table in a snapshot whose place
//! in the log is known; every further run follows the log from where the last one ended, for the time
//! of its window. `slot` makes what the server needs, `snapshot` reads the table, `stream` the log;
//! `message` and `value` read what the log says, `rows` makes records of it.
//!
//! - The server is told only of what is loaded: the cursor that a run starts with. The log behind it
//!   stays until then, so that any range can be read again.
//! - Records are numbered in the order of commits from the snapshot on, and their extraction times
//!   grow with their numbers. So a later change is newer, and what is read again gets the numbers it
//!   had.

mod connection;
mod cursor;
mod fetch;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod message;
mod rows;
mod slot;
mod snapshot;
mod source;
mod stream;
mod value;

use std::sync::Arc;

use arrow_array::RecordBatch;
use connect::Chunk;
use model::{Ids, Records};

pub(crate) use source::Source;

use cursor::Cursor;

/// A chunk that only moves the cursor.
fn only_cursor(cursor: &Cursor, extraction_base: i64) -> Chunk {
    let records = Records {
        columns: RecordBatch::new_empty(Arc::new(arrow_schema::Schema::empty())),
        presence: Vec::new(),
        ids: Ids::Positions { prefix: String::new() },
        positions: Vec::new(),
        extraction_base,
        versions: None,
        operations: None,
    };
    Chunk { records, refused: Vec::new(), cursor: cursor.to_text() }
}
