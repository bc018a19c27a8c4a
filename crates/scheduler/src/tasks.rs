use bus::{Outgoing, TaskKind};
use bytes::Bytes;
use model::PipelineName;
use store::{HandedOut, LoadedCursor, Run};
use tracing::Instrument;
use wire::{
    Message,
    task::{PartCursor, PlanParts, RunOptions, SweepTarget, Task, task::Work},
};

use crate::core::Scheduler;

/// Hands a run out to the extractors, without waiting for the broker. A task that is not published
/// is found missing later, because nothing moves.
pub(crate) fn publish_plan(scheduler: &Scheduler, handed_out: HandedOut) {
    let HandedOut { run, cursors, full, resumed } = handed_out;
    let work = Work::PlanParts(PlanParts {
        cursors: cursors
            .into_iter()
            .map(|LoadedCursor { part, cursor }| PartCursor { part, cursor })
            .collect(),
        extraction_base: run.attempt_base,
        full,
        accepted_fields: run.accepted_fields.clone(),
    });
    publish(scheduler, &run, TaskKind::Plan, "plan".to_owned(), work, options(&run, resumed));
}

/// Hands the sweep of a target out to the loaders, for the `issue`-th time.
pub(crate) fn publish_sweep(scheduler: &Scheduler, run: &Run, sweep: SweepTarget, issue: u32) {
    let name = format!("sweep {} {issue}", sweep.target);
    publish(scheduler, run, TaskKind::Sweep, name, Work::SweepTarget(sweep), None);
}

fn publish(
    scheduler: &Scheduler,
    run: &Run,
    kind: TaskKind,
    name: String,
    work: Work,
    options: Option<RunOptions>,
) {
    let task = Task {
        run: run.id.to_string(),
        pipeline: run.pipeline.to_string(),
        revision: run.revision,
        attempt: run.attempt,
        options,
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

/// What the run was started with, for the source.
fn options(run: &Run, resumed: bool) -> Option<RunOptions> {
    if run.range.is_none() && run.parameters.is_empty() && !resumed {
        return None;
    }
    let range = run.range.clone().unwrap_or_default();
    Some(RunOptions {
        parameters: run.parameters.clone().into_iter().collect(),
        from: range.from.unwrap_or_default(),
        to: range.to.unwrap_or_default(),
        resumed,
    })
}
