//! Looks at everything from time to time: what nobody told of is found here.

use std::time::Duration;

use store::{Run, RunState, SweepState, Trigger};

use crate::{
    catalog,
    core::Scheduler,
    error::{Error, chain},
    replay,
    settling::issue_sweep,
    start::{self, Start},
    tasks::publish_plan,
};

/// Reconciles until shutdown.
pub(crate) async fn run(scheduler: Scheduler) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(scheduler.config().reconcile_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scheduler.shutdown().cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        // Waiting for a broker or a database that is away must not hold up the shutdown.
        tokio::select! {
            () = scheduler.shutdown().cancelled() => return Ok(()),
            () = round(&scheduler) => {}
        }
    }
}

async fn round(scheduler: &Scheduler) {
    restore(scheduler).await;
    logged("runs cannot be looked at", look_at_runs(scheduler).await);
    logged("due runs cannot be started", start_due(scheduler).await);
    logged("runs cannot be counted", count(scheduler).await);
}

/// Puts back what the broker has lost.
pub(crate) async fn restore(scheduler: &Scheduler) {
    logged("the broker cannot be restored", catalog::restore(scheduler).await);
}

fn logged(what: &'static str, outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        tracing::warn!(error = chain(&error), "{what}, trying again soon");
    }
}

async fn count(scheduler: &Scheduler) -> Result<(), Error> {
    for (state, number) in scheduler.store().count_runs().await? {
        scheduler.metrics().runs(state, number);
    }
    Ok(())
}

/// Settles the runs that are going on and hands out again what was lost.
async fn look_at_runs(scheduler: &Scheduler) -> Result<(), Error> {
    let running = scheduler.store().running_runs().await?;
    scheduler.fall_behind(running.iter().map(|run| run.id));
    for run in running {
        let idle = (scheduler.now() - run.last_progress_at).to_std().unwrap_or(Duration::ZERO);
        scheduler.metrics().going(&run, idle);
        if idle < scheduler.config().stalled_after {
            continue;
        }
        if scheduler.bus().pending(&run.pipeline).await?.is_empty() {
            hand_out_again(scheduler, &run).await?;
        }
    }
    Ok(())
}

/// Repeats the work of a run that nobody does: the broker has lost it, or it was never published.
async fn hand_out_again(scheduler: &Scheduler, run: &Run) -> Result<(), Error> {
    if run.books.balanced {
        let issued = run.books.targets.iter().filter(|target| target.sweep == SweepState::Issued);
        for target in issued {
            issue_sweep(scheduler, run, &target.target, target.sweep_attempt).await?;
        }
        return Ok(());
    }
    let now = scheduler.now();
    let Some(again) = scheduler.store().hand_out_again(run, now).await? else { return Ok(()) };
    let run = again.run;
    tracing::warn!(
        run.id = %run.id,
        pipeline.name = %run.pipeline,
        attempt = run.attempt,
        "nothing moves and the broker holds nothing of the run, handing it out again"
    );
    scheduler.metrics().reissued(&run);
    // The revision may be gone from the broker together with the work.
    catalog::put_revision_of(scheduler, &run).await?;
    match run.trigger {
        Trigger::Replay => replay::publish_in_background(scheduler, &run),
        Trigger::Manual | Trigger::Interval => publish_plan(scheduler, &run, again.cursors),
    }
    scheduler.tell(run.id);
    Ok(())
}

/// Starts the runs whose time has come.
async fn start_due(scheduler: &Scheduler) -> Result<(), Error> {
    for stored in scheduler.store().pipelines().await? {
        let revision = &stored.revision;
        let Ok(pipeline) = scheduler.parsed(revision) else { continue };
        let Some(every) = pipeline.triggers.every else { continue };
        let last = scheduler.store().last_reading_run(&revision.name).await?;
        // All schedulers that see the same last run give the same key, of which one is stored.
        let due_key = match last {
            None => "first".to_owned(),
            Some((last, started_at)) => {
                let since = (scheduler.now() - started_at).to_std().unwrap_or(Duration::ZERO);
                if since < every {
                    continue;
                }
                format!("after {last}")
            }
        };
        start_one(scheduler, &revision.name, due_key).await;
    }
    Ok(())
}

async fn start_one(scheduler: &Scheduler, pipeline: &model::PipelineName, due_key: String) {
    let asked = Start { trigger: Trigger::Interval, due_key: Some(due_key), ..Start::default() };
    match start::start(scheduler, pipeline, asked).await {
        Ok(_) => {}
        Err(Error::Store(store::Error::StillRunning { .. } | store::Error::NotDue(_))) => {}
        Err(error) if matches!(error.remedy(), model::Remedy::Retry { .. }) => {
            tracing::warn!(
                pipeline.name = %pipeline, error = chain(&error), "a due run cannot be started yet"
            );
        }
        Err(error) => {
            logged("a due run cannot be refused", refuse_due(scheduler, pipeline, &error).await);
        }
    }
}

/// Keeps a due run that cannot even start as failed, so that people see why; the next one is due
/// after it.
async fn refuse_due(
    scheduler: &Scheduler,
    pipeline: &model::PipelineName,
    error: &Error,
) -> Result<(), Error> {
    let Some(stored) = scheduler.store().pipeline(pipeline).await? else { return Ok(()) };
    let last = scheduler.store().last_reading_run(pipeline).await?;
    let due_key = last.map_or_else(|| "first".to_owned(), |(last, _)| format!("after {last}"));
    let parsed = scheduler.parsed(&stored.revision)?;
    let new = start::new_run(
        &stored.revision,
        &parsed,
        Start { trigger: Trigger::Interval, due_key: Some(due_key), ..Start::default() },
    );
    let now = scheduler.now();
    let run = match scheduler.store().create_run(&new, now).await {
        Ok(run) => run,
        Err(store::Error::StillRunning { .. } | store::Error::NotDue(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let (reason, hint) = (error.told(), error.hint());
    let run = scheduler.store().end_run(run.id, RunState::Failed, &reason, &hint, now).await?;
    crate::settling::ended(scheduler, &run).await;
    Ok(())
}
