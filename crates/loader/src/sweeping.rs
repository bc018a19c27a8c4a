use std::sync::Arc;

use anyhow::Context;
use bus::{ConsumerOptions, Delivery, Queue, TaskKind};
use connect::Sweep;
use model::{PipelineName, Remedy, RunId};
use stage::Failure;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::{
    Message,
    ledger::{LedgerEntry, RunStopped, TargetSwept, ledger_entry::Event},
    task::{SweepTarget, Task, task},
};

use crate::{metrics::Metrics, patience::Patience, receipt::acknowledge, service::Service};

/// One target to sweep.
struct Work {
    run: RunId,
    attempt: u32,
    revision: u32,
    target: PipelineName,
    sweep: Sweep,
}

/// Sweeps the targets of one pipeline as the scheduler asks, until `ending`.
pub(crate) async fn serve(
    service: Arc<Service>,
    pipeline: PipelineName,
    ending: CancellationToken,
) {
    let queue = Queue::Tasks { kind: TaskKind::Sweep, pipeline: pipeline.clone() };
    let mut consumer = service.bus.consumer(ConsumerOptions::new(queue));
    let tasks = TaskTracker::new();
    while let Some(delivery) = consumer.next(&ending).await {
        let (service, pipeline, ending) = (Arc::clone(&service), pipeline.clone(), ending.clone());
        // A target that is away does not keep the others from being swept.
        tasks.spawn(async move { take(&service, &pipeline, delivery, &ending).await });
    }
    tasks.close();
    tasks.wait().await;
}

async fn take(
    service: &Service,
    pipeline: &PipelineName,
    delivery: Delivery,
    ending: &CancellationToken,
) {
    let work = match read(&delivery) {
        Ok(work) => work,
        Err(error) => {
            // The scheduler hands out again what it hears nothing of.
            tracing::error!(error = format!("{error:#}"), "a task cannot be read");
            return acknowledge(delivery).await;
        }
    };
    let span = tracing::info_span!(
        "sweep",
        stage = "loader",
        %pipeline,
        target = %work.target,
        run.id = %work.run,
    );
    if let Err(error) = span.set_parent(delivery.context()) {
        tracing::trace!(%error, "the span has no parent");
    }
    async {
        let event = match sweep(service, pipeline, &work, ending).await {
            Ok(removed) => {
                let target = work.target.to_string();
                Event::TargetSwept(TargetSwept { target, removed })
            }
            Err(Failure::Stop { reason, hint }) => {
                tracing::error!(reason, hint, "the run stops");
                let reason = format!("target `{}`: {reason}", work.target);
                Event::RunStopped(RunStopped { stage: "loader".to_owned(), reason, hint })
            }
            // The message is given back as it is dropped.
            Err(Failure::Later { .. } | Failure::Shutdown) => return,
        };
        let run = work.run.to_string();
        let entry = LedgerEntry { run, attempt: work.attempt, event: Some(event), push: None };
        match service.ledger.record(pipeline, vec![entry]).await {
            Ok(()) => acknowledge(delivery).await,
            Err(error) => tracing::warn!(error = stage::chain(&error), "a sweep is given back"),
        }
    }
    .instrument(span)
    .await;
}

async fn sweep(
    service: &Service,
    pipeline: &PipelineName,
    work: &Work,
    ending: &CancellationToken,
) -> Result<u64, Failure> {
    let target = service.target(pipeline, work.revision, &work.target, ending).await?;
    let metrics = Metrics::new(pipeline.as_str(), work.target.as_str());
    let mut patience = Patience::new(target.as_ref(), service.config.retry, ending);
    loop {
        let swept = tokio::select! {
            swept = target.sweep(&work.sweep) => swept,
            () = ending.cancelled() => return Err(Failure::Shutdown),
        };
        let error = match swept {
            Ok(removed) => return Ok(removed),
            Err(error) => error,
        };
        match error.remedy {
            Remedy::Retry { after } => {
                metrics.retried();
                patience.wait(&error, after).await?;
            }
            Remedy::Quarantine | Remedy::Stop => {
                return Err(Failure::Stop { reason: error.chain(), hint: error.hint });
            }
        }
    }
}

fn read(delivery: &Delivery) -> anyhow::Result<Work> {
    let task = Task::decode(delivery.payload()?)?;
    let Some(task::Work::SweepTarget(asked)) = task.work else {
        anyhow::bail!("the task does not ask for a sweep");
    };
    let SweepTarget { target, extraction_base, max_loss_percent, source_empty } = asked;
    let run: RunId = task.run.parse().context("`run` is not an id")?;
    Ok(Work {
        run,
        attempt: task.attempt,
        revision: task.revision,
        target: target.parse()?,
        sweep: Sweep { run, extraction_base, max_loss_percent, source_empty },
    })
}
