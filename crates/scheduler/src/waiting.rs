use std::time::Duration;

use chrono::{DateTime, Utc};
use store::{Run, RunState, SweepState};

/// A run that moves waits for nothing worth telling.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// Tells what a run that is going on waits for, in one sentence; empty where it moves.
pub(crate) fn waits_for(run: &Run, now: DateTime<Utc>) -> String {
    let idle = (now - run.last_progress_at).to_std().unwrap_or(Duration::ZERO);
    if run.state != RunState::Running || idle < WORTH_TELLING {
        return String::new();
    }
    let books = &run.books;
    let late = books.targets.iter().find(|target| target.missing > 0);
    let what = if !run.planned {
        "for an extractor to find the parts of the source".to_owned()
    } else if books.batches_transformed < books.batches {
        let batches = books.batches - books.batches_transformed;
        format!("for a transformer to finish {batches} batches")
    } else if let Some(target) = late {
        format!("for target `{}`, which lacks {} records", target.target, target.missing)
    } else if !books.extraction_ended {
        "for an extractor to read on".to_owned()
    } else if books.targets.iter().any(|target| target.sweep == SweepState::Issued) {
        "for a loader to remove what is gone from the source".to_owned()
    } else {
        "for its books to be settled".to_owned()
    };
    format!("waits {what}; nothing has moved for {} s", idle.as_secs())
}
