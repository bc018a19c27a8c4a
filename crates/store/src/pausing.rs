//! A run pauses at the end of its window and goes on in the next one.

use chrono::{DateTime, Utc};
use model::RunId;

use crate::{
    Error, HandedOut, LoadedCursor, Run, RunState, Store,
    attempts::void_after_chains,
    places::take_place,
    runs::{extraction_base, get, lock},
    settle::settle,
    value::args,
};

impl Store {
    /// Pauses a run that is going and has not read its source to the end. What is on its way is still
    /// recorded. `None` where there is nothing to pause.
    ///
    /// # Errors
    ///
    /// [`Error::NoRun`] where there is none of that id.
    pub async fn pause_run(
        &self,
        id: RunId,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<Run>, Error> {
        let mut tx = self.pool.begin().await?;
        if lock(&mut tx, id).await? != RunState::Running {
            return Ok(None);
        }
        settle(&mut tx, id, now).await?;
        let run = get(&mut tx, id).await?;
        let paused = !run.books.extraction_ended && run.trigger.reads();
        if paused {
            let active_ms = run.active_ms + active_ms(&run, now);
            tx.execute(
                "update runs set state = 'paused', reason = $2, active_since = null, \
                 active_ms = $3 where id = $1",
                args![id, reason, active_ms],
            )
            .await?;
        }
        let run = get(&mut tx, id).await?;
        tx.commit().await?;
        Ok(paused.then_some(run))
    }

    /// Has a paused run go on: with a new attempt from where it is loaded, or, if its source turned
    /// out to be read to the end, as it is, which gives `None`.
    ///
    /// # Errors
    ///
    /// [`Error::NotDue`] where it does not pause any more; [`Error::NoPlace`] while its connection is
    /// full; [`Error::NoRun`].
    pub async fn resume_run(
        &self,
        id: RunId,
        places: Option<u32>,
        now: DateTime<Utc>,
    ) -> Result<Option<HandedOut>, Error> {
        let mut tx = self.pool.begin().await?;
        let seen = get(&mut tx, id).await?;
        take_place(&mut tx, seen.connection.as_ref(), places).await?;
        if lock(&mut tx, id).await? != RunState::Paused {
            return Err(Error::NotDue(seen.pipeline));
        }
        settle(&mut tx, id, now).await?;
        let run = get(&mut tx, id).await?;
        tx.execute(
            "update runs set state = 'running', reason = '', active_since = $2, \
             last_progress_at = $2 where id = $1",
            args![id, now],
        )
        .await?;
        if run.books.extraction_ended {
            tx.commit().await?;
            return Ok(None);
        }
        void_after_chains(&mut tx, id, run.attempt).await?;
        let base = extraction_base(&mut tx, &run.pipeline, now).await?;
        tx.execute(
            "update runs set attempt = attempt + 1, attempt_base = $2, planned = false, \
             extraction_ended = false where id = $1",
            args![id, base],
        )
        .await?;
        settle(&mut tx, id, now).await?;
        let run = get(&mut tx, id).await?;
        let own: Vec<(String, String)> = tx
            .fetch(
                "select part, cursor_text from run_cursors where run_id = $1 order by part",
                args![id],
            )
            .await?;
        // Parts that the run did not come to yet begin as they would have.
        let others: Vec<(String, String)> = if run.full || run.range.is_some() {
            Vec::new()
        } else {
            tx.fetch(
                "select part, cursor_text from cursors where pipeline = $1 \
                 and part not in (select part from run_cursors where run_id = $2) order by part",
                args![&run.pipeline, id],
            )
            .await?
        };
        tx.commit().await?;
        let resumed = !own.is_empty();
        let full = run.full && !resumed;
        let cursors = own.into_iter().chain(others);
        let cursors = cursors.map(|(part, cursor)| LoadedCursor { part, cursor }).collect();
        Ok(Some(HandedOut { run, cursors, full, resumed }))
    }
}

fn active_ms(run: &Run, now: DateTime<Utc>) -> u64 {
    let since = run.active_since.map_or(0, |since| (now - since).num_milliseconds());
    u64::try_from(since).unwrap_or(0)
}
