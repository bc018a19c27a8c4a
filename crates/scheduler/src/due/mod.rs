//! Runs that start by themselves: what is due, who gets a place, what pauses, what takes too long.
//!
//! - `times`, `windows`, `decide`: the rules, without a clock and without a database
//! - `chains`: who follows whom
//! - `going`: runs that go on, at the end of their window and of their patience
//! - `placing`: runs that wait or pause, and get a place
//!
//! Every scheduler looks at everything. What is due is taken in one transaction that fails for all
//! but one of them.

mod chains;
mod decide;
mod going;
mod placing;
mod times;
mod windows;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use model::PipelineName;
use spec::{Pipeline, Revision};
use store::{NewRun, Run, RunState, Schedule, Taken, Trigger};

pub(crate) use self::chains::problems as chain_problems;
use self::{
    decide::{Decision, Situation, decide},
    times::Times,
    windows::is_open,
};
use crate::{
    core::Scheduler,
    error::{Error, chain},
    settling::ended,
    start::{self, Start},
};

/// Least time between two looks.
const LEAST_REST: Duration = Duration::from_millis(20);
/// A due time is missed if nobody looked for so long, or for three looks.
const ON_TIME: Duration = Duration::from_secs(60);
/// Least time between two runs of a continuous pipeline.
const BREATH: TimeDelta = TimeDelta::seconds(1);
/// Time after a failed run of a continuous pipeline.
const RECOVERY: TimeDelta = TimeDelta::seconds(10);

/// Looks until shutdown.
pub(crate) async fn run(scheduler: Scheduler) -> anyhow::Result<()> {
    loop {
        // Waiting for a broker or a database that is away must not hold up the shutdown.
        let rest = tokio::select! {
            () = scheduler.shutdown().cancelled() => return Ok(()),
            rest = look(&scheduler) => rest,
        };
        let rest = rest.unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "due runs cannot be started, trying again soon");
            scheduler.config().reconcile_interval
        });
        tokio::select! {
            () = scheduler.shutdown().cancelled() => return Ok(()),
            () = scheduler.asked_to_look() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// What is known of all pipelines in one look.
struct Look {
    schedules: BTreeMap<PipelineName, Schedule>,
    open: Vec<Run>,
}

impl Look {
    fn of<'a>(&'a self, name: &'a PipelineName) -> impl Iterator<Item = &'a Run> {
        self.open.iter().filter(move |run| run.pipeline == *name && run.trigger != Trigger::Push)
    }
}

/// Looks at everything once. Returns how long nothing is expected to be due.
async fn look(scheduler: &Scheduler) -> Result<Duration, Error> {
    scheduler.set_clock().await?;
    let store = scheduler.store();
    let look = Look { schedules: store.schedules().await?, open: store.open_runs().await? };
    let mut rest = scheduler.config().reconcile_interval;
    for stored in store.pipelines().await? {
        let revision = stored.revision;
        let Ok(pipeline) = scheduler.parsed(&revision) else { continue };
        match look_at(scheduler, &look, &revision, &pipeline).await {
            Ok(next) => {
                let next = next.map(|next| (next - scheduler.now()).to_std().unwrap_or_default());
                rest = rest.min(next.unwrap_or(rest));
            }
            // Another scheduler was faster.
            Err(Error::Store(store::Error::NotDue(_) | store::Error::Changed(_))) => {}
            Err(error) => tracing::warn!(
                pipeline.name = %revision.name,
                error = chain(&error),
                "what is due cannot be taken yet"
            ),
        }
    }
    placing::give_places(scheduler).await?;
    Ok(rest.max(LEAST_REST))
}

/// Takes what is due of one pipeline. Returns when something is due next.
async fn look_at(
    scheduler: &Scheduler,
    look: &Look,
    revision: &Revision,
    pipeline: &Arc<Pipeline>,
) -> Result<Option<DateTime<Utc>>, Error> {
    let (name, triggers) = (&revision.name, &pipeline.triggers);
    // What is declared now holds, also for a run of an earlier revision.
    for run in look.of(name).filter(|run| run.state == RunState::Running) {
        going::look_at(scheduler, run, triggers).await?;
    }
    let now = scheduler.now();
    if is_continuous(pipeline) {
        return follow_on(scheduler, look, revision, pipeline, now).await;
    }
    let mut successes = BTreeMap::new();
    for other in &triggers.after {
        if let Some(at) = scheduler.store().last_success(other).await? {
            successes.insert(other.clone(), at);
        }
    }
    let schedule = look.schedules.get(name);
    let decision = decide(&Situation {
        pipeline: name,
        triggers,
        schedule,
        successes: &successes,
        going: look.of(name).find(|run| run.state.is_going()).map(|run| run.id.to_string()),
        waiting: look.of(name).filter(|run| run.state == RunState::Waiting).count(),
        now,
        on_time: ON_TIME.max(scheduler.config().reconcile_interval * 3),
    });
    let then = match decision {
        Some(decision) => {
            let then = decision.then.clone();
            take(scheduler, look, revision, pipeline, decision).await?;
            Some(then)
        }
        None => schedule.cloned(),
    };
    Ok(then.and_then(|then| {
        let times = Times { pipeline: name, triggers, anchor: then.anchor_at };
        times.next(then.handled_until.max(now)).map(|time| time.at)
    }))
}

/// Stores what was decided.
async fn take(
    scheduler: &Scheduler,
    look: &Look,
    revision: &Revision,
    pipeline: &Pipeline,
    decision: Decision,
) -> Result<(), Error> {
    let new = |trigger, due_at, due_key| due_run(revision, pipeline, trigger, due_at, due_key);
    let taken = Taken {
        seen: look.schedules.get(&revision.name),
        then: &decision.then,
        runs: decision
            .runs
            .into_iter()
            .map(|due| new(due.trigger, Some(due.at), Some(due.key)))
            .collect(),
        skips: decision
            .skips
            .into_iter()
            .map(|(skip, trigger)| (skip, new(trigger, None, None)))
            .collect(),
    };
    let number: u64 = taken.skips.iter().map(|(skip, _)| skip.number).sum();
    let runs = scheduler.store().take_due(&revision.name, &taken, scheduler.now()).await?;
    if number > 0 {
        let reason = taken.skips.last().map_or("", |(skip, _)| skip.reason.as_str());
        tracing::info!(
            pipeline.name = %revision.name, number, reason, "due runs were skipped"
        );
    }
    for run in runs {
        tracing::debug!(run.id = %run.id, pipeline.name = %run.pipeline, "a run is due");
        scheduler.tell(run.id);
    }
    if decision.cancel {
        give_way(scheduler, look, &revision.name).await?;
    }
    Ok(())
}

/// Ends the older runs of a pipeline for one that is due.
async fn give_way(
    scheduler: &Scheduler,
    look: &Look,
    pipeline: &PipelineName,
) -> Result<(), Error> {
    for older in look.of(pipeline).filter(|run| run.trigger.reads()) {
        let state = match older.state {
            RunState::Waiting => RunState::Skipped,
            RunState::Running
            | RunState::Paused
            | RunState::Succeeded
            | RunState::Failed
            | RunState::Cancelled
            | RunState::Skipped => RunState::Cancelled,
        };
        let now = scheduler.now();
        let run =
            scheduler.store().end_run(older.id, state, "a newer run was due", "", now).await?;
        if run.ended_at == Some(now) {
            ended(scheduler, &run).await;
        }
    }
    Ok(())
}

/// Tells whether a run of the pipeline follows the other. Change capture does unless something else is
/// declared.
pub(crate) fn is_continuous(pipeline: &Pipeline) -> bool {
    let triggers = &pipeline.triggers;
    let captures = match &pipeline.source {
        spec::Source::Postgres(postgres) => postgres.capture.is_some(),
        spec::Source::Csv(_)
        | spec::Source::Json(_)
        | spec::Source::Sqlite(_)
        | spec::Source::Http(_)
        | spec::Source::Push => false,
    };
    let declared =
        triggers.every.is_some() || !triggers.cron.is_empty() || !triggers.after.is_empty();
    triggers.continuous || (captures && !declared)
}

/// Has a run follow the last one.
async fn follow_on(
    scheduler: &Scheduler,
    look: &Look,
    revision: &Revision,
    pipeline: &Pipeline,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, Error> {
    let triggers = &pipeline.triggers;
    if look.of(&revision.name).next().is_some()
        || !is_open(&triggers.windows, triggers.timezone, now)
    {
        return Ok(None);
    }
    let last = scheduler.store().last_reading_run(&revision.name).await?;
    let (key, earliest) = match last {
        None => ("continuous".to_owned(), now),
        Some(last) => {
            let ended_at = last.ended_at.unwrap_or(last.started_at);
            let earliest = match last.state {
                RunState::Failed => ended_at + RECOVERY,
                RunState::Waiting
                | RunState::Running
                | RunState::Paused
                | RunState::Succeeded
                | RunState::Cancelled
                | RunState::Skipped => last.started_at + BREATH,
            };
            (format!("continuous after {}", last.id), earliest)
        }
    };
    if earliest > now {
        return Ok(Some(earliest));
    }
    let new = due_run(revision, pipeline, Trigger::Continuous, Some(now), Some(key));
    let run = scheduler.store().create_waiting_run(&new, now).await?;
    scheduler.tell(run.id);
    Ok(None)
}

fn due_run(
    revision: &Revision,
    pipeline: &Pipeline,
    trigger: Trigger,
    due_at: Option<DateTime<Utc>>,
    due_key: Option<String>,
) -> NewRun {
    let asked = Start { trigger, due_at, due_key, ..Start::default() };
    start::new_run(revision, pipeline, asked, None)
}
