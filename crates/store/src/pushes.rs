//! Runs that account for what was pushed in a span of time. The first stage that speaks of one brings
//! it about, so entries may also come after its end.

use chrono::{DateTime, Utc};
use model::{PipelineName, RunId};

use crate::{Error, Store, SweepState, Trigger, ending::forget, value::args};

/// A run that accounts for pushes.
#[derive(Debug, Clone)]
pub struct NewPushRun {
    /// Its id, which is made of the rest.
    pub id: RunId,
    /// Name of the pipeline.
    pub pipeline: PipelineName,
    /// Its revision, current or not.
    pub revision: u32,
    /// Beginning of the span of time.
    pub window_starts_at: DateTime<Utc>,
    /// Its end.
    pub window_ends_at: DateTime<Utc>,
    /// Names of the targets, in the pipeline's order.
    pub targets: Vec<String>,
}

impl Store {
    /// Creates a run of pushes unless it exists.
    ///
    /// # Errors
    ///
    /// When the database does not answer, or there is no such pipeline.
    pub async fn open_push_run(&self, new: &NewPushRun, now: DateTime<Utc>) -> Result<(), Error> {
        let mut tx = self.pool.begin().await?;
        let base = new.window_starts_at.timestamp_nanos_opt().unwrap_or(0);
        let due_key = format!("push {}", new.id);
        let inserted = tx
            .execute(
                "insert into runs (id, pipeline, revision, trigger_kind, due_key, state, attempt, \
                 started_at, extraction_base, attempt_base, full_read, confirm_loss, \
                 accepted_fields, last_progress_at, planned, active_since, window_ends_at) \
                 values ($1, $2, $3, $4, $5, 'running', 1, $6, $7, $7, false, false, '[]', $8, true, \
                 $6, $9) \
                 on conflict do nothing",
                args![
                    new.id,
                    &new.pipeline,
                    new.revision,
                    Trigger::Push.as_str(),
                    due_key,
                    new.window_starts_at,
                    base,
                    now,
                    new.window_ends_at
                ],
            )
            .await?;
        if inserted > 0 {
            let targets = new
                .targets
                .iter()
                .enumerate()
                .map(|(position, target)| {
                    args![new.id, position as u64, target, SweepState::None.as_str()]
                })
                .collect();
            tx.insert("insert into run_targets (run_id, position, target, sweep)", targets, "")
                .await?;
        }
        tx.commit().await
    }

    /// Returns the end of the span of time of a run of pushes; `None` for other runs, and once
    /// nothing can be added to its books.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn push_window_end(&self, id: RunId) -> Result<Option<DateTime<Utc>>, Error> {
        let row: Option<(Option<DateTime<Utc>>,)> = self
            .pool
            .fetch_optional("select window_ends_at from runs where id = $1", args![id])
            .await?;
        Ok(row.and_then(|(end,)| end))
    }

    /// Forgets what each stage did with each batch of runs of pushes that have ended before `before`.
    /// Their books stay as sums, and nothing can be added to them any more.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn forget_push_runs(&self, before: DateTime<Utc>) -> Result<u64, Error> {
        let ended: Vec<(String,)> = self
            .pool
            .fetch(
                "select id from runs where window_ends_at is not null and ended_at < $1",
                args![before],
            )
            .await?;
        for (id,) in &ended {
            let mut tx = self.pool.begin().await?;
            let locked: Vec<(String,)> = tx
                .fetch_locked(
                    "select id from runs where id = $1 and window_ends_at is not null \
                     and ended_at < $2",
                    args![id, before],
                )
                .await?;
            if locked.is_empty() {
                continue;
            }
            let id = id.parse().map_err(|error| Error::unreadable("runs.id", error))?;
            forget(&mut tx, id).await?;
            tx.commit().await?;
        }
        Ok(ended.len() as u64)
    }
}
