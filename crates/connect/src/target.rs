//! What a target promises.
//!
//! - Delivery is at least once and in any order: writing a batch again, or an older batch after a
//!   newer one, leaves the target as if each record had been written once, newest last.
//! - `write` may be called many times at once, by several processes. Order holds per key, by version.
//! - When `write` returns, what it reports as loaded is durable. When it fails, any part of it may
//!   have happened; the caller repeats it.
//! - A record that the target refuses does not keep its neighbours from being written.

use async_trait::async_trait;
use model::{Batch, Field, RunId};

use crate::Error;

/// A system or table that records are written to.
#[async_trait]
pub trait Target: Send + Sync {
    /// Tells in one sentence what was found, or why the target cannot be reached or written.
    ///
    /// # Errors
    ///
    /// When the target cannot be reached or we are not allowed to write there.
    async fn check(&self) -> Result<String, Error>;

    /// Tells what writing records with these fields would change besides rows, one sentence each,
    /// and changes nothing. Empty: nothing.
    ///
    /// # Errors
    ///
    /// When the target cannot be reached, or could not take such records.
    async fn plan(&self, fields: &[Field]) -> Result<Vec<String>, Error>;

    /// Writes batches, best in one transaction, and returns one result per batch in their order.
    ///
    /// Creates or evolves the table as the contract says.
    ///
    /// # Errors
    ///
    /// Retry where the target is away or gave way to another writer; stop where the contract does
    /// not allow what the records need.
    async fn write(&self, batches: &[Batch]) -> Result<Vec<Written>, Error>;

    /// Removes what the run did not write, for targets that mirror a snapshot, and returns the
    /// number of removed rows. Repeating it removes nothing more.
    ///
    /// # Errors
    ///
    /// Stops where more would be lost than allowed, telling how much and how to confirm.
    async fn sweep(&self, sweep: &Sweep) -> Result<u64, Error>;

    /// Tells that a write bounds each of its steps itself, so that the whole may take as long as the
    /// number of records and a quota make it.
    fn bounds_itself(&self) -> bool {
        false
    }
}

/// What became of one batch. The three numbers add up to its records.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Records that changed the target.
    pub loaded: u32,
    /// Records that the target already had, or had newer.
    pub unchanged: u32,
    /// Records that the target refused, by ascending index.
    pub refused: Vec<Refused>,
}

/// A record that the target refused.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Index in the batch.
    pub index: usize,
    /// Short name of the reason: `constraint`, `type`, `nul`, `key`, ….
    pub code: &'static str,
    /// The target's reason, without values.
    pub message: String,
    /// Field that is to blame, or empty.
    pub field: String,
}

/// Which rows a snapshot removes.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// Rows whose key this run has written stay.
    pub run: RunId,
    /// Rows with a later version stay: something newer came in by another way.
    pub extraction_base: i64,
    /// Largest share of the rows that may be removed, in percent.
    pub max_loss_percent: f64,
    /// The run extracted nothing at all, which is a loss that needs a confirmation as well.
    pub source_empty: bool,
}
