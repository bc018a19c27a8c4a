//! What the scheduler tells in numbers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram, Meter},
};
use store::{Run, RunState};

use crate::{scaling::Waiting, shared::Standing};

/// What the scheduler counts, and what it finds when it looks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    ended: Counter<u64>,
    reissued: Counter<u64>,
    entries: Counter<u64>,
    record_duration: Histogram<f64>,
    quarantined: Counter<u64>,
    runs: Finding,
    idle: Finding,
    missing: Finding,
    backlog: Finding,
    backlog_bytes: Finding,
    backlog_age: Finding,
    backlog_remaining: Finding,
    stream_size: Finding,
    stream_limit: Finding,
    quota_used: Finding,
    quota_waiting: Finding,
}

/// What the last look found, which the next one replaces as a whole: what is gone is not told any more,
/// by whichever scheduler it was dealt with.
#[derive(Debug, Clone, Default)]
struct Finding {
    values: Arc<Mutex<Vec<Value>>>,
}

/// A number and the labels of its series.
type Value = (f64, Vec<KeyValue>);

impl Finding {
    fn new(
        meter: &Meter,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
    ) -> Self {
        let finding = Self::default();
        let values = Arc::clone(&finding.values);
        meter
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| {
                let values = values.lock().unwrap_or_else(PoisonError::into_inner);
                values.iter().for_each(|(value, labels)| observer.observe(*value, labels));
            })
            .build();
        finding
    }

    fn replace(&self, values: impl IntoIterator<Item = Value>) {
        let values = values.into_iter().collect();
        *self.values.lock().unwrap_or_else(PoisonError::into_inner) = values;
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("scheduler");
        let finding = |name, unit, description| Finding::new(&meter, name, unit, description);
        Self {
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
            runs: finding("tributary_runs", "", "Runs in the database, by state."),
            idle: finding(
                "tributary_run_idle",
                "s",
                "Time since the books of a running run moved, by pipeline.",
            ),
            missing: finding(
                "tributary_run_missing_records",
                "",
                "Records not accounted for yet, by pipeline and target.",
            ),
            backlog: finding(
                "tributary_backlog_messages",
                "",
                "Tasks or batches that wait or are in hand, by stage, pipeline, target, and by \
                 whether a quota alone holds them up.",
            ),
            backlog_bytes: finding(
                "tributary_backlog_size",
                "By",
                "Size of the backlog, by stage, pipeline and target.",
            ),
            backlog_age: finding(
                "tributary_backlog_age",
                "s",
                "Age of the oldest of the backlog, by stage, pipeline and target.",
            ),
            backlog_remaining: finding(
                "tributary_backlog_remaining",
                "s",
                "Time until the backlog is gone at the speed of the last minute, by stage, pipeline \
                 and target; nothing is told while it does not get shorter.",
            ),
            stream_size: finding(
                "tributary_stream_size",
                "By",
                "What a stream of the broker holds.",
            ),
            stream_limit: finding(
                "tributary_stream_limit",
                "By",
                "What a stream may hold; its writers wait when it is full.",
            ),
            quota_used: finding(
                "tributary_quota_used",
                "1",
                "Share of a quota that is used at this moment, by quota and limit.",
            ),
            quota_waiting: finding(
                "tributary_quota_waiting_calls",
                "",
                "Calls that wait for a quota, by quota and pipeline.",
            ),
        }
    }

    /// Tells of all runs in the database.
    pub(crate) fn runs(&self, numbers: &[(RunState, u64)]) {
        let state = |state: RunState| vec![KeyValue::new("state", state.as_str())];
        self.runs.replace(numbers.iter().map(|(of, number)| (float(*number), state(*of))));
    }

    pub(crate) fn ended(&self, run: &Run) {
        self.ended.add(1, &[pipeline(&run.pipeline), KeyValue::new("state", run.state.as_str())]);
    }

    pub(crate) fn reissued(&self, run: &Run) {
        self.reissued.add(1, &[pipeline(&run.pipeline)]);
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

    /// Tells of all runs that go on, and for how long each has not moved. Of several runs of a pipeline
    /// the one that rests longest counts.
    pub(crate) fn going(&self, runs: &[(Run, Duration)]) {
        let mut idle: BTreeMap<&str, f64> = BTreeMap::new();
        let mut missing: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (run, rests) in runs {
            let longest = idle.entry(run.pipeline.as_str()).or_default();
            *longest = longest.max(rests.as_secs_f64());
            for target in &run.books.targets {
                let key = (run.pipeline.as_str(), target.target.as_str());
                *missing.entry(key).or_default() += target.missing;
            }
        }
        self.idle.replace(idle.into_iter().map(|(name, rests)| (rests, vec![pipeline(name)])));
        self.missing.replace(missing.into_iter().map(|((name, target), number)| {
            let target = KeyValue::new("target", target.to_owned());
            (float(number), vec![pipeline(name), target])
        }));
    }

    /// Tells of all lanes in which something waits, and of the seconds until each is empty, if that can
    /// be told.
    pub(crate) fn waiting(&self, lanes: &[(&Waiting, Option<f64>)]) {
        let each = |value: fn(&Waiting) -> f64| {
            lanes.iter().map(move |(waiting, _)| (value(waiting), lane(waiting)))
        };
        self.backlog.replace(lanes.iter().map(|(waiting, _)| {
            let held = KeyValue::new("held", waiting.is_held);
            (float(waiting.messages), [lane(waiting), vec![held]].concat())
        }));
        self.backlog_bytes.replace(each(|waiting| float(waiting.bytes)));
        self.backlog_age.replace(each(|waiting| waiting.age.as_secs_f64()));
        self.backlog_remaining.replace(
            lanes.iter().filter_map(|(waiting, seconds)| Some(((*seconds)?, lane(waiting)))),
        );
    }

    /// Tells of all streams.
    pub(crate) fn rooms(&self, rooms: &[bus::Room]) {
        let stream = |room: &bus::Room| vec![KeyValue::new("stream", room.stream.to_string())];
        self.stream_size.replace(rooms.iter().map(|room| (float(room.bytes), stream(room))));
        self.stream_limit.replace(rooms.iter().map(|room| (float(room.max_bytes), stream(room))));
    }

    /// Tells of all quotas. Of one that cannot be looked at nothing is told.
    pub(crate) fn quotas(&self, quotas: &[Standing]) {
        let known = || {
            quotas.iter().filter_map(|standing| {
                let used = standing.used.as_ref().ok()?.as_ref()?;
                Some((KeyValue::new("quota", standing.declared.name.to_string()), used))
            })
        };
        self.quota_used.replace(known().flat_map(|(quota, used)| {
            used.limits.iter().map(move |of| {
                let limit = KeyValue::new("limit", of.limit.to_string());
                (float(of.used) / f64::from(of.limit.calls), vec![quota.clone(), limit])
            })
        }));
        self.quota_waiting.replace(known().flat_map(|(quota, used)| {
            let waiting = used.waiting.iter();
            waiting.map(move |(name, calls)| (float(*calls), vec![quota.clone(), pipeline(name)]))
        }));
    }
}

/// The labels of a lane.
fn lane(waiting: &Waiting) -> Vec<KeyValue> {
    let target = waiting.target.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![
        KeyValue::new("stage", waiting.stage.as_str()),
        pipeline(waiting.pipeline.as_str()),
        KeyValue::new("target", target),
    ]
}

fn pipeline(name: impl ToString) -> KeyValue {
    KeyValue::new("pipeline", name.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}
