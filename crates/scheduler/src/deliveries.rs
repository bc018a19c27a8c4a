//! Webhooks that were not delivered are sent again, as replays, and a receiver that takes none for too
//! long is disabled.

use std::time::Duration;

use bus::Bucket;
use bytes::Bytes;
use model::PipelineName;
use spec::{TargetSystem, UNDELIVERED, WebhookTarget};
use store::{NewQuarantined, Receiver, Selection};

use crate::{
    core::Scheduler,
    error::{Error, chain},
    replay::{self, Replayed},
};

/// Tells when refused records that are deliveries are sent again.
pub(crate) async fn plan(scheduler: &Scheduler, records: &mut [NewQuarantined]) {
    for record in records.iter_mut().filter(|record| record.code == UNDELIVERED) {
        match receiver(scheduler, &record.pipeline, &record.target).await {
            // The loader made the attempts before the first wait, and behind it.
            Ok(Some(webhook)) => record.waits = Some(webhook.retry[1..].to_vec()),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = chain(&error), "a delivery is not sent again by itself");
            }
        }
    }
}

/// Returns the declaration of a receiver; `None`: the pipeline has no such receiver any more.
async fn receiver(
    scheduler: &Scheduler,
    pipeline: &PipelineName,
    target: &str,
) -> Result<Option<Box<WebhookTarget>>, Error> {
    let Some(stored) = scheduler.store().pipeline(pipeline).await? else { return Ok(None) };
    let parsed = scheduler.parsed(&stored.revision)?;
    let target = parsed.targets.iter().find(|found| found.name.as_str() == target);
    Ok(target.and_then(|target| match &target.system {
        TargetSystem::Webhook(webhook) => Some(webhook.clone()),
        TargetSystem::Postgres { .. } | TargetSystem::Sqlite { .. } | TargetSystem::Http(_) => None,
    }))
}

/// Sends again what is due, and disables receivers that take nothing.
pub(crate) async fn round(scheduler: &Scheduler) -> Result<(), Error> {
    let now = scheduler.now();
    for known in scheduler.store().receivers().await? {
        if known.disabled_at.is_some() || disable(scheduler, &known).await? {
            continue;
        }
        if known.next_attempt_at.is_some_and(|at| at <= now) {
            resend_due(scheduler, &known.pipeline, &known.target).await?;
        }
    }
    Ok(())
}

/// Sends again what is due for the receivers of a pipeline whose run has just ended, before its next
/// run begins.
pub(crate) async fn after_run(scheduler: &Scheduler, pipeline: &PipelineName) -> Result<(), Error> {
    let now = scheduler.now();
    for known in scheduler.store().receivers().await? {
        let is_due = known.next_attempt_at.is_some_and(|at| at <= now);
        if known.pipeline == *pipeline && is_due && known.disabled_at.is_none() {
            resend_due(scheduler, pipeline, &known.target).await?;
        }
    }
    Ok(())
}

async fn resend_due(
    scheduler: &Scheduler,
    pipeline: &PipelineName,
    target: &str,
) -> Result<(), Error> {
    let selection = Selection {
        pipeline: Some(pipeline.clone()),
        target: Some(target.to_owned()),
        code: Some(UNDELIVERED.to_owned()),
        due_at: Some(scheduler.now()),
        ..Selection::default()
    };
    match replay::replay(scheduler, &selection).await {
        Ok(Replayed { records, .. }) => {
            tracing::info!(pipeline.name = %pipeline, target, records, "webhooks are sent again");
            Ok(())
        }
        // They go behind the run that is going, or somebody else has taken them.
        Err(Error::Store(store::Error::StillRunning { .. }) | Error::NothingToReplay) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Disables a receiver to which nothing got through for too long, and tells whether it did.
async fn disable(scheduler: &Scheduler, known: &Receiver) -> Result<bool, Error> {
    let Receiver { pipeline, target, failing_since: Some(since), .. } = known else {
        return Ok(false);
    };
    let Some(webhook) = receiver(scheduler, pipeline, target).await? else { return Ok(false) };
    let now = scheduler.now();
    let failing = (now - *since).to_std().unwrap_or(Duration::ZERO);
    if failing < webhook.disable_after
        || scheduler.store().has_loaded_since(pipeline, target, *since).await?
    {
        return Ok(false);
    }
    let bucket = scheduler.bus().key_value(Bucket::Sent);
    let key = spec::disabled_key(pipeline, &target.parse()?);
    bucket.put(&key, Bytes::from_static(b"disabled")).await?;
    if scheduler.store().disable_receiver(pipeline, target, now).await? {
        tracing::error!(
            pipeline.name = %pipeline, target, reason = known.reason,
            "the receiver is disabled: nothing got through for too long; mend it, then run \
             `tributary deliveries enable`"
        );
    }
    Ok(true)
}

/// Has a receiver called again. Tells whether it was disabled.
pub(crate) async fn enable(
    scheduler: &Scheduler,
    pipeline: &PipelineName,
    target: &PipelineName,
) -> Result<bool, Error> {
    let bucket = scheduler.bus().key_value(Bucket::Sent);
    bucket.put(&spec::disabled_key(pipeline, target), Bytes::new()).await?;
    let store = scheduler.store();
    Ok(store.enable_receiver(pipeline, target.as_str(), scheduler.now()).await?)
}
