//! Runs that go on: one that meets the end of its window pauses, one that takes too long fails.

use std::time::Duration;

use bus::Bucket;
use bytes::Bytes;
use spec::Triggers;
use store::{Run, RunState};

use super::windows::{is_open, opens_at, shown};
use crate::{
    core::Scheduler,
    error::{Error, chain},
    settling::ended,
};

/// Looks at a run that goes on.
pub(super) async fn look_at(
    scheduler: &Scheduler,
    run: &Run,
    triggers: &Triggers,
) -> Result<(), Error> {
    if !run.trigger.reads() {
        return Ok(());
    }
    let now = scheduler.now();
    if let Some(most) = triggers.max_duration {
        let current = run.active_since.map_or(0, |since| (now - since).num_milliseconds());
        let active = Duration::from_millis(run.active_ms + u64::try_from(current).unwrap_or(0));
        if active > most {
            return stop(scheduler, run, most).await;
        }
    }
    if run.trigger.is_due()
        && !run.books.extraction_ended
        && !is_open(&triggers.windows, triggers.timezone, now)
    {
        let reason = match opens_at(&triggers.windows, triggers.timezone, now) {
            Some(opens) => {
                format!("its window has ended; it goes on at {}", shown(opens, triggers.timezone))
            }
            None => "its window has ended, and none follows".to_owned(),
        };
        if let Some(run) = scheduler.store().pause_run(run.id, &reason, now).await? {
            tracing::info!(
                run.id = %run.id,
                pipeline.name = %run.pipeline,
                attempt = run.attempt,
                reason,
                "a run pauses"
            );
            mark_paused(scheduler, &run).await;
            scheduler.tell(run.id);
        }
    }
    Ok(())
}

/// Tells the extractors that are in the middle of a part of the run.
pub(super) async fn mark_paused(scheduler: &Scheduler, run: &Run) {
    if scheduler.is_known_to_be_paused(run.id, run.attempt) {
        return;
    }
    let key = format!("{}.{}.paused", run.id, run.attempt);
    match scheduler.bus().key_value(Bucket::Progress).put(&key, Bytes::new()).await {
        Ok(()) => scheduler.know_to_be_paused(run.id, run.attempt),
        Err(error) => tracing::warn!(
            run.id = %run.id,
            error = chain(&error),
            "a paused run is read on until the broker is back"
        ),
    }
}

async fn stop(scheduler: &Scheduler, run: &Run, most: Duration) -> Result<(), Error> {
    let reason = format!("it was going for longer than `max_duration`, {} s", most.as_secs());
    let hint = "raise `max_duration`, or find out what is slow; the next run goes on from here";
    let now = scheduler.now();
    let run = scheduler.store().end_run(run.id, RunState::Failed, &reason, hint, now).await?;
    if run.ended_at == Some(now) {
        ended(scheduler, &run).await;
    }
    Ok(())
}
