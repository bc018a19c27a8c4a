//! Answers of the control plane as JSON. The shape is a promise: keys are added, never renamed.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};
use wire::control::{
    ApplyPipelinesResponse, Change, CheckPipelineResponse, DiscoverSourceResponse,
    FieldDescription, Ledger, ListQuarantineResponse, Pipeline, PlanPipelinesResponse, Problem,
    QuarantinedRecord, ReplayQuarantineResponse, Run, RunState, Usage,
};

use super::quotas::shared_json;

/// A time as RFC 3339 in UTC, or null.
macro_rules! time {
    ($timestamp:expr) => {
        match $timestamp.as_ref() {
            Some(time) => instant(time.seconds, time.nanos),
            None => Value::Null,
        }
    };
}

fn instant(seconds: i64, nanos: i32) -> Value {
    u32::try_from(nanos)
        .ok()
        .and_then(|nanos| DateTime::from_timestamp(seconds, nanos))
        .map_or(Value::Null, |time| time.to_rfc3339_opts(SecondsFormat::Millis, true).into())
}

pub(crate) fn applied(answer: &ApplyPipelinesResponse) -> Value {
    let applied = answer.applied.iter().map(|pipeline| {
        json!({
            "name": pipeline.name,
            "revision": pipeline.revision,
            "change": change(pipeline.change()),
        })
    });
    json!({
        "applied": applied.collect::<Value>(),
        "shared": shared_json(&answer.shared),
        "problems": problems(&answer.problems),
    })
}

pub(crate) fn planned(answer: &PlanPipelinesResponse) -> Value {
    let planned = answer.planned.iter().map(|pipeline| {
        let targets = pipeline.targets.iter().map(|target| {
            json!({
                "target": target.target,
                "actions": target.actions,
                "unreachable": optional(&target.unreachable),
            })
        });
        json!({
            "name": pipeline.name,
            "change": change(pipeline.change()),
            "inferred": pipeline.inferred,
            "fields": fields(&pipeline.fields),
            "result": fields(&pipeline.result),
            "targets": targets.collect::<Value>(),
            "destructive": pipeline.destructive,
        })
    });
    json!({
        "planned": planned.collect::<Value>(),
        "shared": shared_json(&answer.shared),
        "problems": problems(&answer.problems),
    })
}

pub(crate) fn checked(answer: &CheckPipelineResponse) -> Value {
    let results = answer.results.iter().map(
        |result| json!({ "subject": result.subject, "ok": result.ok, "message": result.message }),
    );
    json!({ "results": results.collect::<Value>() })
}

pub(crate) fn discovered(answer: &DiscoverSourceResponse) -> Value {
    let streams = answer
        .streams
        .iter()
        .map(|stream| json!({ "name": stream.name, "fields": fields(&stream.fields) }));
    json!({ "streams": streams.collect::<Value>() })
}

pub(crate) fn pipelines(pipelines: &[Pipeline]) -> Value {
    json!({ "pipelines": pipelines.iter().map(listed).collect::<Value>() })
}

pub(crate) fn pipeline(pipeline: &Pipeline) -> Value {
    let mut value = listed(pipeline);
    value["yaml"] = pipeline.yaml.clone().into();
    value
}

pub(crate) fn deleted(name: &str) -> Value {
    json!({ "deleted": name })
}

pub(crate) fn runs(runs: &[Run]) -> Value {
    json!({ "runs": runs.iter().map(run).collect::<Value>() })
}

pub(crate) fn run(run: &Run) -> Value {
    json!({
        "id": run.id,
        "pipeline": run.pipeline,
        "revision": run.revision,
        "trigger": run.trigger,
        "state": state(run.state()),
        "started_at": time!(run.started_at),
        "ended_at": time!(run.ended_at),
        "attempt": run.attempt,
        "ledger": ledger(&run.ledger.clone().unwrap_or_default()),
        "reason": optional(&run.reason),
        "hint": optional(&run.hint),
        "notes": run.notes,
        "due_at": time!(run.due_at),
        "usage": run.usage.as_ref().map(usage),
        "parameters": run.parameters.iter().collect::<BTreeMap<_, _>>(),
        "from": run.range_from,
        "to": run.range_to,
        "skipped": (run.skipped > 0).then_some(run.skipped),
        "skipped_until": time!(run.skipped_until),
        "connection": optional(&run.connection),
    })
}

fn usage(usage: &Usage) -> Value {
    json!({
        "calls": usage.calls,
        "received_bytes": usage.received_bytes,
        "waited_quota_ms": usage.waited_quota_ms,
        "slowed_ms": usage.slowed_ms,
        "not_modified": usage.not_modified,
    })
}

pub(crate) fn quarantine(answer: &ListQuarantineResponse) -> Value {
    let records = answer.records.iter().map(without_contents);
    json!({ "total": answer.total, "records": records.collect::<Value>() })
}

pub(crate) fn quarantined(record: &QuarantinedRecord) -> Value {
    let mut value = without_contents(record);
    // The contents are JSON text; as a document inside the document they can be queried.
    value["contents"] = serde_json::from_str(&record.contents)
        .unwrap_or_else(|_| Value::from(record.contents.clone()));
    value
}

pub(crate) fn replayed(answer: &ReplayQuarantineResponse) -> Value {
    json!({ "records": answer.records, "runs": answer.runs })
}

pub(crate) fn dropped(records: u64) -> Value {
    json!({ "records": records })
}

/// Name of a state, as `text` shows it too.
pub(crate) fn state(state: RunState) -> &'static str {
    match state {
        RunState::Unspecified => "unknown",
        RunState::Waiting => "waiting",
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::Succeeded => "succeeded",
        RunState::Failed => "failed",
        RunState::Cancelled => "cancelled",
        RunState::Skipped => "skipped",
    }
}

pub(crate) fn change(change: Change) -> &'static str {
    match change {
        Change::Unspecified => "unknown",
        Change::Created => "created",
        Change::Updated => "updated",
        Change::None => "unchanged",
    }
}

fn listed(pipeline: &Pipeline) -> Value {
    json!({
        "name": pipeline.name,
        "revision": pipeline.revision,
        "applied_at": time!(pipeline.applied_at),
        "source": pipeline.source,
        "targets": pipeline.targets,
        "triggers": pipeline.triggers,
    })
}

fn ledger(ledger: &Ledger) -> Value {
    let targets = ledger.targets.iter().map(|target| {
        json!({
            "target": target.target,
            "loaded": target.loaded,
            "unchanged": target.unchanged,
            "quarantined": target.quarantined,
            "swept": target.swept,
            "missing": target.missing,
        })
    });
    json!({
        "extracted": ledger.extracted,
        "batches": ledger.batches,
        "batches_transformed": ledger.batches_transformed,
        "filtered": ledger.filtered,
        "quarantined": ledger.quarantined,
        "extraction_ended": ledger.extraction_ended,
        "balanced": ledger.balanced,
        "targets": targets.collect::<Value>(),
    })
}

fn without_contents(record: &QuarantinedRecord) -> Value {
    json!({
        "id": record.id,
        "pipeline": record.pipeline,
        "revision": record.revision,
        "run": record.run,
        "stage": record.stage,
        "target": optional(&record.target),
        "record": record.record,
        "code": record.code,
        "message": record.message,
        "step": optional(&record.step),
        "field": optional(&record.field),
        "quarantined_at": time!(record.quarantined_at),
    })
}

fn fields(fields: &[FieldDescription]) -> Value {
    fields
        .iter()
        .map(|field| {
            json!({
                "name": field.name,
                "type": field.r#type,
                "key": field.key,
                "required": field.required,
            })
        })
        .collect()
}

fn problems(problems: &[Problem]) -> Value {
    problems
        .iter()
        .map(|problem| {
            json!({
                "file": problem.file,
                "line": problem.line,
                "key": optional(&problem.key),
                "message": problem.message,
                "remedy": optional(&problem.remedy),
            })
        })
        .collect()
}

fn optional(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}
