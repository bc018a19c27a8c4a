use std::time::Duration;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

/// What the extractor counts.
#[derive(Debug, Clone)]
struct Instruments {
    records: Counter<u64>,
    bytes: Counter<u64>,
    duration: Histogram<f64>,
    quarantined: Counter<u64>,
    retries: Counter<u64>,
}

/// Counts what is done for one pipeline. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    instruments: Instruments,
    pipeline: KeyValue,
}

impl Metrics {
    pub(crate) fn new(pipeline: &str) -> Self {
        let meter = global::meter("extractor");
        let instruments = Instruments {
            records: meter
                .u64_counter("tributary_extract_records")
                .with_description("Records read, by what became of them.")
                .build(),
            bytes: meter
                .u64_counter("tributary_extract_size")
                .with_unit("By")
                .with_description("Size of the batches that JetStream has acknowledged.")
                .build(),
            duration: meter
                .f64_histogram("tributary_extract_batch_duration")
                .with_unit("s")
                .with_description("Time from a batch being read to its ledger entry being safe.")
                .build(),
            quarantined: meter
                .u64_counter("tributary_extract_quarantined_records")
                .with_description("Records that could not be read, by reason.")
                .build(),
            retries: meter
                .u64_counter("tributary_extract_retries")
                .with_description("Times that a source was opened again after it failed.")
                .build(),
        };
        Self { instruments, pipeline: KeyValue::new("pipeline", pipeline.to_owned()) }
    }

    /// A batch is in the ledger.
    pub(crate) fn extracted(&self, published: u64, refused: u64, bytes: u64, taken: Duration) {
        let outcome = |name: &'static str| [self.pipeline.clone(), KeyValue::new("outcome", name)];
        self.instruments.records.add(published, &outcome("published"));
        self.instruments.records.add(refused, &outcome("quarantined"));
        let labels = std::slice::from_ref(&self.pipeline);
        self.instruments.bytes.add(bytes, labels);
        self.instruments.duration.record(taken.as_secs_f64(), labels);
    }

    /// A record was refused.
    pub(crate) fn refused(&self, code: &str) {
        let labels = [self.pipeline.clone(), KeyValue::new("reason", code.to_owned())];
        self.instruments.quarantined.add(1, &labels);
    }

    /// A source is opened again.
    pub(crate) fn retried(&self) {
        self.instruments.retries.add(1, std::slice::from_ref(&self.pipeline));
    }
}
