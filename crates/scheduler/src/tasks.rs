use bus::{Outgoing, TaskKind};
use bytes::Bytes;
use model::PipelineName;
use store::{LoadedCursor, Run};
use tracing::Instrument;
use wire::{
    Message,
    task::{PartCursor, PlanParts, SweepTarget, Task, task::Work},
};

use crate::core::Scheduler;

/// Hands a run out to the extractors, without waiting for the broker. A task that is not published
/// is found missing later, because nothing moves.
pub(crate) fn publish_plan(scheduler: &Scheduler, run: &Run, cursors: Vec<LoadedCursor>) {
    let work = Work::PlanParts(PlanParts {
        cursors: cursors
            .into_iter()
            .map(|LoadedCursor { part, cursor }| PartCursor { part, cursor })
            .collect(),
        extraction_base: run.attempt_base,
        full: run.full,
        accepted_fields: run.accepted_fields.clone(),
    });
    publish(scheduler, run, TaskKind::Plan, "plan".to_owned(), work);
}

/// Hands the sweep of a target out to the loaders, for the `issue`-th time.
pub(crate) fn publish_sweep(scheduler: &Scheduler, run: &Run, sweep: SweepTarget, issue: u32) {
    let name = format!("sweep {} {issue}", sweep.target);
    publish(scheduler, run, TaskKind::Sweep, name, Work::SweepTarget(sweep));
}

fn publish(scheduler: &Scheduler, run: &Run, kind: TaskKind, name: String, work: Work) {
    let task = Task {
        run: run.id.to_string(),
        pipeline: run.pipeline.to_string(),
        revision: run.revision,
        attempt: run.attempt,
        work: Some(work),
    };
    let (id, pipeline): (_, PipelineName) = (run.id, run.pipeline.clone());
    let span = tracing::info_span!(
        "run", run.id = %id, pipeline.name = %pipeline, attempt = run.attempt, task = name
    );
    let entered = span.enter();
    let subject = scheduler.bus().names().task(kind, &pipeline);
    let message = Outgoing::new(subject, Bytes::from(task.encode_to_vec()))
        .with_id(format!("{id}#{}/{name}", run.attempt));
    drop(entered);
    let bus = scheduler.bus().clone();
    let publishing = async move {
        if let Err(error) = bus.publish(message).await {
            tracing::warn!(%error, "a task could not be published, it will be handed out again");
        }
    };
    scheduler.in_background(publishing.instrument(span));
}
