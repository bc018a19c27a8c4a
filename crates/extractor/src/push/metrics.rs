use std::time::Duration;

use model::PipelineName;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

/// What is counted of pushes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Counter<u64>,
    duration: Histogram<f64>,
    records: Counter<u64>,
    repeated: Counter<u64>,
    hints: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("push");
        Self {
            requests: meter
                .u64_counter("tributary_push_requests")
                .with_description("Webhook requests, by what became of them.")
                .build(),
            duration: meter
                .f64_histogram("tributary_push_request_duration")
                .with_unit("s")
                .with_description("Time from the head of a webhook request to its answer.")
                .build(),
            records: meter
                .u64_counter("tributary_push_records")
                .with_description("Records that were pushed and are safe.")
                .build(),
            repeated: meter
                .u64_counter("tributary_push_repeated_deliveries")
                .with_description("Deliveries that were safe already.")
                .build(),
            hints: meter
                .u64_counter("tributary_push_hints")
                .with_description("Ids of objects that were pushed to be fetched.")
                .build(),
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, outcome: &'static str, taken: Duration) {
        self.requests.add(1, &[KeyValue::new("outcome", outcome)]);
        self.duration.record(taken.as_secs_f64(), &[]);
    }

    /// Pushes are safe.
    pub(crate) fn taken(&self, pipeline: &PipelineName, records: u64, repeated: u64, hints: u64) {
        let labels = [KeyValue::new("pipeline", pipeline.to_string())];
        self.records.add(records, &labels);
        self.repeated.add(repeated, &labels);
        self.hints.add(hints, &labels);
    }
}
