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
}

/// Records of one stream with the header that tells where they come from.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Where the records come from.
    pub header: BatchHeader,
    /// The records.
    pub records: Records,
}
