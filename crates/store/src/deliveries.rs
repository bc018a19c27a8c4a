//! Webhooks that were not delivered: when they are sent again, and receivers that take none.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use model::PipelineName;

use crate::{Error, NewQuarantined, Store, database::Tx, value::args};

/// When a record is sent again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    /// How often it was set aside.
    pub(crate) attempts: i64,
    pub(crate) first_failed_at: DateTime<Utc>,
    /// `None`: not by itself any more.
    pub(crate) next_attempt_at: Option<DateTime<Utc>>,
}

/// How often a record was set aside before, and when first.
pub(crate) type Before = Option<(i64, DateTime<Utc>)>;

impl Delivery {
    pub(crate) fn after(before: Before, waits: &[Duration], now: DateTime<Utc>) -> Self {
        let (attempts, first_failed_at) =
            before.map_or((1, now), |(attempts, first)| (attempts + 1, first));
        let wait = usize::try_from(attempts - 1).ok().and_then(|index| waits.get(index));
        let next_attempt_at = wait.and_then(|wait| Some(now + TimeDelta::from_std(*wait).ok()?));
        Self { attempts, first_failed_at, next_attempt_at }
    }
}

/// Looks for the record that is being sent again and has failed anew.
pub(crate) async fn failed_before(tx: &mut Tx, record: &NewQuarantined) -> Result<Before, Error> {
    let found: Option<(i64, DateTime<Utc>)> = tx
        .fetch_optional(
            "select attempts, first_failed_at from quarantine \
             where replay_run = $1 and target = $2 and record = $3 and attempts is not null \
             order by attempts desc limit 1",
            args![&record.run, &record.target, &record.record],
        )
        .await?;
    Ok(found)
}

/// A receiver of webhooks for which some wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The target.
    pub target: String,
    /// Webhooks that are sent again by themselves.
    pub waiting: u64,
    /// Webhooks that were tried for the last time.
    pub given_up: u64,
    /// When the oldest of them failed first; `None`: there are none.
    pub failing_since: Option<DateTime<Utc>>,
    /// When the next one is sent again.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Why the newest of them failed; empty where there are none.
    pub reason: String,
    /// When the receiver was disabled.
    pub disabled_at: Option<DateTime<Utc>>,
}

type Row = (String, String, i64, i64, DateTime<Utc>, Option<DateTime<Utc>>, String);

impl Store {
    /// Returns the receivers for which webhooks wait, and those that are disabled, by name.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn receivers(&self) -> Result<Vec<Receiver>, Error> {
        let rows: Vec<Row> = self
            .pool
            .fetch(
                "select pipeline, target, \
                     count(next_attempt_at), count(*) - count(next_attempt_at), \
                     min(first_failed_at), min(next_attempt_at), \
                     (select message from quarantine n where n.pipeline = q.pipeline \
                         and n.target = q.target and n.attempts is not null \
                         order by n.id desc limit 1) \
                 from quarantine q where attempts is not null \
                 group by pipeline, target order by pipeline, target",
                args![],
            )
            .await?;
        let mut receivers = Vec::new();
        for (pipeline, target, waiting, given_up, since, next_attempt_at, reason) in rows {
            receivers.push(Receiver {
                pipeline: named(&pipeline)?,
                target,
                waiting: waiting.unsigned_abs(),
                given_up: given_up.unsigned_abs(),
                failing_since: Some(since),
                next_attempt_at,
                reason,
                disabled_at: None,
            });
        }
        let disabled: Vec<(String, String, DateTime<Utc>)> =
            self.pool.fetch("select pipeline, target, disabled_at from receivers", args![]).await?;
        for (pipeline, target, at) in disabled {
            let pipeline = named(&pipeline)?;
            let known = receivers
                .iter_mut()
                .find(|known| known.pipeline == pipeline && known.target == target);
            match known {
                Some(known) => known.disabled_at = Some(at),
                None => receivers.push(Receiver {
                    pipeline,
                    target,
                    waiting: 0,
                    given_up: 0,
                    failing_since: None,
                    next_attempt_at: None,
                    reason: String::new(),
                    disabled_at: Some(at),
                }),
            }
        }
        receivers.sort_by(|a, b| (&a.pipeline, &a.target).cmp(&(&b.pipeline, &b.target)));
        Ok(receivers)
    }

    /// Tells whether a target has loaded anything in runs that moved since.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn has_loaded_since(
        &self,
        pipeline: &PipelineName,
        target: &str,
        since: DateTime<Utc>,
    ) -> Result<bool, Error> {
        let found: Vec<(i64,)> = self
            .pool
            .fetch(
                "select count(*) from run_targets t join runs r on r.id = t.run_id \
                 where r.pipeline = $1 and t.target = $2 and t.loaded > 0 \
                 and r.started_at >= $3",
                args![pipeline, target, since],
            )
            .await?;
        Ok(found.iter().any(|(count,)| *count > 0))
    }

    /// Remembers that a receiver is disabled. Tells whether it was not before.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn disable_receiver(
        &self,
        pipeline: &PipelineName,
        target: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, Error> {
        let disabled = self
            .pool
            .execute(
                "insert into receivers (pipeline, target, disabled_at) values ($1, $2, $3) \
                 on conflict (pipeline, target) do nothing",
                args![pipeline, target, now],
            )
            .await?;
        Ok(disabled > 0)
    }

    /// Forgets that a receiver is disabled, and has what was set aside for it sent again from now on,
    /// as if it had failed for the first time. Tells whether it was disabled.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn enable_receiver(
        &self,
        pipeline: &PipelineName,
        target: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, Error> {
        let mut tx = self.pool.begin().await?;
        let enabled = tx
            .execute(
                "delete from receivers where pipeline = $1 and target = $2",
                args![pipeline, target],
            )
            .await?;
        if enabled > 0 {
            tx.execute(
                "update quarantine set attempts = 0, first_failed_at = $3, next_attempt_at = $3 \
                 where pipeline = $1 and target = $2 and attempts is not null",
                args![pipeline, target, now],
            )
            .await?;
        }
        tx.commit().await?;
        Ok(enabled > 0)
    }
}

fn named(name: &str) -> Result<PipelineName, Error> {
    name.parse().map_err(|error| Error::unreadable("quarantine.pipeline", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_each_other_until_there_is_none_left() {
        let now = DateTime::UNIX_EPOCH;
        let waits = [Duration::from_secs(300), Duration::from_secs(1_800)];
        let first = Delivery::after(None, &waits, now);
        assert_eq!(first.next_attempt_at, Some(now + TimeDelta::minutes(5)));
        let later = now + TimeDelta::minutes(6);
        let second = Delivery::after(Some((first.attempts, now)), &waits, later);
        assert_eq!(second.next_attempt_at, Some(later + TimeDelta::minutes(30)));
        let third = Delivery::after(Some((second.attempts, now)), &waits, later);
        assert_eq!((third.attempts, third.next_attempt_at), (3, None));
        assert_eq!(third.first_failed_at, now);
    }
}
