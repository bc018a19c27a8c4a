use std::{collections::BTreeMap, time::Duration};

use model::{Limit, Quota};

use super::document::Document;
use crate::{Bucket, Bus, BusError};

/// How a quota stands.
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaUse {
    /// What is declared.
    pub quota: Quota,
    /// The limits with their use.
    pub limits: Vec<LimitUse>,
    /// Calls that were handed out and have not ended.
    pub outstanding: u64,
    /// Calls that wait, by pipeline.
    pub waiting: BTreeMap<String, u64>,
    /// Processes that hold or want something.
    pub processes: u64,
    /// How long until all that wait now have been handed out, as far as it can be told.
    pub estimate: Option<Duration>,
    /// How long no call is made because the peer wants it so.
    pub paused: Option<Duration>,
    /// Calls that the peer leaves until its reset, if it has said so.
    pub left: Option<u64>,
    /// Share of the limits that the peer seems to take, 0 to 1; 1 if the quota is not adaptive.
    pub share: f64,
    /// Calls since the quota was made.
    pub calls: u64,
    /// Of these, refused by the peer for being too many.
    pub refused: u64,
}

/// How a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitUse {
    /// The limit.
    pub limit: Limit,
    /// Calls that count at this moment.
    pub used: u64,
}

impl Bus {
    /// Makes a quota known, or changes it; what was used stays used. `is_new` says that it was
    /// never known before; otherwise one of which the broker knows nothing is taken to be used up.
    /// `now_micros` is the time of day in microseconds.
    ///
    /// # Errors
    ///
    /// When the broker does not answer for the configured patience.
    pub async fn declare_quota(
        &self,
        name: &str,
        quota: &Quota,
        is_new: bool,
        now_micros: i64,
    ) -> Result<(), BusError> {
        let bucket = self.key_value(Bucket::Quotas);
        loop {
            let found = bucket.read(name).await?;
            let document = match found.value.as_deref().map(serde_json::from_slice::<Document>) {
                Some(Ok(document)) if document.quota == *quota => return Ok(()),
                Some(Ok(mut document)) => {
                    document.declare(quota.clone());
                    document
                }
                Some(Err(_)) | None => {
                    let mut document = Document::new(quota.clone(), now_micros);
                    // A quota that was removed is new when it comes back.
                    if !is_new && found.revision == 0 {
                        document.use_up(now_micros, i64::MAX);
                    }
                    document
                }
            };
            let value = serde_json::to_vec(&document).expect("a document has texts as keys");
            if bucket.replace(name, value, found.revision).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Removes a quota. Calls that wait for it fail a little later.
    ///
    /// # Errors
    ///
    /// As [`Bus::declare_quota`].
    pub async fn remove_quota(&self, name: &str) -> Result<(), BusError> {
        self.key_value(Bucket::Quotas).delete(name).await
    }

    /// Returns how a quota stands; `None` where the broker knows none of that name. `now_micros` is
    /// the time of day in microseconds.
    ///
    /// # Errors
    ///
    /// As [`Bus::declare_quota`], and when a later version has written the quota.
    pub async fn quota_use(
        &self,
        name: &str,
        now_micros: i64,
    ) -> Result<Option<QuotaUse>, BusError> {
        let Some(value) = self.key_value(Bucket::Quotas).get(name).await? else { return Ok(None) };
        let document = serde_json::from_slice::<Document>(&value)
            .map_err(|error| BusError::new(format!("read the quota `{name}`"), error))?;
        Ok(Some(stand(document, now_micros)))
    }
}

fn stand(document: Document, now_micros: i64) -> QuotaUse {
    let now = document.time.max(now_micros - document.ahead);
    let count = |calls: i64| u64::try_from(calls).unwrap_or(0);
    let until = |time: i64| Duration::from_micros(count(time - now));
    let waiting: BTreeMap<String, u64> =
        document.waiting(now).into_iter().map(|(name, calls)| (name.to_owned(), calls)).collect();
    let all = i64::try_from(waiting.values().sum::<u64>()).unwrap_or(i64::MAX);
    let limits = document.uses(now).map(|(limit, used)| LimitUse { limit, used: count(used) });
    QuotaUse {
        limits: limits.collect(),
        outstanding: count(document.outstanding()),
        processes: document.owners(now) as u64,
        estimate: (all > 0).then(|| document.estimate(all, now)).flatten().map(until),
        paused: (document.peer.paused_until > now).then(|| until(document.peer.paused_until)),
        left: document.peer.left(now).map(count),
        share: document.peer.share,
        calls: document.handed_out,
        refused: document.peer.refused,
        waiting,
        quota: document.quota,
    }
}
