use chrono::{DateTime, Utc};
use model::RunId;

use crate::{Error, Store, SweepState, notes::note, value::args};

impl Store {
    /// Marks the sweep of a target as handed out, if nobody else has since it was handed out
    /// `seen_attempt` times. Returns how often it was handed out now.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn issue_sweep(
        &self,
        run: RunId,
        target: &str,
        seen_attempt: u32,
        now: DateTime<Utc>,
    ) -> Result<Option<u32>, Error> {
        let mut tx = self.pool.begin().await?;
        let issued = tx
            .execute(
                "update run_targets set sweep = 'issued', sweep_attempt = sweep_attempt + 1 \
                 where run_id = $1 and target = $2 and sweep_attempt = $3 \
                 and sweep in ('pending', 'issued')",
                args![run, target, seen_attempt],
            )
            .await?;
        if issued > 0 {
            tx.execute("update runs set last_progress_at = $2 where id = $1", args![run, now])
                .await?;
        }
        tx.commit().await?;
        Ok((issued > 0).then_some(seen_attempt + 1))
    }

    /// Leaves the sweep of a target out and says why in a note.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn withhold_sweep(
        &self,
        run: RunId,
        target: &str,
        why: &str,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let mut tx = self.pool.begin().await?;
        tx.execute(
            "update run_targets set sweep = $3 \
             where run_id = $1 and target = $2 and sweep = 'pending'",
            args![run, target, SweepState::Withheld.as_str()],
        )
        .await?;
        note(&mut tx, run, "scheduler", why, now).await?;
        tx.commit().await
    }
}
