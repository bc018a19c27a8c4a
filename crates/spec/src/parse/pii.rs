//! What must not be a field that says who somebody is.

use crate::{NewsBy, PathStep, Pipeline, Source, problem::Problems};

pub(super) fn check(pipeline: &Pipeline, problems: &Problems) {
    let Some((place, cursor)) = cursor(&pipeline.source) else { return };
    if pipeline.pii.contains(&cursor) {
        problems.add(
            pipeline.places.line(place),
            place,
            format!("`{cursor}` is marked `pii`, and cursors are shown and kept as they are"),
            "take a field that tells when a record changed, or leave this one out of `pii`",
        );
    }
}

/// Returns the field by which a run knows what is new, with its place.
fn cursor(source: &Source) -> Option<(&'static str, String)> {
    match source {
        Source::Csv(_) | Source::Json(_) | Source::Push => None,
        Source::Postgres(source) => Some(("source.postgres.cursor", source.read.cursor.clone()?)),
        Source::Sqlite(source) => Some(("source.sqlite.cursor", source.read.cursor.clone()?)),
        Source::Http(source) => match &source.incremental.as_ref()?.by {
            NewsBy::Field { field, .. } => match field.steps.first()? {
                PathStep::Key(key) => Some(("source.http.incremental", key.clone())),
                PathStep::Index(_) | PathStep::All => None,
            },
            NewsBy::Token(_) => None,
        },
    }
}
