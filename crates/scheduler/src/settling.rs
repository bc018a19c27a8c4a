//! Drives runs to their end: whenever the ledger of a run has news, its books are brought up to
//! date, and when they balance, what is left to do is done.

use std::time::{Duration, Instant};

use bus::Bucket;
use bytes::Bytes;
use model::RunId;
use spec::Mode;
use store::{Run, RunState, SweepState, Trigger};
use wire::task::SweepTarget;

use crate::{
    core::Scheduler,
    deliveries,
    error::{Error, chain},
    pushes,
    tasks::publish_sweep,
};

/// Why a sweep is left out.
const WITHHELD: &str = "rows that are gone from the source stay in the target this time, because \
                        records of the run are quarantined and may be among them";

/// Most time between two counts, unless the settings ask for more.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Settles runs until shutdown.
pub(crate) async fn run(scheduler: Scheduler) -> anyhow::Result<()> {
    loop {
        let runs = tokio::select! {
            () = scheduler.shutdown().cancelled() => return Ok(()),
            runs = scheduler.runs_behind() => runs,
        };
        let begun = Instant::now();
        for run in runs {
            if let Err(error) = settle(&scheduler, run).await {
                tracing::warn!(
                    run.id = %run, error = chain(&error), "a run cannot be settled yet"
                );
            }
        }
        // Counting takes longer as a run grows; it takes a small share of the time all the same. A
        // database that was away says nothing about counting.
        let share = (begun.elapsed() * 10).min(LONGEST_REST);
        let rest = scheduler.config().settle_interval.max(share);
        tokio::select! {
            () = scheduler.shutdown().cancelled() => return Ok(()),
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Brings the books of a run up to date and does what follows from them.
pub(crate) async fn settle(scheduler: &Scheduler, id: RunId) -> Result<(), Error> {
    let mut run = scheduler.store().settle_run(id, scheduler.now()).await?;
    if run.trigger == Trigger::Push {
        if run.state == RunState::Paused && run.books.extraction_ended {
            // There was nothing left to pause for.
            scheduler.store().resume_run(id, None, scheduler.now()).await?;
            run = scheduler.store().run(id).await?;
        }
        if run.state == RunState::Running && run.books.balanced {
            pushes::end_if_over(scheduler, &run).await?;
        }
    } else if run.state == RunState::Running && run.books.balanced {
        if sweep(scheduler, &run).await? {
            run = scheduler.store().run(id).await?;
        }
        let swept = |state| match state {
            SweepState::None | SweepState::Withheld | SweepState::Done => true,
            SweepState::Pending | SweepState::Issued => false,
        };
        if run.books.targets.iter().all(|target| swept(target.sweep)) {
            let now = scheduler.now();
            let run = scheduler.store().end_run(id, RunState::Succeeded, "", "", now).await?;
            // Another scheduler may have ended it in the same moment, and told.
            if run.ended_at == Some(now) {
                ended(scheduler, &run).await;
            }
        }
    }
    scheduler.tell(id);
    Ok(())
}

/// Begins the sweeps that are pending. Returns whether there were any.
async fn sweep(scheduler: &Scheduler, run: &Run) -> Result<bool, Error> {
    let pending = run.books.targets.iter().filter(|target| target.sweep == SweepState::Pending);
    let mut any = false;
    for target in pending {
        any = true;
        if run.books.any_quarantined() {
            let store = scheduler.store();
            let why = format!("target `{}`: {WITHHELD}", target.target);
            store.withhold_sweep(run.id, &target.target, &why, scheduler.now()).await?;
        } else {
            issue_sweep(scheduler, run, &target.target, target.sweep_attempt).await?;
        }
    }
    Ok(any)
}

/// Hands the sweep of a target out, unless somebody else has.
pub(crate) async fn issue_sweep(
    scheduler: &Scheduler,
    run: &Run,
    target: &str,
    seen_attempt: u32,
) -> Result<(), Error> {
    let pipeline = scheduler.pipeline_of(run).await?;
    let allowed = pipeline
        .targets
        .iter()
        .find(|candidate| candidate.name.as_str() == target)
        .and_then(|target| match target.mode {
            Mode::Snapshot { max_loss_percent } => Some(max_loss_percent),
            Mode::Upsert | Mode::Append => None,
        })
        .unwrap_or(0.0);
    let now = scheduler.now();
    let issued = scheduler.store().issue_sweep(run.id, target, seen_attempt, now).await?;
    if let Some(issue) = issued {
        let sweep = SweepTarget {
            target: target.to_owned(),
            extraction_base: run.extraction_base,
            max_loss_percent: if run.confirm_loss { 100.0 } else { allowed },
            source_empty: run.books.extracted == 0,
        };
        publish_sweep(scheduler, run, sweep, issue);
    }
    Ok(())
}

/// Tells of a run that has just ended, and removes what the stages need not do any more.
pub(crate) async fn ended(scheduler: &Scheduler, run: &Run) {
    scheduler.tell(run.id);
    scheduler.forget_pause(run.id);
    if let Err(error) = deliveries::after_run(scheduler, &run.pipeline).await {
        tracing::warn!(error = chain(&error), "webhooks cannot be sent again yet");
    }
    scheduler.look_soon();
    scheduler.metrics().ended(run);
    let books = &run.books;
    let duration_ms =
        run.ended_at.map_or(0, |ended_at| (ended_at - run.started_at).num_milliseconds());
    let loaded: u64 = books.targets.iter().map(|target| target.loaded).sum();
    let unchanged: u64 = books.targets.iter().map(|target| target.unchanged).sum();
    tracing::info!(
        run.id = %run.id,
        pipeline.name = %run.pipeline,
        state = %run.state,
        attempt = run.attempt,
        duration_ms,
        extracted = books.extracted,
        loaded,
        unchanged,
        filtered = books.filtered,
        quarantined = books.quarantined,
        reason = run.reason,
        "a run has ended"
    );
    // One that never began has no work in the broker, where another run may have some.
    if run.state == RunState::Succeeded || books.targets.is_empty() {
        return;
    }
    // An extractor that is in the middle of a part looks for this key.
    let (progress, key) =
        (scheduler.bus().key_value(Bucket::Progress), format!("{}.ended", run.id));
    scheduler.in_background(async move {
        if let Err(error) = progress.put(&key, Bytes::new()).await {
            tracing::debug!(error = chain(&error), "an ended run may be read to its end");
        }
    });
    // What was pushed meanwhile waits among it.
    if pushes::keeps_work(scheduler, run).await {
        return;
    }
    if let Err(error) = scheduler.bus().purge_pipeline(&run.pipeline).await {
        tracing::warn!(
            pipeline.name = %run.pipeline,
            error = chain(&error),
            "work of an ended run is left in the broker, which is harmless"
        );
    }
}
