use chrono::{DateTime, Utc};
use model::{PipelineName, RunId};

use crate::{
    Error, NewRun, Run, RunState, Selection, Store,
    runs::{get, insert, lock},
    value::args,
};

/// A refused record that a replay sends out again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayable {
    /// Id in the quarantine.
    pub id: i64,
    /// Target that refused it; empty: a stage before the targets did.
    pub target: String,
    /// A batch message that holds this record alone.
    pub contents: Vec<u8>,
}

/// A batch of records that go out again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayBatch {
    /// Its id.
    pub batch: String,
    /// Index in the attempt.
    pub sequence: u32,
    /// The target it is meant for; `None`: it goes through all steps and to all targets.
    pub only_target: Option<String>,
    /// Ids of its records in the quarantine.
    pub ids: Vec<i64>,
}

impl Store {
    /// Returns the pipelines that have refused records of the selection that could be replayed.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn pipelines_to_replay(
        &self,
        selection: &Selection,
    ) -> Result<Vec<PipelineName>, Error> {
        let (condition, arguments) = selection.condition(1);
        let sql = format!(
            "select distinct pipeline from quarantine where contents is not null \
             and replay_run is null and {condition} order by pipeline"
        );
        let rows: Vec<(String,)> = self.pool.fetch(sql, arguments).await?;
        rows.into_iter()
            .map(|(name,)| {
                name.parse().map_err(|error| Error::unreadable("quarantine.pipeline", error))
            })
            .collect()
    }

    /// Creates a run that replays the selected records of its pipeline, and returns their number.
    /// `None` where there are none that could be replayed: a record that was never parsed comes
    /// back only from its source.
    ///
    /// # Errors
    ///
    /// As [`Store::create_run`].
    pub async fn create_replay(
        &self,
        new: &NewRun,
        selection: &Selection,
        now: DateTime<Utc>,
    ) -> Result<Option<(Run, u64)>, Error> {
        let mut tx = self.pool.begin().await?;
        let id = insert(&mut tx, new, RunState::Running, now).await?;
        let (condition, selected) = selection.condition(3);
        let mut arguments = args![id, &new.pipeline];
        arguments.extend(selected);
        let records = tx
            .execute(
                format!(
                    "update quarantine set replay_run = $1 where pipeline = $2 \
                     and contents is not null and replay_run is null and {condition}"
                ),
                arguments,
            )
            .await?;
        if records == 0 {
            return Ok(None);
        }
        let run = get(&mut tx, id).await?;
        tx.commit().await?;
        Ok(Some((run, records)))
    }

    /// Returns at most `limit` records of a replay that are in no batch yet, by target.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn replayable(&self, run: RunId, limit: u32) -> Result<Vec<Replayable>, Error> {
        let rows: Vec<(i64, String, Option<Vec<u8>>)> = self
            .pool
            .fetch(
                "select id, target, contents from quarantine \
                 where replay_run = $1 and replay_batch is null order by target, id limit $2",
                args![run, limit],
            )
            .await?;
        Ok(rows
            .into_iter()
            .map(|(id, target, contents)| Replayable {
                id,
                target,
                contents: contents.unwrap_or_default(),
            })
            .collect())
    }

    /// Enters a batch of replayed records in the books, before it is published. Returns whether the
    /// attempt is still the current one; if not, somebody else goes on with the replay.
    ///
    /// # Errors
    ///
    /// [`Error::NoRun`] where there is none of that id.
    pub async fn register_replay_batch(
        &self,
        run: RunId,
        attempt: u32,
        batch: &ReplayBatch,
        now: DateTime<Utc>,
    ) -> Result<bool, Error> {
        let mut tx = self.pool.begin().await?;
        if lock(&mut tx, run).await? != RunState::Running
            || get(&mut tx, run).await?.attempt != attempt
        {
            return Ok(false);
        }
        tx.execute(
            "insert into batches (run_id, attempt, batch, part, sequence, cursor_before, \
             cursor_after, records, quarantined, only_target, voided) \
             values ($1, $2, $3, 0, $4, '', '', $5, 0, $6, false) on conflict do nothing",
            args![
                run,
                attempt,
                &batch.batch,
                batch.sequence,
                batch.ids.len() as u64,
                batch.only_target.clone()
            ],
        )
        .await?;
        if batch.only_target.is_some() {
            // The records are shaped for the target already, so no transformer sees them.
            tx.execute(
                "insert into transforms (run_id, attempt, batch, filtered, quarantined) \
                 values ($1, $2, $3, 0, 0) on conflict do nothing",
                args![run, attempt, &batch.batch],
            )
            .await?;
        }
        let (condition, ids) =
            Selection { ids: batch.ids.clone(), ..Selection::default() }.condition(3);
        let mut arguments = args![run, &batch.batch];
        arguments.extend(ids);
        tx.execute(
            format!(
                "update quarantine set replay_batch = $2 where replay_run = $1 and {condition}"
            ),
            arguments,
        )
        .await?;
        tx.execute("update runs set last_progress_at = $2 where id = $1", args![run, now]).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Takes records out of a replay; they stay in the quarantine.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn leave_out_of_replay(&self, run: RunId, ids: &[i64]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let (condition, ids) = Selection { ids: ids.to_vec(), ..Selection::default() }.condition(2);
        let mut arguments = args![run];
        arguments.extend(ids);
        self.pool
            .execute(
                format!(
                    "update quarantine set replay_run = null where replay_run = $1 and {condition}"
                ),
                arguments,
            )
            .await?;
        Ok(())
    }

    /// Says that all records of a replay are in batches.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn replay_is_planned(
        &self,
        run: RunId,
        attempt: u32,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        self.pool
            .execute(
                "update runs set planned = true, last_progress_at = $3 \
                 where id = $1 and attempt = $2 and state = 'running'",
                args![run, attempt, now],
            )
            .await?;
        Ok(())
    }
}
