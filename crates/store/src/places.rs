//! Places for runs: one run of a pipeline goes on at a time, and as many on a connection as may.

use chrono::{DateTime, Utc};
use model::{PipelineName, RunId};

use crate::{
    Error, NewRun, Run, RunState, Store,
    database::Tx,
    run::select_run,
    runs::{extraction_base, get, insert, insert_targets, lock, why_not},
    value::args,
};

impl Store {
    /// Returns the runs that wait or pause, in the order in which they get a place.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn runs_without_a_place(&self) -> Result<Vec<Run>, Error> {
        let sql = select_run!(
            "where state in ('waiting', 'paused') \
             order by priority desc, coalesce(due_at, started_at), id"
        );
        let rows = self.pool.fetch(sql, args![]).await?;
        self.with_targets(rows).await
    }

    /// Creates a run that waits.
    ///
    /// # Errors
    ///
    /// [`Error::NotDue`] where a run with the same due key exists; [`Error::Changed`] where the
    /// revision is not the current one; [`Error::NoPipeline`].
    pub async fn create_waiting_run(&self, new: &NewRun, now: DateTime<Utc>) -> Result<Run, Error> {
        let mut tx = self.pool.begin().await?;
        let id = match insert(&mut tx, new, RunState::Waiting, now).await {
            Err(Error::StillRunning { pipeline, .. }) => return Err(Error::NotDue(pipeline)),
            outcome => outcome?,
        };
        let run = get(&mut tx, id).await?;
        tx.commit().await?;
        Ok(run)
    }

    /// Begins a run that waits, as `new` describes it now, and returns it.
    ///
    /// # Errors
    ///
    /// [`Error::NotDue`] where it does not wait any more; [`Error::StillRunning`] while another run of
    /// the pipeline is going; [`Error::NoPlace`] while its connection is full; [`Error::Changed`] where
    /// the revision is not the current one; [`Error::NoRun`].
    pub async fn begin_waiting_run(
        &self,
        id: RunId,
        new: &NewRun,
        now: DateTime<Utc>,
    ) -> Result<Run, Error> {
        let mut tx = self.pool.begin().await?;
        take_place(&mut tx, new.connection.as_ref(), new.places).await?;
        let current: Vec<(i64,)> = tx
            .fetch_locked(
                "select revision from pipelines where name = $1 and deleted_at is null",
                args![&new.pipeline],
            )
            .await?;
        match current.first() {
            None => return Err(Error::NoPipeline(new.pipeline.clone())),
            Some((revision,)) if *revision != i64::from(new.revision) => {
                return Err(Error::Changed(new.pipeline.clone()));
            }
            Some(_) => {}
        }
        if lock(&mut tx, id).await? != RunState::Waiting {
            return Err(Error::NotDue(new.pipeline.clone()));
        }
        if is_going(&mut tx, &new.pipeline).await? {
            return Err(why_not(&mut tx, &new.pipeline).await?);
        }
        let base = extraction_base(&mut tx, &new.pipeline, now).await?;
        tx.execute(
            "update runs set state = 'running', reason = '', revision = $2, full_read = $3, \
             started_at = $4, active_since = $4, last_progress_at = $4, extraction_base = $5, \
             attempt_base = $5 where id = $1",
            args![id, new.revision, new.full, now, base],
        )
        .await?;
        insert_targets(&mut tx, id, new).await?;
        let run = get(&mut tx, id).await?;
        tx.commit().await?;
        Ok(run)
    }

    /// Tells why a run waits. Nothing changes where it does not wait any more.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn tell_why_it_waits(&self, id: RunId, reason: &str) -> Result<(), Error> {
        self.pool
            .execute(
                "update runs set reason = $2 \
                 where id = $1 and state = 'waiting' and reason <> $2",
                args![id, reason],
            )
            .await?;
        Ok(())
    }
}

/// Waits until nobody else gives places, for the rest of the transaction.
async fn lock_places(tx: &mut Tx) -> Result<(), Error> {
    tx.fetch_locked::<(i64,)>("select id from admissions where id = 1", args![]).await?;
    Ok(())
}

/// Takes a place on a connection for a run that is about to go on in this transaction.
pub(crate) async fn take_place(
    tx: &mut Tx,
    connection: Option<&PipelineName>,
    places: Option<u32>,
) -> Result<(), Error> {
    let (Some(connection), Some(places)) = (connection, places) else { return Ok(()) };
    lock_places(tx).await?;
    if going_on(tx, connection).await? < i64::from(places) {
        Ok(())
    } else {
        Err(Error::NoPlace(connection.clone()))
    }
}

/// Tells whether a new run may begin at once: its connection has a place and nobody waits for it.
pub(crate) async fn has_place_for(tx: &mut Tx, new: &NewRun) -> Result<bool, Error> {
    let (Some(connection), Some(places)) = (&new.connection, new.places) else { return Ok(true) };
    lock_places(tx).await?;
    // A run of the same pipeline is in the way in any case, and says so.
    if is_going(tx, &new.pipeline).await? {
        return Ok(true);
    }
    let waiting: Vec<(i64,)> = tx
        .fetch(
            "select count(*) from runs where connection = $1 and state = 'waiting' \
             and priority >= $2",
            args![connection, u32::from(new.priority)],
        )
        .await?;
    Ok(waiting == [(0,)] && going_on(tx, connection).await? < i64::from(places))
}

async fn going_on(tx: &mut Tx, connection: &PipelineName) -> Result<i64, Error> {
    let going: Vec<(i64,)> = tx
        .fetch(
            "select count(*) from runs where connection = $1 and state = 'running' \
             and trigger_kind not in ('push', 'replay')",
            args![connection],
        )
        .await?;
    Ok(going.first().map_or(0, |(number,)| *number))
}

async fn is_going(tx: &mut Tx, pipeline: &PipelineName) -> Result<bool, Error> {
    let going: Vec<(i64,)> = tx
        .fetch(
            "select count(*) from runs where pipeline = $1 and state in ('running', 'paused') \
             and trigger_kind <> 'push'",
            args![pipeline],
        )
        .await?;
    Ok(going != [(0,)])
}
