use std::collections::HashMap;

use chrono::{DateTime, Utc};
use model::{PipelineName, RunId};

use crate::{
    Error, NewRun, Run, RunState, Store, SweepState,
    database::Tx,
    ending::{Ending, end},
    places,
    run::{RunRow, TargetRow, select_run, select_target},
    settle::settle,
    value::args,
};

impl Store {
    /// Creates a run. It waits if its connection has no place for it, or others wait there already.
    ///
    /// Its extraction time is later than all that earlier runs of the pipeline gave to a record.
    ///
    /// # Errors
    ///
    /// [`Error::StillRunning`] while another run of the pipeline is going; [`Error::NotDue`] where
    /// a run with the same due key exists; [`Error::Changed`] where the revision is not the current
    /// one; [`Error::NoPipeline`].
    pub async fn create_run(&self, new: &NewRun, now: DateTime<Utc>) -> Result<Run, Error> {
        let mut tx = self.pool.begin().await?;
        let state = if places::has_place_for(&mut tx, new).await? {
            RunState::Running
        } else {
            RunState::Waiting
        };
        let id = insert(&mut tx, new, state, now).await?;
        let run = get(&mut tx, id).await?;
        tx.commit().await?;
        Ok(run)
    }

    /// Returns a run.
    ///
    /// # Errors
    ///
    /// [`Error::NoRun`] where there is none of that id.
    pub async fn run(&self, id: RunId) -> Result<Run, Error> {
        let row: Option<RunRow> =
            self.pool.fetch_optional(select_run!("where id = $1"), args![id]).await?;
        self.with_targets(row.into_iter().collect()).await?.pop().ok_or(Error::NoRun(id))
    }

    /// Returns at most `limit` runs, newest first.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn runs(
        &self,
        pipeline: Option<&PipelineName>,
        limit: u32,
    ) -> Result<Vec<Run>, Error> {
        let rows = match pipeline {
            Some(pipeline) => {
                let sql =
                    select_run!("where pipeline = $1 order by started_at desc, id desc limit $2");
                self.pool.fetch(sql, args![pipeline, limit]).await?
            }
            None => {
                let sql = select_run!("order by started_at desc, id desc limit $1");
                self.pool.fetch(sql, args![limit]).await?
            }
        };
        self.with_targets(rows).await
    }

    /// Returns the runs that are going on.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn running_runs(&self) -> Result<Vec<Run>, Error> {
        let rows =
            self.pool.fetch(select_run!("where state = 'running' order by id"), args![]).await?;
        self.with_targets(rows).await
    }

    /// Returns the runs that have not ended, whether they go on, wait or pause.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn open_runs(&self) -> Result<Vec<Run>, Error> {
        let sql = select_run!("where state in ('waiting', 'running', 'paused') order by id");
        let rows = self.pool.fetch(sql, args![]).await?;
        self.with_targets(rows).await
    }

    /// Counts the runs by state.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn count_runs(&self) -> Result<Vec<(RunState, u64)>, Error> {
        let rows: Vec<(String, i64)> =
            self.pool.fetch("select state, count(*) from runs group by state", args![]).await?;
        rows.into_iter()
            .map(|(state, number)| Ok((state.parse()?, number.unsigned_abs())))
            .collect()
    }

    /// Returns the newest run of a pipeline that reads its source and took place.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn last_reading_run(&self, pipeline: &PipelineName) -> Result<Option<Run>, Error> {
        let sql = select_run!(
            "where pipeline = $1 and trigger_kind not in ('replay', 'push') \
             and state not in ('waiting', 'skipped') \
             order by started_at desc, id desc limit 1"
        );
        let rows = self.pool.fetch(sql, args![pipeline]).await?;
        Ok(self.with_targets(rows).await?.pop())
    }

    /// Returns the newest runs of a pipeline that have asked its source for news, started by a user, the
    /// time or other runs, that took place and have ended, newest first.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn polls(&self, pipeline: &PipelineName, limit: u32) -> Result<Vec<Run>, Error> {
        let sql = select_run!(
            "where pipeline = $1 and state in ('succeeded', 'failed') \
             and trigger_kind in ('manual', 'interval', 'cron', 'after', 'continuous') \
             order by started_at desc, id desc limit $2"
        );
        let rows = self.pool.fetch(sql, args![pipeline, limit]).await?;
        self.with_targets(rows).await
    }

    /// Brings the books of a run up to date with its ledger and returns it. A run that has ended is
    /// returned as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NoRun`] where there is none of that id.
    pub async fn settle_run(&self, id: RunId, now: DateTime<Utc>) -> Result<Run, Error> {
        let mut tx = self.pool.begin().await?;
        if lock(&mut tx, id).await?.is_going() {
            settle(&mut tx, id, now).await?;
        }
        let run = get(&mut tx, id).await?;
        tx.commit().await?;
        Ok(run)
    }

    /// Ends a run, unless it has ended, and returns it.
    ///
    /// # Errors
    ///
    /// [`Error::NoRun`] where there is none of that id.
    pub async fn end_run(
        &self,
        id: RunId,
        state: RunState,
        reason: &str,
        hint: &str,
        now: DateTime<Utc>,
    ) -> Result<Run, Error> {
        let mut tx = self.pool.begin().await?;
        end(&mut tx, id, &Ending { state, reason, hint }, now).await?;
        let run = get(&mut tx, id).await?;
        tx.commit().await?;
        Ok(run)
    }

    pub(crate) async fn with_targets(&self, rows: Vec<RunRow>) -> Result<Vec<Run>, Error> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<String> = (1..=rows.len()).map(|place| format!("${place}")).collect();
        let sql = format!(
            "{} ({}) order by run_id, position",
            select_target!("where run_id in"),
            places.join(", ")
        );
        let ids = rows.iter().map(|row| row.id().into()).collect();
        let mut targets: HashMap<String, Vec<_>> = HashMap::new();
        for row in self.pool.fetch::<TargetRow>(sql, ids).await? {
            targets.entry(row.run_id.clone()).or_default().push(row.into_books()?);
        }
        rows.into_iter()
            .map(|row| {
                let targets = targets.remove(row.id()).unwrap_or_default();
                row.into_run(targets)
            })
            .collect()
    }
}

/// Locks a run for the rest of the transaction and returns its state.
pub(crate) async fn lock(tx: &mut Tx, id: RunId) -> Result<RunState, Error> {
    let states: Vec<(String,)> =
        tx.fetch_locked("select state from runs where id = $1", args![id]).await?;
    match states.first() {
        Some((state,)) => state.parse(),
        None => Err(Error::NoRun(id)),
    }
}

pub(crate) async fn get(tx: &mut Tx, id: RunId) -> Result<Run, Error> {
    let row: RunRow = tx
        .fetch_optional(select_run!("where id = $1"), args![id])
        .await?
        .ok_or(Error::NoRun(id))?;
    let targets: Vec<TargetRow> =
        tx.fetch(select_target!("where run_id = $1 order by position"), args![id]).await?;
    row.into_run(targets.into_iter().map(TargetRow::into_books).collect::<Result<_, _>>()?)
}

/// Inserts a run, unless another one of the pipeline is going or it exists. One that waits has no
/// targets yet and may stand beside others.
pub(crate) async fn insert(
    tx: &mut Tx,
    new: &NewRun,
    state: RunState,
    now: DateTime<Utc>,
) -> Result<RunId, Error> {
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
    let id = RunId::generate();
    let base = extraction_base(tx, &new.pipeline, now).await?;
    let accepted = serde_json::to_string(&new.accepted_fields).expect("texts can be written");
    let parameters = serde_json::to_string(&new.parameters).expect("texts can be written");
    let runs = state == RunState::Running;
    let range = new.range.clone().unwrap_or_default();
    let inserted = tx
        .execute(
            "insert into runs (id, pipeline, revision, trigger_kind, due_key, state, attempt, \
             started_at, extraction_base, attempt_base, full_read, confirm_loss, \
             accepted_fields, last_progress_at, planned, due_at, connection, priority, \
             parameters, range_from, range_to, active_since) \
             values ($1, $2, $3, $4, $5, $11, 1, $6, $7, $7, $8, $9, $10, $6, false, \
             $12, $13, $14, $15, $16, $17, $18) \
             on conflict do nothing",
            args![
                id,
                &new.pipeline,
                new.revision,
                new.trigger.as_str(),
                new.due_key.clone(),
                now,
                base,
                new.full,
                new.confirm_loss,
                accepted,
                state.as_str(),
                new.due_at,
                new.connection.as_ref().map(ToString::to_string),
                u32::from(new.priority),
                parameters,
                range.from,
                range.to,
                runs.then_some(now)
            ],
        )
        .await?;
    if inserted == 0 {
        return Err(why_not(tx, &new.pipeline).await?);
    }
    if runs {
        insert_targets(tx, id, new).await?;
    }
    Ok(id)
}

/// Inserts the targets of a run that begins.
pub(crate) async fn insert_targets(tx: &mut Tx, id: RunId, new: &NewRun) -> Result<(), Error> {
    let targets = new
        .targets
        .iter()
        .enumerate()
        .map(|(position, target)| {
            let sweep = if target.sweep { SweepState::Pending } else { SweepState::None };
            args![id, position as u64, &target.name, sweep.as_str()]
        })
        .collect();
    tx.insert("insert into run_targets (run_id, position, target, sweep)", targets, "").await?;
    Ok(())
}

/// Tells why a run cannot begin: another one of the pipeline is going, or it exists.
pub(crate) async fn why_not(tx: &mut Tx, pipeline: &PipelineName) -> Result<Error, Error> {
    let running: Option<(String,)> = tx
        .fetch_optional(
            "select id from runs where pipeline = $1 and state in ('running', 'paused') \
             and trigger_kind <> 'push'",
            args![pipeline],
        )
        .await?;
    Ok(match running {
        Some((run,)) => Error::StillRunning {
            pipeline: pipeline.clone(),
            run: run.parse().map_err(|error| Error::unreadable("runs.id", error))?,
        },
        None => Error::NotDue(pipeline.clone()),
    })
}

/// The time of the next extraction: now, but later than any that the pipeline had before.
pub(crate) async fn extraction_base(
    tx: &mut Tx,
    pipeline: &PipelineName,
    now: DateTime<Utc>,
) -> Result<i64, Error> {
    let end: Option<(i64,)> = tx
        .fetch_optional("select extraction_end from clocks where pipeline = $1", args![pipeline])
        .await?;
    let now = now.timestamp_nanos_opt().unwrap_or(i64::MAX);
    Ok(end.map_or(now, |(end,)| now.max(end.saturating_add(1))))
}
