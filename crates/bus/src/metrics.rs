use std::time::Duration;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

use crate::Queue;

/// What the bus counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    publish_duration: Histogram<f64>,
    published: Counter<u64>,
    retries: Counter<u64>,
    deliveries: Counter<u64>,
    attachments: Counter<u64>,
    time: Counter<f64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("bus");
        Self {
            publish_duration: meter
                .f64_histogram("tributary_bus_publish_duration")
                .with_unit("s")
                .with_description(
                    "Time from the first try to publish to the acknowledgement, waiting for room \
                     included.",
                )
                .build(),
            published: meter
                .u64_counter("tributary_bus_published_size")
                .with_unit("By")
                .with_description("Size of the payloads that JetStream has acknowledged.")
                .build(),
            retries: meter
                .u64_counter("tributary_bus_publish_retries")
                .with_description("Tries to publish that were repeated, by reason.")
                .build(),
            deliveries: meter
                .u64_counter("tributary_bus_deliveries")
                .with_description("Messages taken, first deliveries and repeated ones apart.")
                .build(),
            attachments: meter
                .u64_counter("tributary_bus_consumer_attachments")
                .with_description("Times that a consumer was set up, at its start or after a loss.")
                .build(),
            time: meter
                .f64_counter("tributary_bus_consumer_time")
                .with_unit("s")
                .with_description(
                    "Time of consumers by state: `waiting` for messages, or `busy` because all \
                     places are taken. The share of `busy` is how saturated a stage is.",
                )
                .build(),
        }
    }

    pub(crate) fn published(&self, stream: &'static str, bytes: usize, taken: Duration) {
        let labels = [KeyValue::new("stream", stream)];
        self.published.add(bytes as u64, &labels);
        self.publish_duration.record(taken.as_secs_f64(), &labels);
    }

    pub(crate) fn publish_retried(&self, stream: &'static str, reason: &'static str) {
        self.retries.add(1, &[KeyValue::new("stream", stream), KeyValue::new("reason", reason)]);
    }

    pub(crate) fn delivered(&self, stream: &'static str, repeated: bool) {
        let labels = [KeyValue::new("stream", stream), KeyValue::new("repeated", repeated)];
        self.deliveries.add(1, &labels);
    }

    pub(crate) fn attached(&self, stream: &'static str) {
        self.attachments.add(1, &[KeyValue::new("stream", stream)]);
    }

    pub(crate) fn passed(&self, queue: &Queue, state: &'static str, time: Duration) {
        let pipeline = queue.pipeline().map(ToString::to_string).unwrap_or_default();
        let labels = [
            KeyValue::new("stream", queue.stream().label()),
            KeyValue::new("pipeline", pipeline),
            KeyValue::new("state", state),
        ];
        self.time.add(time.as_secs_f64(), &labels);
    }
}
