use std::time::Duration;

use bus::KeyValue;
use model::RunId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use stage::Failure;

/// The read cursor of a part: everything before it is acknowledged by JetStream and in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Where to go on.
    pub(crate) cursor: String,
    /// Index of the next batch.
    pub(crate) sequence: u32,
    /// Position of the last record before the cursor.
    pub(crate) position: u64,
}

/// Key of the read cursor of a part.
pub(crate) fn part_key(run: RunId, attempt: u32, part: u32) -> String {
    format!("{run}.{attempt}.{part}")
}

/// Key of the parts that were found for a run.
pub(crate) fn plan_key(run: RunId, attempt: u32) -> String {
    format!("{run}.{attempt}.plan")
}

/// Key that is there once the run has ended before its time, so that nothing more is to be read.
pub(crate) fn ended_key(run: RunId) -> String {
    format!("{run}.ended")
}

/// Key that is there once an attempt of a run pauses, so that nothing more is to be read for it.
pub(crate) fn paused_key(run: RunId, attempt: u32) -> String {
    format!("{run}.{attempt}.paused")
}

/// How often somebody who reads a part looks whether its run has ended or pauses.
const CHECK: Duration = Duration::from_secs(1);

/// Waits until the run has been ended before its time.
pub(crate) async fn ended(bucket: &KeyValue, run: RunId) {
    let key = ended_key(run);
    // A broker that is away holds the whole part up, so there is nothing to say about it here.
    while !matches!(bucket.get(&key).await, Ok(Some(_))) {
        tokio::time::sleep(CHECK).await;
    }
}

/// Tells whether an attempt of a run pauses. Where the broker cannot say so, it does not.
pub(crate) async fn is_paused(bucket: &KeyValue, run: RunId, attempt: u32) -> bool {
    matches!(bucket.get(&paused_key(run, attempt)).await, Ok(Some(_)))
}

/// Waits until an attempt of a run pauses.
pub(crate) async fn paused(bucket: &KeyValue, run: RunId, attempt: u32) {
    while !is_paused(bucket, run, attempt).await {
        tokio::time::sleep(CHECK).await;
    }
}

/// Returns what an earlier delivery of the same task has left behind. What cannot be read counts as
/// nothing: the task then starts over, which is harmless.
pub(crate) async fn load<T: DeserializeOwned>(
    bucket: &KeyValue,
    key: &str,
) -> Result<Option<T>, Failure> {
    let Some(value) = bucket.get(key).await? else { return Ok(None) };
    Ok(serde_json::from_slice(&value)
        .inspect_err(|error| tracing::warn!(key, %error, "progress cannot be read"))
        .ok())
}

/// Stores what a later delivery of the same task needs.
pub(crate) async fn store<T: Serialize>(
    bucket: &KeyValue,
    key: &str,
    value: &T,
) -> Result<(), Failure> {
    let value = serde_json::to_vec(value).expect("progress consists of texts and numbers");
    Ok(bucket.put(key, value).await?)
}
