//! Runs that wait or pause get a place, the highest priority and then the oldest first. One run of a
//! pipeline goes on at a time, and as many on a connection as may.

use std::collections::HashSet;

use model::{PipelineName, Remedy};
use spec::Pipeline;
use store::{Run, RunState};

use super::{
    going::mark_paused,
    windows::{is_open, opens_at, shown},
};
use crate::{
    catalog,
    core::Scheduler,
    error::{Error, chain},
    settling::ended,
    start,
    tasks::publish_plan,
};

/// Has everybody go on who can.
pub(super) async fn give_places(scheduler: &Scheduler) -> Result<(), Error> {
    // Who comes later must not overtake on a connection that has just been full.
    let mut full: HashSet<PipelineName> = HashSet::new();
    let mut taken: HashSet<PipelineName> = HashSet::new();
    for run in scheduler.store().runs_without_a_place().await? {
        if run.connection.as_ref().is_some_and(|connection| full.contains(connection))
            || taken.contains(&run.pipeline)
        {
            continue;
        }
        let outcome = match run.state {
            RunState::Paused => resume(scheduler, &run).await,
            RunState::Waiting
            | RunState::Running
            | RunState::Succeeded
            | RunState::Failed
            | RunState::Cancelled
            | RunState::Skipped => begin(scheduler, &run).await,
        };
        match outcome {
            Ok(()) => {}
            Err(Error::Store(error @ store::Error::NoPlace(_))) => {
                tell(scheduler, &run, &error.to_string()).await?;
                full.extend(run.connection.clone());
            }
            Err(Error::Store(error @ store::Error::StillRunning { .. })) => {
                tell(scheduler, &run, &error.to_string()).await?;
                taken.insert(run.pipeline.clone());
            }
            // Somebody else was faster, or the next look finds it as it is now.
            Err(Error::Store(
                store::Error::NotDue(_) | store::Error::Changed(_) | store::Error::NoRun(_),
            )) => {}
            Err(error) if matches!(error.remedy(), Remedy::Retry { .. }) => {
                tracing::warn!(
                    run.id = %run.id,
                    pipeline.name = %run.pipeline,
                    error = chain(&error),
                    "a run cannot begin yet"
                );
                tell(scheduler, &run, &error.told()).await?;
            }
            Err(error) => refuse(scheduler, &run, &error).await?,
        }
    }
    Ok(())
}

async fn tell(scheduler: &Scheduler, run: &Run, reason: &str) -> Result<(), Error> {
    if run.state == RunState::Waiting && run.reason != reason {
        scheduler.store().tell_why_it_waits(run.id, reason).await?;
        scheduler.tell(run.id);
    }
    Ok(())
}

/// Keeps a run that cannot even begin as failed, so that people see why.
async fn refuse(scheduler: &Scheduler, run: &Run, error: &Error) -> Result<(), Error> {
    let (reason, hint, now) = (error.told(), error.hint(), scheduler.now());
    let run = scheduler.store().end_run(run.id, RunState::Failed, &reason, &hint, now).await?;
    if run.ended_at == Some(now) {
        ended(scheduler, &run).await;
    }
    Ok(())
}

/// Tells when the windows of a run that is due open, if they are closed.
fn closed(scheduler: &Scheduler, run: &Run, pipeline: &Pipeline) -> Option<String> {
    let (windows, zone) = (&pipeline.triggers.windows, pipeline.triggers.timezone);
    let now = scheduler.now();
    if !run.trigger.is_due() || is_open(windows, zone, now) {
        return None;
    }
    Some(match opens_at(windows, zone, now) {
        Some(opens) => format!("its next window begins at {}", shown(opens, zone)),
        None => "none of its windows follows".to_owned(),
    })
}

async fn begin(scheduler: &Scheduler, run: &Run) -> Result<(), Error> {
    let stored = scheduler.store().pipeline(&run.pipeline).await?;
    let Some(stored) = stored else { return Ok(()) };
    let pipeline = scheduler.parsed(&stored.revision)?;
    if let Some(until) = closed(scheduler, run, &pipeline) {
        return tell(scheduler, run, &until).await;
    }
    if pipeline.schema.is_none() {
        // An extractor is asked first, which may take its time.
        return begin_aside(scheduler, run).await;
    }
    start::begin(scheduler, run).await
}

/// Begins a run without holding up the others.
async fn begin_aside(scheduler: &Scheduler, run: &Run) -> Result<(), Error> {
    if !scheduler.take_in_hand(run.id) {
        return Ok(());
    }
    tell(scheduler, run, "an extractor is to look at its source").await?;
    let (scheduler_, run_) = (scheduler.clone(), run.clone());
    scheduler.in_background(async move {
        let (scheduler, run) = (scheduler_, run_);
        let outcome = match start::learn_schema(&scheduler, &run.pipeline).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.remedy(), Remedy::Retry { .. }) => {
                tell(&scheduler, &run, &error.told()).await
            }
            Err(error) => refuse(&scheduler, &run, &error).await,
        };
        scheduler.let_go(run.id);
        match outcome {
            Ok(()) => scheduler.look_soon(),
            Err(error) => tracing::warn!(
                run.id = %run.id, error = chain(&error), "a run cannot begin yet"
            ),
        }
    });
    Ok(())
}

async fn resume(scheduler: &Scheduler, run: &Run) -> Result<(), Error> {
    let stored = scheduler.store().pipeline(&run.pipeline).await?;
    let Some(stored) = stored else { return Ok(()) };
    let pipeline = scheduler.parsed(&stored.revision)?;
    if closed(scheduler, run, &pipeline).is_some() {
        // The scheduler that paused it may have died before it could say so.
        mark_paused(scheduler, run).await;
        return Ok(());
    }
    let places = start::places(scheduler, run.connection.as_ref()).await?;
    let resumed = scheduler.store().resume_run(run.id, places, scheduler.now()).await?;
    if let Some(again) = resumed {
        tracing::info!(
            run.id = %again.run.id,
            pipeline.name = %again.run.pipeline,
            attempt = again.run.attempt,
            "a paused run goes on"
        );
        catalog::put_revision_of(scheduler, &again.run).await?;
        publish_plan(scheduler, again);
    }
    scheduler.fall_behind([run.id]);
    scheduler.tell(run.id);
    Ok(())
}
