//! Looks at everything that goes on from time to time: what nobody told of is found here.

use std::time::Duration;

use store::{Run, SweepState, Trigger};

use crate::{
    catalog,
    core::Scheduler,
    deliveries,
    error::{Error, chain},
    pushes, replay,
    settling::issue_sweep,
    shared,
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
    logged("webhooks cannot be sent again", deliveries::round(scheduler).await);
    logged("details of runs cannot be removed", pushes::forget(scheduler).await);
    logged("runs cannot be counted", count(scheduler).await);
}

/// Puts back what the broker has lost.
pub(crate) async fn restore(scheduler: &Scheduler) {
    logged("the broker cannot be restored", catalog::restore(scheduler).await);
    logged("quotas cannot be restored", shared::restore(scheduler).await);
}

fn logged(what: &'static str, outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        tracing::warn!(error = chain(&error), "{what}, trying again soon");
    }
}

async fn count(scheduler: &Scheduler) -> Result<(), Error> {
    scheduler.metrics().runs(&scheduler.store().count_runs().await?);
    Ok(())
}

/// Settles the runs that are going on and hands out again what was lost.
async fn look_at_runs(scheduler: &Scheduler) -> Result<(), Error> {
    let running = scheduler.store().running_runs().await?;
    scheduler.fall_behind(running.iter().map(|run| run.id));
    let running: Vec<(Run, Duration)> = running
        .into_iter()
        .map(|run| {
            let idle = (scheduler.now() - run.last_progress_at).to_std().unwrap_or_default();
            (run, idle)
        })
        .collect();
    scheduler.metrics().going(&running);
    for (run, idle) in running {
        if idle < scheduler.config().stalled_after {
            continue;
        }
        if scheduler.bus().pending(&run.pipeline).await?.is_empty() {
            if run.trigger == Trigger::Push {
                pushes::end_lost(scheduler, &run).await?;
                continue;
            }
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
    let run = again.run.clone();
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
        // It is not handed out again.
        Trigger::Push => {}
        Trigger::Manual
        | Trigger::Interval
        | Trigger::Cron
        | Trigger::After
        | Trigger::Continuous
        | Trigger::Backfill => publish_plan(scheduler, again),
    }
    scheduler.tell(run.id);
    Ok(())
}
