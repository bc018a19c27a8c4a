//! Answers of the control plane for people.

use std::fmt::Write;

use chrono::DateTime;
use wire::control::{
    ApplyPipelinesResponse, Change, CheckPipelineResponse, DiscoverSourceResponse,
    FieldDescription, Ledger, ListQuarantineResponse, Pipeline, PlanPipelinesResponse,
    PlannedPipeline, Problem, QuarantinedRecord, ReplayQuarantineResponse, Run, RunState,
};

use super::{
    json::{change, state},
    quotas::shared_text,
    table::{draw, grouped, indented},
};

/// A time of day for people, in UTC.
macro_rules! time {
    ($timestamp:expr) => {
        match $timestamp.as_ref().and_then(|time| DateTime::from_timestamp(time.seconds, 0)) {
            Some(time) => time.format("%Y-%m-%d %H:%M:%SZ").to_string(),
            None => String::new(),
        }
    };
}

pub(crate) fn applied(answer: &ApplyPipelinesResponse) -> String {
    if !answer.problems.is_empty() {
        return problems(&answer.problems, "nothing was applied");
    }
    let rows = answer.applied.iter().map(|pipeline| {
        vec![
            pipeline.name.clone(),
            pipeline.revision.to_string(),
            change(pipeline.change()).to_owned(),
        ]
    });
    let mut text = shared_text(&answer.shared);
    if !answer.applied.is_empty() {
        text.push_str(&draw(&["PIPELINE", "REVISION", "CHANGE"], &[1], rows.collect()));
    }
    text
}

pub(crate) fn planned(answer: &PlanPipelinesResponse) -> String {
    let mut text = shared_text(&answer.shared);
    text.extend(answer.planned.iter().map(planned_pipeline));
    if !answer.problems.is_empty() {
        text.push_str(&problems(&answer.problems, "applying would be refused"));
    }
    text
}

fn planned_pipeline(pipeline: &PlannedPipeline) -> String {
    let what = match pipeline.change() {
        Change::Created => "would be created",
        Change::Updated => "would be updated",
        Change::None => "would not change",
        Change::Unspecified => "would change in a way that this client does not know",
    };
    let mut text = format!("pipeline `{}` {what}\n", pipeline.name);
    for message in &pipeline.destructive {
        push(&mut text, format_args!("  DESTRUCTIVE: {message}\n"));
    }
    let origin = if pipeline.inferred { "inferred" } else { "declared" };
    push_fields(&mut text, &format!("fields of the source ({origin})"), &pipeline.fields);
    push_fields(&mut text, "fields after all steps", &pipeline.result);
    for target in &pipeline.targets {
        let name = &target.target;
        if !target.unreachable.is_empty() {
            push(
                &mut text,
                format_args!("  target `{name}` cannot be looked at: {}\n", target.unreachable),
            );
        } else if target.actions.is_empty() {
            push(&mut text, format_args!("  target `{name}`: nothing but loading\n"));
        } else {
            push(&mut text, format_args!("  target `{name}`:\n"));
            for action in &target.actions {
                push(&mut text, format_args!("    {action}\n"));
            }
        }
    }
    text
}

pub(crate) fn checked(answer: &CheckPipelineResponse) -> String {
    let rows = answer.results.iter().map(|result| {
        let mark = if result.ok { "ok" } else { "FAILED" };
        vec![mark.to_owned(), result.subject.clone(), result.message.clone()]
    });
    draw(&["RESULT", "SUBJECT", "FOUND"], &[], rows.collect())
}

pub(crate) fn discovered(answer: &DiscoverSourceResponse) -> String {
    let mut text = String::new();
    for stream in &answer.streams {
        push(&mut text, format_args!("{}\n", stream.name));
        text.push_str(&indented(&fields(&stream.fields), 2));
    }
    text
}

pub(crate) fn pipelines(pipelines: &[Pipeline]) -> String {
    if pipelines.is_empty() {
        return "there are no pipelines; store some with `tributary apply -f FILE`\n".to_owned();
    }
    let rows = pipelines.iter().map(|pipeline| {
        vec![
            pipeline.name.clone(),
            pipeline.revision.to_string(),
            pipeline.source.clone(),
            pipeline.targets.join(", "),
            pipeline.triggers.clone(),
            time!(pipeline.applied_at),
        ]
    });
    let heading = ["PIPELINE", "REVISION", "SOURCE", "TARGETS", "TRIGGERS", "APPLIED"];
    draw(&heading, &[1], rows.collect())
}

pub(crate) fn pipeline(pipeline: &Pipeline) -> String {
    let mut text = format!(
        "# pipeline `{}`, revision {}, applied {}\n{}",
        pipeline.name,
        pipeline.revision,
        time!(pipeline.applied_at),
        pipeline.yaml
    );
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

pub(crate) fn started(run: &Run) -> String {
    let (id, pipeline, revision) = (&run.id, &run.pipeline, run.revision);
    let going = if run.state() == RunState::Waiting { "waits for a place" } else { "is going" };
    format!(
        "run {id} of `{pipeline}` (revision {revision}) {going}; follow it with `tributary watch {id}`\n"
    )
}

pub(crate) fn runs(runs: &[Run]) -> String {
    if runs.is_empty() {
        return "there are no runs; start one with `tributary run NAME`\n".to_owned();
    }
    let rows = runs.iter().map(|run| {
        let ledger = run.ledger.clone().unwrap_or_default();
        vec![
            run.id.clone(),
            run.pipeline.clone(),
            run.trigger.clone(),
            in_words(run),
            time!(run.started_at),
            took(run),
            grouped(ledger.extracted),
            grouped(ledger.targets.iter().map(|target| target.loaded).sum()),
            grouped(quarantined_in_all(&ledger)),
        ]
    });
    let heading = [
        "RUN",
        "PIPELINE",
        "TRIGGER",
        "STATE",
        "STARTED",
        "TOOK",
        "EXTRACTED",
        "LOADED",
        "QUARANTINED",
    ];
    draw(&heading, &[5, 6, 7, 8], rows.collect())
}

/// The state of a run; of a skipped one, how many due times it stands for.
fn in_words(run: &Run) -> String {
    match run.skipped {
        0 | 1 => state(run.state()).to_owned(),
        number => format!("{} ({})", state(run.state()), grouped(number)),
    }
}

fn quarantined_in_all(ledger: &Ledger) -> u64 {
    ledger.quarantined + ledger.targets.iter().map(|target| target.quarantined).sum::<u64>()
}

/// The books of a run with the sum below.
pub(crate) fn ledger(run: &Run) -> String {
    let books = run.ledger.clone().unwrap_or_default();
    let mut text = format!(
        "run {} of `{}` (revision {}): {}",
        run.id,
        run.pipeline,
        run.revision,
        state(run.state())
    );
    match took(run) {
        took if took.is_empty() => text.push('\n'),
        took => push(&mut text, format_args!(" after {took}\n")),
    }
    let rows = vec![
        vec!["extracted".to_owned(), grouped(books.extracted)],
        vec!["filtered".to_owned(), grouped(books.filtered)],
        vec!["quarantined".to_owned(), grouped(books.quarantined)],
    ];
    text.push_str(&indented(&draw(&["STAGES", "RECORDS"], &[1], rows), 2));
    let rows = books.targets.iter().map(|target| {
        let numbers =
            [target.loaded, target.unchanged, target.quarantined, target.swept, target.missing];
        [target.target.clone()].into_iter().chain(numbers.map(grouped)).collect()
    });
    let heading = ["TARGET", "LOADED", "UNCHANGED", "QUARANTINED", "SWEPT", "MISSING"];
    text.push_str(&indented(&draw(&heading, &[1, 2, 3, 4, 5], rows.collect()), 2));
    push(&mut text, format_args!("  {}\n", balance(&books)));
    for note in &run.notes {
        push(&mut text, format_args!("  note: {note}\n"));
    }
    if let Some(usage) = &run.usage {
        push(
            &mut text,
            format_args!(
                "  the source answered {} calls with {} bytes",
                grouped(usage.calls),
                grouped(usage.received_bytes)
            ),
        );
        for (ms, why) in [
            (usage.waited_quota_ms, "waited for the quota"),
            (usage.slowed_ms, "paused because the source was slow"),
        ] {
            if ms > 0 {
                push(&mut text, format_args!("; {} ms {why}", grouped(ms)));
            }
        }
        text.push('\n');
    }
    let label = if run.state() == RunState::Running { "waits for" } else { "reason" };
    for (label, value) in [(label, &run.reason), ("hint", &run.hint)] {
        if !value.is_empty() {
            push(&mut text, format_args!("  {label}: {value}\n"));
        }
    }
    text
}

fn balance(ledger: &Ledger) -> String {
    if ledger.balanced {
        return "the books balance: every record is accounted for".to_owned();
    }
    let missing: Vec<String> = ledger
        .targets
        .iter()
        .filter(|target| target.missing > 0)
        .map(|target| format!("{} for target `{}`", grouped(target.missing), target.target))
        .collect();
    match (ledger.extraction_ended, missing.is_empty()) {
        (false, true) => "the source was not read to its end".to_owned(),
        (false, false) => format!(
            "the source was not read to its end, and records are missing: {}",
            missing.join(", ")
        ),
        (true, false) => {
            format!("the books do not balance, records are missing: {}", missing.join(", "))
        }
        (true, true) => "the books do not balance yet".to_owned(),
    }
}

pub(crate) fn quarantine(answer: &ListQuarantineResponse) -> String {
    if answer.records.is_empty() {
        return "no record is in quarantine\n".to_owned();
    }
    let rows = answer.records.iter().map(|record| {
        let stage = match record.target.as_str() {
            "" => record.stage.clone(),
            target => format!("{} ({target})", record.stage),
        };
        vec![
            record.id.to_string(),
            record.pipeline.clone(),
            stage,
            record.code.clone(),
            record.field.clone(),
            record.record.clone(),
            record.message.clone(),
        ]
    });
    let heading = ["ID", "PIPELINE", "STAGE", "CODE", "FIELD", "RECORD", "REASON"];
    let mut text = draw(&heading, &[0], rows.collect());
    let shown = u64::try_from(answer.records.len()).unwrap_or(u64::MAX);
    if answer.total > shown {
        push(&mut text, format_args!("{} of {} records\n", grouped(shown), grouped(answer.total)));
    }
    text
}

pub(crate) fn quarantined(record: &QuarantinedRecord) -> String {
    let rows = [
        ("id", record.id.to_string()),
        ("pipeline", format!("{} (revision {})", record.pipeline, record.revision)),
        ("run", record.run.clone()),
        ("stage", record.stage.clone()),
        ("target", record.target.clone()),
        ("record", record.record.clone()),
        ("code", record.code.clone()),
        ("reason", record.message.clone()),
        ("step", record.step.clone()),
        ("field", record.field.clone()),
        ("time", time!(record.quarantined_at)),
        ("contents", record.contents.clone()),
    ];
    rows.iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(label, value)| format!("{label:<9} {value}\n"))
        .collect()
}

pub(crate) fn replayed(answer: &ReplayQuarantineResponse) -> String {
    let mut text = format!("{} on the way again\n", counted(answer.records));
    for run in &answer.runs {
        push(&mut text, format_args!("  follow them with `tributary watch {run}`\n"));
    }
    text
}

pub(crate) fn dropped(records: u64) -> String {
    format!("{} removed from the quarantine\n", counted(records))
}

fn counted(records: u64) -> String {
    let noun = if records == 1 { "record" } else { "records" };
    format!("{} {noun}", grouped(records))
}

fn problems(problems: &[Problem], outcome: &str) -> String {
    let mut text = String::new();
    for problem in problems {
        text.push_str(&problem.file);
        if problem.line > 0 {
            push(&mut text, format_args!(":{}", problem.line));
        }
        if !problem.key.is_empty() {
            push(&mut text, format_args!(": {}", problem.key));
        }
        push(&mut text, format_args!(": {}", problem.message));
        if !problem.remedy.is_empty() {
            push(&mut text, format_args!("; {}", problem.remedy));
        }
        text.push('\n');
    }
    let noun = if problems.len() == 1 { "problem" } else { "problems" };
    push(&mut text, format_args!("{} {noun}, {outcome}\n", problems.len()));
    text
}

fn push_fields(text: &mut String, title: &str, described: &[FieldDescription]) {
    if !described.is_empty() {
        push(text, format_args!("  {title}:\n"));
        text.push_str(&indented(&fields(described), 4));
    }
}

fn fields(fields: &[FieldDescription]) -> String {
    let rows = fields.iter().map(|field| {
        let marks = [(field.key, "key"), (field.required, "required")];
        let marks: Vec<&str> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
        vec![field.name.clone(), field.r#type.clone(), marks.join(", ")]
    });
    draw(&["FIELD", "TYPE", ""], &[], rows.collect())
}

/// How long a run took; empty while it is going.
fn took(run: &Run) -> String {
    let (Some(start), Some(end)) = (&run.started_at, &run.ended_at) else {
        return String::new();
    };
    let millis =
        (end.seconds - start.seconds) * 1000 + i64::from(end.nanos - start.nanos) / 1_000_000;
    let tenths = millis.max(0) / 100;
    match tenths / 10 {
        seconds if seconds < 60 => format!("{seconds}.{}s", tenths % 10),
        seconds if seconds < 3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}
