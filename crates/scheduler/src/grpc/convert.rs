use std::time::Duration;

use bus::questions::{CheckResult, DiscoveredField, DiscoveredStream, PlanOutcome};
use chrono::{DateTime, Utc};
use model::{Field, PipelineName, Schema};
use prost_types::Timestamp;
use spec::{Pipeline, Problem};
use store::{Quarantined, Run, RunState, Selection, StoredPipeline};
use wire::control;

use crate::{
    due::is_continuous,
    error::Error,
    pipelines::{Applied, Change, Planned},
    shared::SharedChange,
    waiting::waits_for,
};

pub(super) fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default(),
    }
}

pub(super) fn run(run: Run, notes: Vec<String>, now: DateTime<Utc>) -> control::Run {
    let waits_for = waits_for(&run, now);
    let state = match run.state {
        RunState::Waiting => control::RunState::Waiting,
        RunState::Running => control::RunState::Running,
        RunState::Paused => control::RunState::Paused,
        RunState::Succeeded => control::RunState::Succeeded,
        RunState::Failed => control::RunState::Failed,
        RunState::Cancelled => control::RunState::Cancelled,
        RunState::Skipped => control::RunState::Skipped,
    };
    let books = run.books;
    let range = run.range.unwrap_or_default();
    let usage = run.usage;
    let targets = books.targets.into_iter().map(|target| control::TargetLedger {
        target: target.target,
        loaded: target.loaded,
        unchanged: target.unchanged,
        quarantined: target.quarantined,
        swept: target.swept,
        missing: target.missing,
    });
    control::Run {
        id: run.id.to_string(),
        pipeline: run.pipeline.to_string(),
        revision: run.revision,
        trigger: run.trigger.to_string(),
        state: state.into(),
        started_at: Some(timestamp(run.started_at)),
        ended_at: run.ended_at.map(timestamp),
        ledger: Some(control::Ledger {
            extracted: books.extracted,
            batches: books.batches,
            batches_transformed: books.batches_transformed,
            filtered: books.filtered,
            quarantined: books.quarantined,
            targets: targets.collect(),
            extraction_ended: books.extraction_ended,
            balanced: books.balanced,
        }),
        reason: if waits_for.is_empty() { run.reason } else { waits_for },
        hint: run.hint,
        notes,
        attempt: run.attempt,
        due_at: run.due_at.map(timestamp),
        usage: (usage != store::Usage::default()).then_some(control::Usage {
            calls: usage.calls,
            received_bytes: usage.received_bytes,
            waited_quota_ms: usage.waited_quota_ms,
            slowed_ms: usage.slowed_ms,
            not_modified: usage.not_modified,
        }),
        parameters: run.parameters.into_iter().collect(),
        range_from: range.from,
        range_to: range.to,
        skipped: run.skipped,
        skipped_until: run.skipped_until.map(timestamp),
        connection: run.connection.map(|name| name.to_string()).unwrap_or_default(),
    }
}

fn change(change: Change) -> i32 {
    match change {
        Change::Created => control::Change::Created,
        Change::Updated => control::Change::Updated,
        Change::None => control::Change::None,
    }
    .into()
}

pub(super) fn applied(applied: Applied) -> control::AppliedPipeline {
    control::AppliedPipeline {
        name: applied.name.to_string(),
        revision: applied.revision,
        change: change(applied.change),
    }
}

pub(super) fn shared(shared: SharedChange) -> control::AppliedShared {
    control::AppliedShared {
        kind: shared.kind.to_owned(),
        name: shared.name.to_string(),
        change: change(shared.change),
    }
}

pub(super) fn problem(problem: Problem) -> control::Problem {
    control::Problem {
        file: problem.file,
        line: problem.line,
        key: problem.key,
        message: problem.message,
        remedy: problem.remedy,
    }
}

fn field(field: &Field, key: bool) -> control::FieldDescription {
    control::FieldDescription {
        name: field.name.clone(),
        r#type: field.field_type.to_string(),
        key,
        required: field.required,
    }
}

fn schema(schema: &Schema) -> Vec<control::FieldDescription> {
    schema.fields.iter().map(|of_source| field(of_source, false)).collect()
}

pub(super) fn planned(planned: Planned) -> control::PlannedPipeline {
    let Planned { pipeline, change: changed, schema: of_source, inferred, result, .. } = planned;
    let targets = planned.targets.into_iter().map(|target| {
        let (actions, unreachable) = match target.outcome {
            PlanOutcome::Actions(actions) => (actions, String::new()),
            PlanOutcome::Unreachable(why) => (Vec::new(), why),
        };
        control::PlannedTarget { target: target.target, actions, unreachable }
    });
    control::PlannedPipeline {
        name: pipeline.name.to_string(),
        change: change(changed),
        fields: schema(&of_source),
        inferred,
        targets: targets.collect(),
        result: result
            .iter()
            .map(|after| field(after, pipeline.key.contains(&after.name)))
            .collect(),
        destructive: planned.destructive,
    }
}

pub(super) fn pipeline(
    stored: &StoredPipeline,
    parsed: Option<&Pipeline>,
    with_text: bool,
) -> control::Pipeline {
    control::Pipeline {
        name: stored.revision.name.to_string(),
        revision: stored.revision.revision,
        applied_at: Some(timestamp(stored.applied_at)),
        source: parsed.map_or("", |pipeline| pipeline.source.kind()).to_owned(),
        targets: parsed.map_or_else(Vec::new, |pipeline| {
            pipeline.targets.iter().map(|target| target.name.to_string()).collect()
        }),
        yaml: if with_text { stored.revision.yaml.clone() } else { String::new() },
        triggers: parsed.map_or_else(String::new, triggers),
    }
}

/// What starts runs of a pipeline by itself, in words; empty: nothing does.
pub(super) fn triggers(pipeline: &Pipeline) -> String {
    let triggers = &pipeline.triggers;
    let mut parts = Vec::new();
    if let Some(every) = triggers.every {
        let jitter = match every.jitter {
            Duration::ZERO => String::new(),
            jitter => format!(" and up to {}", words(jitter)),
        };
        parts.push(format!("every {}{jitter}", words(every.interval)));
    }
    parts.extend(
        triggers.cron.iter().map(|cron| format!("cron {} {}", cron.as_str(), triggers.timezone)),
    );
    if !triggers.after.is_empty() {
        let names: Vec<&str> = triggers.after.iter().map(PipelineName::as_str).collect();
        parts.push(format!("after {}", names.join(" and ")));
    }
    if is_continuous(pipeline) {
        parts.push("continuous".to_owned());
    }
    if triggers.push.is_some() {
        parts.push("push".to_owned());
    }
    parts.join(", ")
}

/// A duration in its largest unit that leaves nothing over.
pub(super) fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60)];
    let unit = units.iter().find(|(_, size)| seconds >= *size && seconds.is_multiple_of(*size));
    unit.map_or_else(|| format!("{seconds}s"), |(name, size)| format!("{}{name}", seconds / size))
}

pub(super) fn check(check: CheckResult) -> control::CheckResult {
    control::CheckResult { subject: check.subject, ok: check.ok, message: check.message }
}

pub(super) fn stream(stream: DiscoveredStream) -> control::StreamDescription {
    let fields = stream.fields.into_iter().map(|field| {
        let DiscoveredField { name, field_type, key, required } = field;
        control::FieldDescription { name, r#type: field_type, key, required }
    });
    control::StreamDescription { name: stream.name, fields: fields.collect() }
}

pub(super) fn quarantined(
    quarantined: Quarantined,
    contents: String,
) -> control::QuarantinedRecord {
    let record = quarantined.record;
    control::QuarantinedRecord {
        id: quarantined.id,
        pipeline: record.pipeline.to_string(),
        revision: record.revision,
        run: record.run,
        stage: record.stage,
        target: record.target,
        record: record.record,
        code: record.code,
        message: record.message,
        step: record.step,
        field: record.field,
        quarantined_at: Some(timestamp(quarantined.quarantined_at)),
        contents,
    }
}

pub(super) fn selection(
    selection: Option<control::QuarantineSelection>,
) -> Result<Selection, Error> {
    let control::QuarantineSelection { pipeline, run, code, ids } = selection.unwrap_or_default();
    let given = |text: String| (!text.is_empty()).then_some(text);
    if ids.len() > MAX_IDS {
        return Err(Error::Request(format!(
            "{} ids are too many; name at most {MAX_IDS}, or select by pipeline, run or code",
            ids.len()
        )));
    }
    Ok(Selection {
        pipeline: given(pipeline).map(|name| name.parse()).transpose()?,
        run: given(run),
        code: given(code),
        ids,
        ..Selection::default()
    })
}

/// A statement of the database has room for so many and more.
const MAX_IDS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_in_its_largest_unit() {
        for (seconds, text) in [(1, "1s"), (90, "90s"), (600, "10m"), (86_400, "1d")] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }
}
