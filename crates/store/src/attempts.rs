//! A run whose work was lost is handed out again.

use chrono::{DateTime, Utc};
use model::RunId;

use crate::{
    Error, LoadedCursor, Run, RunState, Store, Trigger,
    database::Tx,
    ending::{Ending, end},
    runs::{extraction_base, get, lock},
    settle::{done, settle},
    value::args,
};

/// A run that is handed out to the stages again.
#[derive(Debug, Clone, PartialEq)]
pub struct HandedOut {
    /// The run with its new attempt.
    pub run: Run,
    /// Where the parts of the source stand; empty for a run that reads everything.
    pub cursors: Vec<LoadedCursor>,
    /// Everything is to be read, whatever the cursors say.
    pub full: bool,
    /// The run goes on where it paused, in the middle of parts.
    pub resumed: bool,
}

impl Store {
    /// Ends a run as failed whose missing work cannot be had again, for the reason and the hint that
    /// `why` makes of it. Returns `None`, and ends nothing, if something of it was told since it was
    /// `seen`, if its books balance by now, or if it has ended.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn end_lost(
        &self,
        seen: &Run,
        why: impl FnOnce(&Run) -> (String, String),
        now: DateTime<Utc>,
    ) -> Result<Option<Run>, Error> {
        let id = seen.id;
        let mut tx = self.pool.begin().await?;
        let Some(run) = still_lost(&mut tx, seen, now).await? else {
            tx.commit().await?;
            return Ok(None);
        };
        let (reason, hint) = why(&run);
        let ending = Ending { state: RunState::Failed, reason: &reason, hint: &hint };
        end(&mut tx, id, &ending, now).await?;
        let run = get(&mut tx, id).await?;
        tx.commit().await?;
        Ok(Some(run))
    }

    /// Makes a new attempt of a run whose work was lost, unless it has moved since it was `seen`.
    ///
    /// What is not loaded is extracted again, and no longer counts as it was.
    ///
    /// # Errors
    ///
    /// [`Error::NoRun`] where there is none of that id.
    pub async fn hand_out_again(
        &self,
        seen: &Run,
        now: DateTime<Utc>,
    ) -> Result<Option<HandedOut>, Error> {
        let id = seen.id;
        let mut tx = self.pool.begin().await?;
        let Some(run) = still_lost(&mut tx, seen, now).await? else {
            tx.commit().await?;
            return Ok(None);
        };
        match (run.trigger, run.full) {
            (Trigger::Replay, _) => void_replay(&mut tx, id).await?,
            // What was pushed cannot be asked for again.
            (Trigger::Push, _) => return Ok(None),
            (Trigger::Backfill, _) | (_, true) => {
                tx.execute(
                    "update batches set voided = true where run_id = $1 and not voided",
                    args![id],
                )
                .await?;
            }
            (
                Trigger::Manual
                | Trigger::Interval
                | Trigger::Cron
                | Trigger::After
                | Trigger::Continuous,
                false,
            ) => {
                void_after_chains(&mut tx, id, run.attempt).await?;
            }
        }
        tx.execute("delete from run_cursors where run_id = $1", args![id]).await?;
        let base = extraction_base(&mut tx, &run.pipeline, now).await?;
        tx.execute(
            "update runs set attempt = attempt + 1, attempt_base = $2, planned = false, \
             last_progress_at = $3, extraction_ended = false where id = $1",
            args![id, base, now],
        )
        .await?;
        settle(&mut tx, id, now).await?;
        let run = get(&mut tx, id).await?;
        let cursors: Vec<(String, String)> = if run.full || run.trigger == Trigger::Backfill {
            Vec::new()
        } else {
            tx.fetch(
                "select part, cursor_text from cursors where pipeline = $1 order by part",
                args![&run.pipeline],
            )
            .await?
        };
        tx.commit().await?;
        let cursors =
            cursors.into_iter().map(|(part, cursor)| LoadedCursor { part, cursor }).collect();
        let full = run.full;
        Ok(Some(HandedOut { run, cursors, full, resumed: false }))
    }
}

/// Brings the books of a run up to date, keeps others from changing it, and returns it if it goes on, has
/// not moved since it was `seen`, and does not balance.
async fn still_lost(tx: &mut Tx, seen: &Run, now: DateTime<Utc>) -> Result<Option<Run>, Error> {
    if lock(tx, seen.id).await? != RunState::Running {
        return Ok(None);
    }
    settle(tx, seen.id, now).await?;
    let run = get(tx, seen.id).await?;
    let moved = run.attempt != seen.attempt || run.last_progress_at != seen.last_progress_at;
    Ok((!moved && !run.books.balanced).then_some(run))
}

/// Voids what lies behind the chains of loaded batches: that is extracted again.
pub(crate) async fn void_after_chains(tx: &mut Tx, id: RunId, attempt: u32) -> Result<(), Error> {
    tx.execute(
        "update batches set voided = true \
         where run_id = $1 and attempt = $2 and not voided and sequence >= coalesce(( \
             select p.loaded_batches from parts p where p.run_id = batches.run_id \
             and p.attempt = batches.attempt and p.part = batches.part), 0)",
        args![id, attempt],
    )
    .await?;
    Ok(())
}

/// Voids the batches of a replay that are not accounted for, so that their records go out again.
async fn void_replay(tx: &mut Tx, id: RunId) -> Result<(), Error> {
    tx.execute(
        concat!(
            "update batches set voided = true where run_id = $1 and not voided and batch in ( \
                 select b.batch from batches b \
                 left join transforms t on t.run_id = b.run_id and t.attempt = b.attempt \
                     and t.batch = b.batch \
                 where b.run_id = $1 and not b.voided and not ",
            done!(),
            ")"
        ),
        args![id],
    )
    .await?;
    tx.execute(
        "update quarantine set replay_batch = null \
         where replay_run = $1 and replay_batch is not null and replay_batch not in ( \
             select batch from batches where run_id = $1 and not voided)",
        args![id],
    )
    .await?;
    Ok(())
}
