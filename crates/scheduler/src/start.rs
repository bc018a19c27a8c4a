use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use model::PipelineName;
use spec::{Mode, Pipeline, Revision};
use store::{HandedOut, NewRun, NewRunTarget, Range, Run, RunState, Trigger};

use crate::{accept, catalog, core::Scheduler, error::Error, infer, tasks::publish_plan};

/// How often a run is tried to be started while its pipeline is being changed.
const TRIES: usize = 3;

/// How a run is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) trigger: Trigger,
    pub(crate) due_key: Option<String>,
    pub(crate) due_at: Option<DateTime<Utc>>,
    pub(crate) full: bool,
    pub(crate) confirm_loss: bool,
    pub(crate) accept_fields: Vec<String>,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) range: Option<Range>,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            trigger: Trigger::Manual,
            due_key: None,
            due_at: None,
            full: false,
            confirm_loss: false,
            accept_fields: Vec::new(),
            parameters: BTreeMap::new(),
            range: None,
        }
    }
}

/// Starts a run of the current revision, or has it wait for a place on its connection.
pub(crate) async fn start(
    scheduler: &Scheduler,
    name: &PipelineName,
    asked: Start,
) -> Result<Run, Error> {
    let mut tries = 0;
    let (run, revision) = loop {
        tries += 1;
        match create(scheduler, name, asked.clone()).await {
            Err(Error::Store(store::Error::Changed(_))) if tries < TRIES => {}
            outcome => break outcome?,
        }
    };
    match run.state {
        RunState::Waiting => {
            tracing::info!(
                run.id = %run.id,
                pipeline.name = %run.pipeline,
                "a run waits for a place on its connection"
            );
            scheduler.tell(run.id);
            scheduler.look_soon();
            Ok(run)
        }
        RunState::Running
        | RunState::Paused
        | RunState::Succeeded
        | RunState::Failed
        | RunState::Cancelled
        | RunState::Skipped => {
            hand_out(scheduler, &run, &revision).await?;
            Ok(run)
        }
    }
}

/// Begins a run that waits, with the current revision.
pub(crate) async fn begin(scheduler: &Scheduler, run: &Run) -> Result<(), Error> {
    let asked = Start {
        trigger: run.trigger,
        full: run.full,
        confirm_loss: run.confirm_loss,
        accept_fields: run.accepted_fields.clone(),
        ..Start::default()
    };
    let (new, revision) = prepare(scheduler, &run.pipeline, asked).await?;
    let run = scheduler.store().begin_waiting_run(run.id, &new, scheduler.now()).await?;
    hand_out(scheduler, &run, &revision).await
}

/// Makes sure that the schema of a pipeline is known.
pub(crate) async fn learn_schema(scheduler: &Scheduler, name: &PipelineName) -> Result<(), Error> {
    let stored = scheduler.store().pipeline(name).await?;
    let stored = stored.ok_or_else(|| store::Error::NoPipeline(name.clone()))?;
    infer::with_schema(scheduler, stored.revision).await.map(drop)
}

/// Runs that may go on at once on a connection; `None`: any number.
pub(crate) async fn places(
    scheduler: &Scheduler,
    connection: Option<&PipelineName>,
) -> Result<Option<u32>, Error> {
    let Some(connection) = connection else { return Ok(None) };
    let found = scheduler.store().connection(connection).await?;
    Ok(found.map(|connection| connection.concurrent_runs))
}

async fn hand_out(scheduler: &Scheduler, run: &Run, revision: &Revision) -> Result<(), Error> {
    tracing::info!(
        run.id = %run.id,
        pipeline.name = %run.pipeline,
        revision = run.revision,
        trigger = %run.trigger,
        "a run has started"
    );
    // The stages wait for a revision that they do not know yet, and it is restored if this fails.
    if let Err(error) = catalog::put(scheduler, revision, true).await {
        tracing::warn!(%error, "a revision could not be put into the broker yet");
    }
    let everything = run.full || run.range.is_some();
    let cursors = if everything {
        Vec::new()
    } else {
        scheduler.store().loaded_cursors(&run.pipeline).await?
    };
    let handed_out = HandedOut { run: run.clone(), cursors, full: run.full, resumed: false };
    publish_plan(scheduler, handed_out);
    scheduler.tell(run.id);
    Ok(())
}

async fn create(
    scheduler: &Scheduler,
    name: &PipelineName,
    asked: Start,
) -> Result<(Run, Revision), Error> {
    let (new, revision) = prepare(scheduler, name, asked).await?;
    let run = scheduler.store().create_run(&new, scheduler.now()).await?;
    Ok((run, revision))
}

async fn prepare(
    scheduler: &Scheduler,
    name: &PipelineName,
    asked: Start,
) -> Result<(NewRun, Revision), Error> {
    let stored = scheduler.store().pipeline(name).await?;
    let stored = stored.ok_or_else(|| store::Error::NoPipeline(name.clone()))?;
    let revision = infer::with_schema(scheduler, stored.revision).await?;
    let revision = accept::accept(scheduler, revision, &asked.accept_fields).await?;
    let pipeline = scheduler.parsed(&revision)?;
    if asked.range.is_some() && !pipeline.source.has_ranges() {
        return Err(Error::NoRange(name.clone()));
    }
    let places = places(scheduler, pipeline.connection.as_ref()).await?;
    Ok((new_run(&revision, &pipeline, asked, places), revision))
}

pub(crate) fn new_run(
    revision: &Revision,
    pipeline: &Pipeline,
    asked: Start,
    places: Option<u32>,
) -> NewRun {
    let snapshot = |mode| match mode {
        Mode::Snapshot { .. } => true,
        Mode::Upsert | Mode::Append => false,
    };
    // A replay sends what was read before, and a backfill reads a range: nothing can be said about
    // what is gone.
    let whole = asked.trigger.reads() && asked.trigger != Trigger::Backfill;
    NewRun {
        pipeline: revision.name.clone(),
        revision: revision.revision,
        trigger: asked.trigger,
        due_key: asked.due_key,
        due_at: asked.due_at,
        connection: pipeline.connection.clone(),
        places,
        priority: pipeline.triggers.priority,
        parameters: asked.parameters,
        range: asked.range,
        full: whole && (asked.full || pipeline.targets.iter().any(|t| snapshot(t.mode))),
        confirm_loss: asked.confirm_loss,
        accepted_fields: asked.accept_fields,
        targets: pipeline
            .targets
            .iter()
            .map(|target| NewRunTarget {
                name: target.name.to_string(),
                sweep: whole && snapshot(target.mode),
            })
            .collect(),
    }
}
