//! Sends webhooks again that were delivered: the last one of each record, as the loaders remember it.
//!
//! It is set aside as if it had not been delivered, so that it goes out as a replay, in the order of
//! the key, and is tried again as others are.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use bus::{Bucket, KeyValue};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use model::PipelineName;
use spec::{Delivered, TargetSystem, UNDELIVERED};
use store::{NewQuarantined, Selection};

use crate::{
    core::Scheduler,
    error::Error,
    replay::{self, Replayed},
    sealing,
};

/// Keys that are read at the same time.
const READ: usize = 32;
/// Records that are set aside in one transaction.
const GROUP: usize = 500;

/// Which webhooks; all conditions must hold.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// To this target.
    pub(crate) target: Option<String>,
    /// Whose record has this key.
    pub(crate) key: Option<String>,
    /// That were delivered at this time or later.
    pub(crate) since: Option<DateTime<Utc>>,
}

/// A receiver whose webhooks are kept.
struct Receiver {
    target: PipelineName,
    waits: Vec<Duration>,
    kept_since: DateTime<Utc>,
}

/// Has webhooks of a pipeline sent again that were delivered, and returns how many were not asked for
/// before. While a run of the pipeline is going they go behind it, and the answer names no run.
pub(crate) async fn resend(
    scheduler: &Scheduler,
    pipeline: &PipelineName,
    wanted: &Wanted,
) -> Result<Replayed, Error> {
    if wanted.key.is_none() && wanted.since.is_none() {
        return Err(Error::Request("name the record's key, or since when".to_owned()));
    }
    let receivers = receivers(scheduler, pipeline, wanted).await?;
    let mut records = Vec::new();
    for receiver in &receivers {
        records.extend(ask_again(scheduler, pipeline, receiver, wanted).await?);
    }
    if records.is_empty() {
        return Err(Error::NothingDelivered);
    }
    let mut number = 0;
    sealing::seal(scheduler, &mut records).await?;
    while !records.is_empty() {
        let rest = records.split_off(records.len().min(GROUP));
        number += scheduler.store().quarantine(records, scheduler.now()).await?;
        records = rest;
    }
    let mut resent = Replayed { records: number, runs: Vec::new() };
    for receiver in receivers {
        let selection = Selection {
            pipeline: Some(pipeline.clone()),
            target: Some(receiver.target.to_string()),
            code: Some(UNDELIVERED.to_owned()),
            due_at: Some(scheduler.now()),
            ..Selection::default()
        };
        match replay::replay(scheduler, &selection).await {
            Ok(replayed) => resent.runs.extend(replayed.runs),
            // They are due, and go behind the run that is going.
            Err(Error::Store(store::Error::StillRunning { .. }) | Error::NothingToReplay) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(resent)
}

async fn receivers(
    scheduler: &Scheduler,
    pipeline: &PipelineName,
    wanted: &Wanted,
) -> Result<Vec<Receiver>, Error> {
    let stored = scheduler.store().pipeline(pipeline).await?;
    let stored = stored.ok_or_else(|| store::Error::NoPipeline(pipeline.clone()))?;
    let parsed = scheduler.parsed(&stored.revision)?;
    let is_wanted =
        |name: &PipelineName| wanted.target.as_deref().is_none_or(|t| t == name.as_str());
    let receivers: Vec<Receiver> = parsed
        .targets
        .iter()
        .filter(|target| is_wanted(&target.name))
        .filter_map(|target| match &target.system {
            TargetSystem::Webhook(webhook) => Some(Receiver {
                target: target.name.clone(),
                waits: [&[Duration::ZERO], &webhook.retry[1..]].concat(),
                kept_since: scheduler.now() - webhook.keep_delivered,
            }),
            TargetSystem::Postgres { .. } | TargetSystem::Sqlite { .. } | TargetSystem::Http(_) => {
                None
            }
        })
        .collect();
    if receivers.is_empty() {
        return Err(Error::Request(format!("pipeline `{pipeline}` has no such webhook target")));
    }
    Ok(receivers)
}

/// Marks what is wanted of a receiver, and returns it as records that are set aside.
async fn ask_again(
    scheduler: &Scheduler,
    pipeline: &PipelineName,
    receiver: &Receiver,
    wanted: &Wanted,
) -> Result<Vec<NewQuarantined>, Error> {
    let bucket = scheduler.bus().key_value(Bucket::Sent);
    let any = spec::delivered_key(pipeline.as_str(), receiver.target.as_str(), "");
    let (before, behind) = any.split_at(any.len() - ".delivered".len());
    let of_receiver = |key: &String| key.starts_with(before) && key.ends_with(behind);
    let keys = bucket.keys().await?.into_iter().filter(of_receiver);
    let found: Vec<Option<Delivered>> = stream::iter(keys)
        .map(|key| mark(&bucket, key, receiver, wanted))
        .buffer_unordered(READ)
        .try_collect()
        .await?;
    let records = found.into_iter().flatten().filter_map(|delivered| {
        let contents = BASE64_STANDARD.decode(&delivered.message).ok()?;
        let header = wire::decode(contents.clone().into()).ok()?.header;
        Some(NewQuarantined {
            pipeline: pipeline.clone(),
            revision: header.revision,
            // Of no run: it is the same request, however often it is made until it is met.
            run: String::new(),
            stage: "loader".to_owned(),
            target: receiver.target.to_string(),
            record: delivered.record,
            code: UNDELIVERED.to_owned(),
            message: "it was delivered, and is sent again because somebody asked for it".to_owned(),
            step: String::new(),
            field: String::new(),
            contents: Some(contents),
            raw: None,
            waits: Some(receiver.waits.clone()),
        })
    });
    Ok(records.collect())
}

/// Marks what was delivered for a key, if it is wanted.
async fn mark(
    bucket: &KeyValue,
    key: String,
    receiver: &Receiver,
    wanted: &Wanted,
) -> Result<Option<Delivered>, Error> {
    loop {
        let found = bucket.read(&key).await?;
        let Some(delivered) =
            found.value.and_then(|value| serde_json::from_slice::<Delivered>(&value).ok())
        else {
            return Ok(None);
        };
        let at = DateTime::from_timestamp_millis(delivered.at_ms).unwrap_or_default();
        let is_wanted = wanted.key.as_ref().is_none_or(|key| *key == delivered.key)
            && at >= receiver.kept_since
            && wanted.since.is_none_or(|since| at >= since);
        if !is_wanted {
            return Ok(None);
        }
        let delivered = Delivered { again: true, ..delivered };
        let value = serde_json::to_vec(&delivered).expect("texts and numbers can be written");
        if bucket.replace(&key, value, found.revision).await?.is_some() {
            return Ok(Some(delivered));
        }
    }
}
