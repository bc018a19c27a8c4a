//! Runs that account for what was pushed: brought about by the first ledger entry that speaks of
//! them, ended when their span of time is over, opened again when something is told of later.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta};
use model::{PipelineName, RunId};
use store::{NewPushRun, Run, RunState};
use wire::ledger::PushRun;

use crate::{
    core::Scheduler,
    error::{Error, chain},
    settling::ended,
};

/// How long after its span of time a run ends, if nothing is on its way.
const AFTERWARDS: TimeDelta = TimeDelta::seconds(2);

/// How long after its span of time a run ends though the broker holds batches of the pipeline, which
/// are most likely of later runs.
const LONG_AFTERWARDS: TimeDelta = TimeDelta::seconds(20);

/// How long what each stage did with each batch is kept after the end.
const REMEMBERED: TimeDelta = TimeDelta::minutes(10);

/// Runs that are known to exist.
const KNOWN: usize = 10_000;

/// Runs of pushes that were seen in the database. Each scheduler has its own.
#[derive(Debug, Default)]
pub(crate) struct Known(HashSet<RunId>);

impl Known {
    /// Returns the run that an entry speaks of, if it may have to be brought about.
    pub(crate) fn unknown(
        &self,
        pipeline: &PipelineName,
        run: &str,
        push: &PushRun,
    ) -> Option<(PipelineName, RunId, PushRun)> {
        let run: RunId = run.parse().ok()?;
        (!self.0.contains(&run)).then(|| (pipeline.clone(), run, *push))
    }

    pub(crate) fn insert(&mut self, runs: impl IntoIterator<Item = RunId>) {
        if self.0.len() > KNOWN {
            self.0.clear();
        }
        self.0.extend(runs);
    }
}

/// Brings a run about unless it exists.
pub(crate) async fn open(
    scheduler: &Scheduler,
    pipeline: &PipelineName,
    id: RunId,
    push: &PushRun,
) -> Result<(), store::Error> {
    let Some(stored) = scheduler.store().revision(pipeline, push.revision).await? else {
        return Ok(());
    };
    let targets = match scheduler.parsed(&stored) {
        Ok(parsed) => parsed.targets.iter().map(|target| target.name.to_string()).collect(),
        Err(error) => {
            tracing::error!(
                pipeline.name = %pipeline, error = chain(&error), "pushes have no books"
            );
            return Ok(());
        }
    };
    let time = |ms| DateTime::from_timestamp_millis(ms).unwrap_or_default();
    let new = NewPushRun {
        id,
        pipeline: pipeline.clone(),
        revision: push.revision,
        window_starts_at: time(push.window_start_ms),
        window_ends_at: time(push.window_end_ms),
        targets,
    };
    scheduler.store().open_push_run(&new, scheduler.now()).await
}

/// Ends a run whose books balance, if its span of time is over and nothing of it is on its way.
pub(crate) async fn end_if_over(scheduler: &Scheduler, run: &Run) -> Result<(), Error> {
    let now = scheduler.now();
    let Some(over) = scheduler.store().push_window_end(run.id).await? else { return Ok(()) };
    if now < over + AFTERWARDS || now < run.last_progress_at + AFTERWARDS {
        return Ok(());
    }
    if now < over + LONG_AFTERWARDS {
        let pending = scheduler.bus().pending(&run.pipeline).await?;
        if pending.raw + pending.tasks > 0 {
            return Ok(());
        }
    }
    let run = scheduler.store().end_run(run.id, RunState::Succeeded, "", "", now).await?;
    // Another scheduler may have ended it in the same moment, and told.
    if run.ended_at == Some(now) {
        ended(scheduler, &run).await;
    }
    Ok(())
}

/// Ends a run whose records are gone: the books do not balance, and the broker held nothing of it after
/// it was `seen`. What had left the broker until then is in the ledger.
pub(crate) async fn end_lost(scheduler: &Scheduler, seen: &Run) -> Result<(), Error> {
    let why = |run: &Run| {
        let missing = run.books.targets.iter().map(|target| target.missing).max().unwrap_or(0);
        let reason = format!("{missing} records that were pushed are gone from the broker");
        let since = run.started_at.format("%Y-%m-%d %H:%M:%S UTC");
        let hint = format!(
            "ask the senders to deliver again what they sent since {since}, or read the source with \
             `tributary run {} --full`; a broker with three replicas keeps what it has acknowledged",
            run.pipeline
        );
        (reason, hint)
    };
    if let Some(run) = scheduler.store().end_lost(seen, why, scheduler.now()).await? {
        ended(scheduler, &run).await;
    }
    Ok(())
}

/// Forgets the details of runs that have ended a while ago.
pub(crate) async fn forget(scheduler: &Scheduler) -> Result<(), Error> {
    scheduler.store().forget_push_runs(scheduler.now() - REMEMBERED).await?;
    Ok(())
}

/// Tells whether work of a pipeline has to stay in the broker whatever becomes of one run, because it
/// cannot be had again.
pub(crate) async fn keeps_work(scheduler: &Scheduler, run: &Run) -> bool {
    match scheduler.pipeline_of(run).await {
        Ok(pipeline) => pipeline.triggers.push.is_some(),
        Err(_) => false,
    }
}
