use std::time::Duration;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

/// What the transformer counts for one pipeline. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    records: Counter<u64>,
    bytes: Counter<u64>,
    duration: Histogram<f64>,
    quarantined: Counter<u64>,
    pipeline: KeyValue,
}

/// What became of the records of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transformed {
    pub(crate) passed: u64,
    pub(crate) filtered: u32,
    pub(crate) quarantined: u32,
    /// Size of what was received.
    pub(crate) bytes: u64,
    /// From being received to being in the ledger.
    pub(crate) taken: Duration,
}

impl Metrics {
    pub(crate) fn new(pipeline: &str) -> Self {
        let meter = global::meter("transformer");
        Self {
            records: meter
                .u64_counter("tributary_transform_records")
                .with_description("Records received, by what became of them.")
                .build(),
            bytes: meter
                .u64_counter("tributary_transform_size")
                .with_unit("By")
                .with_description("Size of the batches received.")
                .build(),
            duration: meter
                .f64_histogram("tributary_transform_batch_duration")
                .with_unit("s")
                .with_description(
                    "Time from a batch being received to its ledger entry being safe.",
                )
                .build(),
            quarantined: meter
                .u64_counter("tributary_transform_quarantined_records")
                .with_description("Records that were refused, by reason.")
                .build(),
            pipeline: KeyValue::new("pipeline", pipeline.to_owned()),
        }
    }

    /// A batch is in the ledger.
    pub(crate) fn transformed(&self, batch: Transformed) {
        let outcomes = [
            ("passed", batch.passed),
            ("filtered", batch.filtered.into()),
            ("quarantined", batch.quarantined.into()),
        ];
        for (outcome, count) in outcomes {
            self.records.add(count, &[self.pipeline.clone(), KeyValue::new("outcome", outcome)]);
        }
        let labels = std::slice::from_ref(&self.pipeline);
        self.bytes.add(batch.bytes, labels);
        self.duration.record(batch.taken.as_secs_f64(), labels);
    }

    /// A record was refused.
    pub(crate) fn refused(&self, code: &str) {
        self.quarantined.add(1, &[self.pipeline.clone(), KeyValue::new("reason", code.to_owned())]);
    }
}
