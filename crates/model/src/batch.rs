use crate::{BatchId, PipelineName, Records, RunId};

/// Where a batch comes from. The same source range read twice gives the same header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHeader {
    /// Name of the pipeline.
    pub pipeline: PipelineName,
    /// Revision of the pipeline that the run was started with, counted from 1.
    pub revision: u32,
    /// The run.
    pub run: RunId,
    /// How often the run was handed to the extractors, counted from 1.
    pub attempt: u32,
    /// Names the source range and its content.
    pub batch: BatchId,
    /// Index of the part of the source, counted from 0.
    pub part: u32,
    /// Index of the batch in its part, counted from 0.
    pub sequence: u32,
    /// Where the source stood before the first record; empty at the start.
    pub cursor_before: String,
    /// Where the source stands after the last record.
    pub cursor_after: String,
    /// Number of records that the extractor read for this batch.
    pub extracted: u32,
    /// The time that the run accounts for; `None`: the records were not pushed.
    pub push: Option<PushWindow>,
}

/// The span of time whose pushed records one run accounts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PushWindow {
    /// Its beginning: milliseconds since 1970-01-01 UTC.
    pub start_ms: i64,
    /// Its end, which is not part of it.
    pub end_ms: i64,
}

impl PushWindow {
    /// Returns the window of length `length_ms` that a time lies in. All windows of one length are
    /// the same everywhere.
    ///
    /// # Panics
    ///
    /// When `length_ms` is not positive.
    #[must_use]
    pub fn around(time_ms: i64, length_ms: i64) -> Self {
        let start_ms = time_ms - time_ms.rem_euclid(length_ms);
        Self { start_ms, end_ms: start_ms.saturating_add(length_ms) }
    }
}

/// Records of one stream with the header that tells where they come from.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Where the records come from.
    pub header: BatchHeader,
    /// The records.
    pub records: Records,
}
