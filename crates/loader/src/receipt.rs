use std::time::{Duration, Instant};

use bus::Delivery;
use model::{Ages, Batch, BatchHeader, FieldType};
use runtime::clock::Clock;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::ledger::{BatchLoaded, LedgerEntry, ledger_entry::Event};

/// What is owed for a batch: its message has to be answered and its span ends.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) delivery: Delivery,
    pub(crate) bytes: usize,
    pub(crate) received_at: Instant,
    pub(crate) span: Span,
}

impl Receipt {
    /// Takes a message whose batch is `batch`.
    pub(crate) fn new(delivery: Delivery, batch: &Batch, target: &str) -> Self {
        let header = &batch.header;
        let span = tracing::info_span!(
            "batch",
            stage = "loader",
            pipeline = %header.pipeline,
            target,
            run.id = %header.run,
            batch.id = %header.batch,
            records = batch.records.len(),
        );
        if let Err(error) = span.set_parent(delivery.context()) {
            tracing::trace!(%error, "the span has no parent");
        }
        let bytes = delivery.damaged_payload().len();
        Self { delivery, bytes, received_at: Instant::now(), span }
    }

    /// Acknowledges the message.
    pub(crate) async fn acknowledge(self) {
        acknowledge(self.delivery).await;
    }
}

/// Batches with what is owed for each.
#[derive(Default)]
pub(crate) struct Pile {
    pub(crate) batches: Vec<Batch>,
    pub(crate) receipts: Vec<Receipt>,
}

impl Pile {
    /// Takes the first `count`.
    pub(crate) fn take(&mut self, count: usize) -> Self {
        Self {
            batches: self.batches.drain(..count).collect(),
            receipts: self.receipts.drain(..count).collect(),
        }
    }

    /// Parts the batches for which `first` is true from the others.
    pub(crate) fn split(self, first: impl Fn(&Batch) -> bool) -> (Self, Self) {
        let (mut chosen, mut others) = (Self::default(), Self::default());
        for (batch, receipt) in self.batches.into_iter().zip(self.receipts) {
            let pile = if first(&batch) { &mut chosen } else { &mut others };
            pile.batches.push(batch);
            pile.receipts.push(receipt);
        }
        (chosen, others)
    }

    /// Puts the first one behind all others.
    pub(crate) fn rotate(&mut self) {
        self.batches.rotate_left(1);
        self.receipts.rotate_left(1);
    }
}

/// Acknowledges a message whose result is safe.
pub(crate) async fn acknowledge(delivery: Delivery) {
    if let Err(error) = delivery.ack().await {
        tracing::warn!(%error, "a message may be delivered again");
    }
}

/// Makes the ledger entry of a batch.
pub(crate) fn loaded(
    header: &BatchHeader,
    target: &str,
    (loaded, unchanged, quarantined): (u32, u32, u32),
    ages: &Ages,
) -> LedgerEntry {
    LedgerEntry {
        run: header.run.to_string(),
        attempt: header.attempt,
        push: wire::push_run(header),
        event: Some(Event::BatchLoaded(BatchLoaded {
            batch: header.batch.to_string(),
            target: target.to_owned(),
            loaded,
            unchanged,
            quarantined,
            ages: ages.classes().collect(),
        })),
    }
}

/// Returns how old the changes are that a batch has just brought, where `newest_by` is the time at
/// which they happened. Which of the records changed the target is not known; they are taken to be the
/// newest.
pub(crate) fn ages(batch: &Batch, newest_by: Option<&str>, loaded: u32) -> Ages {
    let mut ages = Ages::default();
    let schema = batch.records.columns.schema();
    let field = newest_by.and_then(|name| schema.field_with_name(name).ok());
    let field_type = field.and_then(FieldType::of);
    let is_time = field_type == Some(FieldType::Timestamp);
    let Some(versions) = batch.records.versions.as_ref().filter(|_| is_time && loaded > 0) else {
        return ages;
    };
    let loaded = usize::try_from(loaded).unwrap_or(usize::MAX);
    let mut newest = versions.clone();
    if loaded < newest.len() {
        newest.select_nth_unstable_by(loaded - 1, |a, b| b.cmp(a));
        newest.truncate(loaded);
    }
    let now_us = Clock::system().now_ns() / 1_000;
    // A record without a time is older than all others.
    for version_us in newest.into_iter().filter(|version_us| *version_us > i64::MIN) {
        ages.add(now_us.saturating_sub(version_us) / 1_000);
    }
    ages
}

/// Returns the age of the last record, unless the clocks of two machines disagree about it.
pub(crate) fn lag(batch: &Batch) -> Option<Duration> {
    let last = batch.records.len().checked_sub(1)?;
    let age = Clock::system().now_ns().checked_sub(batch.records.extracted_at(last))?;
    u64::try_from(age).ok().map(Duration::from_nanos)
}
