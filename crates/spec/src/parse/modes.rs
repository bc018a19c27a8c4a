//! What the modes of the targets ask of the rest of the pipeline.

use crate::{Mode, Pipeline, Source, problem::Problems};

pub(super) fn check(pipeline: &Pipeline, problems: &Problems) {
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
                 `cursor` reads only what is new",
                "remove `cursor` from the source, or use `mode: upsert`",
            );
        }
    }
}

fn reads_only_news(source: &Source) -> bool {
    match source {
        Source::Csv(_) | Source::Json(_) => false,
        Source::Postgres(postgres) => postgres.read.cursor.is_some(),
        Source::Sqlite(sqlite) => sqlite.read.cursor.is_some(),
    }
}
