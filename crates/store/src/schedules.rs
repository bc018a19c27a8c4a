//! Which due times of a pipeline are taken care of. Any number of schedulers may look at the same
//! time: one of them takes what is due, in one transaction with the runs or with the record that they
//! are skipped.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use model::{PipelineName, RunId};

use crate::{
    Error, NewRun, Run, RunState, Store,
    database::{Pool, Tx},
    runs::get,
    runs::insert,
    value::args,
};

/// Up to where the due times of a pipeline are taken care of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The triggers for which the rest holds, as text.
    pub triggers: String,
    /// Intervals are counted from here.
    pub anchor_at: DateTime<Utc>,
    /// Every due time up to here has its run or is recorded as skipped.
    pub handled_until: DateTime<Utc>,
    /// By pipeline, until when its successes have had their effect.
    pub after_seen: BTreeMap<PipelineName, DateTime<Utc>>,
}

/// Due times that do not take place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The first of them.
    pub first: DateTime<Utc>,
    /// The last of them.
    pub last: DateTime<Utc>,
    /// Their number.
    pub number: u64,
    /// Why, in one sentence.
    pub reason: String,
    /// Names what is in their way: due times with the same cause share a record. `None`: a record of
    /// their own.
    pub cause: Option<String>,
}

/// What a scheduler takes of what is due.
#[derive(Debug, Clone)]
pub struct Taken<'a> {
    /// The schedule that it saw; `None`: there was none.
    pub seen: Option<&'a Schedule>,
    /// The schedule from now on.
    pub then: &'a Schedule,
    /// Runs that wait from now on. One whose due key exists already is left out.
    pub runs: Vec<NewRun>,
    /// What does not take place, described by a run that it would have been.
    pub skips: Vec<(Skip, NewRun)>,
}

#[derive(sqlx::FromRow)]
struct Row {
    pipeline: String,
    triggers: String,
    anchor_at: DateTime<Utc>,
    handled_until: DateTime<Utc>,
    after_seen: String,
}

impl TryFrom<Row> for Schedule {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let seen: BTreeMap<String, DateTime<Utc>> = serde_json::from_str(&row.after_seen)
            .map_err(|error| Error::unreadable("schedules.after_seen", error))?;
        let after_seen = seen.into_iter().map(|(name, until)| {
            let name =
                name.parse().map_err(|error| Error::unreadable("schedules.after_seen", error))?;
            Ok((name, until))
        });
        Ok(Self {
            triggers: row.triggers,
            anchor_at: row.anchor_at,
            handled_until: row.handled_until,
            after_seen: after_seen.collect::<Result<_, Error>>()?,
        })
    }
}

impl Store {
    /// Returns the schedules of all pipelines that have one.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn schedules(&self) -> Result<BTreeMap<PipelineName, Schedule>, Error> {
        let rows: Vec<Row> = self
            .pool
            .fetch(
                "select pipeline, triggers, anchor_at, handled_until, after_seen from schedules",
                args![],
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let name = row
                    .pipeline
                    .parse()
                    .map_err(|error| Error::unreadable("schedules.pipeline", error))?;
                Ok((name, row.try_into()?))
            })
            .collect()
    }

    /// Returns when the last run of a pipeline that read its source and succeeded has ended.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn last_success(
        &self,
        pipeline: &PipelineName,
    ) -> Result<Option<DateTime<Utc>>, Error> {
        let row: Option<(Option<DateTime<Utc>>,)> = self
            .pool
            .fetch_optional(
                "select ended_at from runs where pipeline = $1 and state = 'succeeded' \
                 and trigger_kind not in ('push', 'replay') \
                 order by started_at desc, id desc limit 1",
                args![pipeline],
            )
            .await?;
        Ok(row.and_then(|(ended_at,)| ended_at))
    }

    /// Returns the time of the database server, which is the same for all who use it. A database
    /// that is a file has the clock of the machine.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn clock(&self) -> Result<DateTime<Utc>, Error> {
        match &self.pool {
            Pool::Postgres(pool) => {
                Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(pool).await?)
            }
            Pool::Sqlite(_) => Ok(Utc::now()),
        }
    }

    /// Takes what is due and returns the runs that wait for a place now.
    ///
    /// # Errors
    ///
    /// [`Error::NotDue`] when the schedule is not as it was seen: somebody else has taken it. As
    /// [`Store::create_run`] otherwise.
    pub async fn take_due(
        &self,
        pipeline: &PipelineName,
        taken: &Taken<'_>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Run>, Error> {
        let mut tx = self.pool.begin().await?;
        move_schedule(&mut tx, pipeline, taken).await?;
        for (skip, new) in &taken.skips {
            record_skip(&mut tx, skip, new, now).await?;
        }
        let mut runs = Vec::new();
        for new in &taken.runs {
            match insert(&mut tx, new, RunState::Waiting, now).await {
                Ok(id) => runs.push(get(&mut tx, id).await?),
                Err(Error::NotDue(_) | Error::StillRunning { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        tx.commit().await?;
        Ok(runs)
    }
}

async fn move_schedule(
    tx: &mut Tx,
    pipeline: &PipelineName,
    taken: &Taken<'_>,
) -> Result<(), Error> {
    let then = taken.then;
    let seen: BTreeMap<&str, &DateTime<Utc>> =
        then.after_seen.iter().map(|(name, until)| (name.as_str(), until)).collect();
    let after_seen = serde_json::to_string(&seen).expect("names and times can be written");
    let arguments = args![pipeline, &then.triggers, then.anchor_at, then.handled_until, after_seen];
    let stored: Vec<Row> = tx
        .fetch_locked(
            "select pipeline, triggers, anchor_at, handled_until, after_seen from schedules \
             where pipeline = $1",
            args![pipeline],
        )
        .await?;
    let stored = stored.into_iter().next().map(Schedule::try_from).transpose()?;
    if stored.as_ref() != taken.seen {
        return Err(Error::NotDue(pipeline.clone()));
    }
    let sql = if stored.is_none() {
        "insert into schedules (pipeline, triggers, anchor_at, handled_until, after_seen) \
         values ($1, $2, $3, $4, $5) on conflict do nothing"
    } else {
        "update schedules set triggers = $2, anchor_at = $3, handled_until = $4, \
         after_seen = $5 where pipeline = $1"
    };
    if tx.execute(sql, arguments).await? == 0 {
        return Err(Error::NotDue(pipeline.clone()));
    }
    Ok(())
}

/// Records that due times do not take place, together with earlier ones of the same cause.
async fn record_skip(
    tx: &mut Tx,
    skip: &Skip,
    new: &NewRun,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if let Some(cause) = &skip.cause {
        let more = tx
            .execute(
                "update runs set skipped = skipped + $3, skipped_until = $4, ended_at = $5 \
                 where pipeline = $1 and blocked_by = $2 and state = 'skipped'",
                args![&new.pipeline, cause, skip.number, skip.last, now],
            )
            .await?;
        if more > 0 {
            return Ok(());
        }
    }
    tx.execute(
        "insert into runs (id, pipeline, revision, trigger_kind, state, attempt, started_at, \
         ended_at, reason, extraction_base, attempt_base, full_read, confirm_loss, \
         accepted_fields, last_progress_at, planned, due_at, skipped, skipped_until, \
         blocked_by, priority) \
         values ($1, $2, $3, $4, 'skipped', 1, $5, $5, $6, 0, 0, false, false, '[]', $5, false, \
         $7, $8, $9, $10, $11)",
        args![
            RunId::generate(),
            &new.pipeline,
            new.revision,
            new.trigger.as_str(),
            now,
            &skip.reason,
            skip.first,
            skip.number,
            skip.last,
            skip.cause.clone(),
            u32::from(new.priority)
        ],
    )
    .await?;
    Ok(())
}
