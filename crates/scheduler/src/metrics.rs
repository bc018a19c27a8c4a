use std::time::Duration;

use model::PipelineName;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram},
};
use store::{Run, RunState};

use crate::scaling::{Stage, Waiting};

/// What the scheduler counts. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    runs: Gauge<u64>,
    ended: Counter<u64>,
    reissued: Counter<u64>,
    entries: Counter<u64>,
    record_duration: Histogram<f64>,
    quarantined: Counter<u64>,
    idle: Gauge<f64>,
    missing: Gauge<u64>,
    backlog: Gauge<u64>,
    backlog_bytes: Gauge<u64>,
    backlog_age: Gauge<f64>,
    backlog_remaining: Gauge<f64>,
    stream_size: Gauge<u64>,
    stream_limit: Gauge<u64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("scheduler");
        Self {
            runs: meter
                .u64_gauge("tributary_runs")
                .with_description("Runs in the database, by state.")
                .build(),
            ended: meter
                .u64_counter("tributary_runs_ended")
                .with_description("Runs that ended, by pipeline and state.")
                .build(),
            reissued: meter
                .u64_counter("tributary_runs_reissued")
                .with_description("Attempts beyond the first, by pipeline.")
                .build(),
            entries: meter
                .u64_counter("tributary_ledger_entries")
                .with_description("Ledger entries that were recorded.")
                .build(),
            record_duration: meter
                .f64_histogram("tributary_ledger_record_duration")
                .with_unit("s")
                .with_description("Time to record a group of ledger messages.")
                .build(),
            quarantined: meter
                .u64_counter("tributary_quarantine_records")
                .with_description(
                    "Records that entered the quarantine, by pipeline, stage, reason.",
                )
                .build(),
            idle: meter
                .f64_gauge("tributary_run_idle")
                .with_unit("s")
                .with_description("Time since the books of a running run moved, by pipeline.")
                .build(),
            missing: meter
                .u64_gauge("tributary_run_missing_records")
                .with_description("Records not accounted for yet, by pipeline and target.")
                .build(),
            backlog: meter
                .u64_gauge("tributary_backlog_messages")
                .with_description(
                    "Tasks or batches that wait or are in hand, by stage, pipeline, target, and by \
                     whether a quota alone holds them up.",
                )
                .build(),
            backlog_bytes: meter
                .u64_gauge("tributary_backlog_size")
                .with_unit("By")
                .with_description("Size of the backlog, by stage, pipeline and target.")
                .build(),
            backlog_age: meter
                .f64_gauge("tributary_backlog_age")
                .with_unit("s")
                .with_description(
                    "Age of the oldest of the backlog, by stage, pipeline and target.",
                )
                .build(),
            backlog_remaining: meter
                .f64_gauge("tributary_backlog_remaining")
                .with_unit("s")
                .with_description(
                    "Time until the backlog is gone at the speed of the last minute, by stage, \
                     pipeline and target; infinity while it does not get shorter.",
                )
                .build(),
            stream_size: meter
                .u64_gauge("tributary_stream_size")
                .with_unit("By")
                .with_description("What a stream of the broker holds.")
                .build(),
            stream_limit: meter
                .u64_gauge("tributary_stream_limit")
                .with_unit("By")
                .with_description("What a stream may hold; its writers wait when it is full.")
                .build(),
        }
    }

    pub(crate) fn runs(&self, state: RunState, number: u64) {
        self.runs.record(number, &[KeyValue::new("state", state.as_str())]);
    }

    pub(crate) fn ended(&self, run: &Run) {
        self.ended.add(1, &[pipeline(run), KeyValue::new("state", run.state.as_str())]);
        self.going(run, Duration::ZERO);
    }

    pub(crate) fn reissued(&self, run: &Run) {
        self.reissued.add(1, &[pipeline(run)]);
    }

    pub(crate) fn recorded(&self, entries: u64, took: Duration) {
        self.entries.add(entries, &[]);
        self.record_duration.record(took.as_secs_f64(), &[]);
    }

    pub(crate) fn quarantined(&self, pipeline: &str, stage: &str, code: &str) {
        let labels = [
            KeyValue::new("pipeline", pipeline.to_owned()),
            KeyValue::new("stage", stage.to_owned()),
            KeyValue::new("reason", code.to_owned()),
        ];
        self.quarantined.add(1, &labels);
    }

    pub(crate) fn going(&self, run: &Run, idle: Duration) {
        self.idle.record(idle.as_secs_f64(), &[pipeline(run)]);
        for target in &run.books.targets {
            let labels = [pipeline(run), KeyValue::new("target", target.target.clone())];
            self.missing.record(target.missing, &labels);
        }
    }

    pub(crate) fn waiting(&self, waiting: &Waiting, remaining_s: f64) {
        let Waiting { stage, pipeline, target, messages, bytes, age, is_held } = waiting;
        let labels = lane(*stage, pipeline, target.as_ref());
        let held = |held| [&labels[..], &[KeyValue::new("held", held)]].concat();
        self.backlog.record(*messages, &held(*is_held));
        self.backlog.record(0, &held(!is_held));
        self.backlog_bytes.record(*bytes, &labels);
        self.backlog_age.record(age.as_secs_f64(), &labels);
        self.backlog_remaining.record(remaining_s, &labels);
    }

    pub(crate) fn room(&self, room: &bus::Room) {
        let labels = [KeyValue::new("stream", room.stream.to_string())];
        self.stream_size.record(room.bytes, &labels);
        self.stream_limit.record(room.max_bytes, &labels);
    }

    /// Tells that nothing waits in a lane any more.
    pub(crate) fn drained(
        &self,
        stage: Stage,
        pipeline: &PipelineName,
        target: Option<&PipelineName>,
    ) {
        let (pipeline, target) = (pipeline.clone(), target.cloned());
        let (messages, bytes, age, is_held) = (0, 0, Duration::ZERO, false);
        self.waiting(&Waiting { stage, pipeline, target, messages, bytes, age, is_held }, 0.0);
    }
}

fn lane(stage: Stage, pipeline: &PipelineName, target: Option<&PipelineName>) -> Vec<KeyValue> {
    let target = target.map(ToString::to_string).unwrap_or_default();
    vec![
        KeyValue::new("stage", stage.as_str()),
        KeyValue::new("pipeline", pipeline.to_string()),
        KeyValue::new("target", target),
    ]
}

fn pipeline(run: &Run) -> KeyValue {
    KeyValue::new("pipeline", run.pipeline.to_string())
}
