//! What the modes of the targets ask of the rest of the pipeline.

use crate::{Mode, Pipeline, Source, problem::Problems};

pub(super) fn check(pipeline: &Pipeline, problems: &Problems) {
    check_capture(pipeline, problems);
    for target in &pipeline.targets {
        let place = format!("targets.{}", target.name);
        let mode_place = format!("{place}.mode");
        let line = pipeline.places.line(&mode_place);
        let (mode, snapshot) = match target.mode {
            Mode::Append => continue,
            Mode::Upsert => ("upsert", false),
            Mode::Snapshot { .. } => ("snapshot", true),
        };
        if pipeline.key.is_empty() {
            problems.add(
                line,
                &mode_place,
                format!("mode `{mode}` needs a key, and `key` is missing"),
                "list the fields that identify a record: `key: [id]`, or use `mode: append`",
            );
        }
        if snapshot && reads_only_news(&pipeline.source) {
            problems.add(
                line,
                &mode_place,
                "mode `snapshot` removes the rows that a run did not see, and a source with \
                 `cursor`, `incremental` or `capture` reads only what is new",
                "remove that from the source, or use `mode: upsert`",
            );
        }
    }
}

/// The log tells which change is newer, and a deleted row has no time of its last change.
fn check_capture(pipeline: &Pipeline, problems: &Problems) {
    let captured = matches!(&pipeline.source, Source::Postgres(source) if source.capture.is_some());
    if !captured {
        return;
    }
    if pipeline.newest_by.is_some() {
        problems.add(
            pipeline.places.line("newest_by"),
            "newest_by",
            "the source has `capture`, and the log tells which change is newer",
            "remove `newest_by`",
        );
    }
    if pipeline.triggers.push.is_some() {
        problems.add(
            pipeline.places.line("triggers.push"),
            "triggers.push",
            "the source has `capture`, whose changes cannot be told apart from what is pushed by age",
            "remove `triggers.push`, or read the table with `cursor`",
        );
    }
}

fn reads_only_news(source: &Source) -> bool {
    match source {
        Source::Csv(_) | Source::Json(_) => false,
        Source::Push => true,
        Source::Http(http) => http.incremental.is_some(),
        Source::Postgres(postgres) => postgres.capture.is_some() || postgres.read.cursor.is_some(),
        Source::Sqlite(sqlite) => sqlite.read.cursor.is_some(),
    }
}
