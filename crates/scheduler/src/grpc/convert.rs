use bus::questions::{CheckResult, DiscoveredField, DiscoveredStream, PlanOutcome};
use chrono::{DateTime, Utc};
use model::{Field, Schema};
use prost_types::Timestamp;
use spec::{Pipeline, Problem};
use store::{Quarantined, Run, RunState, Selection, StoredPipeline};
use wire::control;

use crate::{
    error::Error,
    pipelines::{Applied, Change, Planned},
    waiting::waits_for,
};

fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default(),
    }
}

pub(super) fn run(run: Run, notes: Vec<String>, now: DateTime<Utc>) -> control::Run {
    let waits_for = waits_for(&run, now);
    let state = match run.state {
        RunState::Running => control::RunState::Running,
        RunState::Succeeded => control::RunState::Succeeded,
        RunState::Failed => control::RunState::Failed,
        RunState::Cancelled => control::RunState::Cancelled,
    };
    let books = run.books;
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
    let Planned { pipeline, change: changed, schema: of_source, inferred, result, targets } =
        planned;
    let targets = targets.into_iter().map(|target| {
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
        triggers: parsed
            .and_then(|pipeline| pipeline.triggers.every)
            .map_or_else(String::new, |every| format!("every {}", words(every))),
    }
}

/// A duration in its largest unit that leaves nothing over.
fn words(duration: std::time::Duration) -> String {
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
    })
}

/// A statement of the database has room for so many and more.
const MAX_IDS: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_duration_is_told_in_its_largest_unit() {
        for (seconds, text) in [(1, "1s"), (90, "90s"), (600, "10m"), (86_400, "1d")] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }
}
