use model::PipelineName;
use spec::{Mode, Pipeline, Revision};
use store::{NewRun, NewRunTarget, Run, Trigger};

use crate::{accept, catalog, core::Scheduler, error::Error, infer, tasks::publish_plan};

/// How often a run is tried to be started while its pipeline is being changed.
const TRIES: usize = 3;

/// How a run is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) trigger: Trigger,
    pub(crate) due_key: Option<String>,
    pub(crate) full: bool,
    pub(crate) confirm_loss: bool,
    pub(crate) accept_fields: Vec<String>,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            trigger: Trigger::Manual,
            due_key: None,
            full: false,
            confirm_loss: false,
            accept_fields: Vec::new(),
        }
    }
}

/// Starts a run of the current revision.
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
    tracing::info!(
        run.id = %run.id,
        pipeline.name = %run.pipeline,
        revision = run.revision,
        trigger = %run.trigger,
        "a run has started"
    );
    // The stages wait for a revision that they do not know yet, and it is restored if this fails.
    if let Err(error) = catalog::put(scheduler, &revision, true).await {
        tracing::warn!(%error, "a revision could not be put into the broker yet");
    }
    let cursors =
        if run.full { Vec::new() } else { scheduler.store().loaded_cursors(name).await? };
    publish_plan(scheduler, &run, cursors);
    scheduler.tell(run.id);
    Ok(run)
}

async fn create(
    scheduler: &Scheduler,
    name: &PipelineName,
    asked: Start,
) -> Result<(Run, Revision), Error> {
    let stored = scheduler.store().pipeline(name).await?;
    let stored = stored.ok_or_else(|| store::Error::NoPipeline(name.clone()))?;
    let revision = infer::with_schema(scheduler, stored.revision).await?;
    let revision = accept::accept(scheduler, revision, &asked.accept_fields).await?;
    let pipeline = scheduler.parsed(&revision)?;
    let new = new_run(&revision, &pipeline, asked);
    let run = scheduler.store().create_run(&new, scheduler.now()).await?;
    Ok((run, revision))
}

pub(crate) fn new_run(revision: &Revision, pipeline: &Pipeline, asked: Start) -> NewRun {
    let snapshot = |mode| match mode {
        Mode::Snapshot { .. } => true,
        Mode::Upsert | Mode::Append => false,
    };
    // A replay sends what was read before: nothing can be said about what is gone.
    let reads = asked.trigger != Trigger::Replay;
    NewRun {
        pipeline: revision.name.clone(),
        revision: revision.revision,
        trigger: asked.trigger,
        due_key: asked.due_key,
        full: reads && (asked.full || pipeline.targets.iter().any(|t| snapshot(t.mode))),
        confirm_loss: asked.confirm_loss,
        accepted_fields: asked.accept_fields,
        targets: pipeline
            .targets
            .iter()
            .map(|target| NewRunTarget {
                name: target.name.to_string(),
                sweep: reads && snapshot(target.mode),
            })
            .collect(),
    }
}
