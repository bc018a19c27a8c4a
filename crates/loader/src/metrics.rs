use std::time::Duration;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

/// What the loader counts.
#[derive(Debug, Clone)]
struct Instruments {
    records: Counter<u64>,
    bytes: Counter<u64>,
    duration: Histogram<f64>,
    lag: Histogram<f64>,
    quarantined: Counter<u64>,
    retries: Counter<u64>,
}

/// What became of the records of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loaded {
    pub(crate) loaded: u32,
    pub(crate) unchanged: u32,
    pub(crate) quarantined: u32,
    pub(crate) bytes: u64,
    /// From being received to being in the ledger.
    pub(crate) taken: Duration,
    /// From the extraction of the last record to being in the ledger.
    pub(crate) lag: Option<Duration>,
}

/// Counts what is done for one target. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    instruments: Instruments,
    labels: [KeyValue; 2],
}

impl Metrics {
    pub(crate) fn new(pipeline: &str, target: &str) -> Self {
        let meter = global::meter("loader");
        let instruments = Instruments {
            records: meter
                .u64_counter("tributary_load_records")
                .with_description("Records by what became of them.")
                .build(),
            bytes: meter
                .u64_counter("tributary_load_size")
                .with_unit("By")
                .with_description("Size of the batches that are in the ledger.")
                .build(),
            duration: meter
                .f64_histogram("tributary_load_batch_duration")
                .with_unit("s")
                .with_description("Time from receiving a batch to its ledger entry being safe.")
                .build(),
            lag: meter
                .f64_histogram("tributary_load_lag")
                .with_unit("s")
                .with_description("Age of the newest record of a batch when it is loaded.")
                .build(),
            quarantined: meter
                .u64_counter("tributary_load_quarantined_records")
                .with_description("Records that the target refused, by reason.")
                .build(),
            retries: meter
                .u64_counter("tributary_load_retries")
                .with_description("Calls of the target that failed and are repeated.")
                .build(),
        };
        let labels = [
            KeyValue::new("pipeline", pipeline.to_owned()),
            KeyValue::new("target", target.to_owned()),
        ];
        Self { instruments, labels }
    }

    fn labels_with(&self, key: &'static str, value: &str) -> [KeyValue; 3] {
        let [pipeline, target] = self.labels.clone();
        [pipeline, target, KeyValue::new(key, value.to_owned())]
    }

    /// A batch is in the ledger.
    pub(crate) fn loaded(&self, batch: Loaded) {
        let outcomes = [
            ("loaded", batch.loaded),
            ("unchanged", batch.unchanged),
            ("quarantined", batch.quarantined),
        ];
        for (outcome, count) in outcomes {
            let labels = self.labels_with("outcome", outcome);
            self.instruments.records.add(u64::from(count), &labels);
        }
        self.instruments.bytes.add(batch.bytes, &self.labels);
        self.instruments.duration.record(batch.taken.as_secs_f64(), &self.labels);
        if let Some(lag) = batch.lag {
            self.instruments.lag.record(lag.as_secs_f64(), &self.labels);
        }
    }

    /// Records were refused.
    pub(crate) fn refused(&self, code: &str, count: u64) {
        self.instruments.quarantined.add(count, &self.labels_with("reason", code));
    }

    /// A call is repeated.
    pub(crate) fn retried(&self) {
        self.instruments.retries.add(1, &self.labels);
    }
}
