use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context;
use bus::{Bucket, Bus, ConsumerOptions, Delivery, KeyValue, LedgerWriter, Queue, TaskKind};
use connect::{RunOptions, Source};
use model::{PipelineName, RunId};
use stage::{Failure, Pipelines};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::{
    Message,
    ledger::{LedgerEntry, RunStopped, ledger_entry::Event},
    task::{Task, task},
};

use crate::{Config, Sources, part, plan, push, reading::stopped, sealed::SealedCursors};

/// The run that a task belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) run: RunId,
    pub(crate) attempt: u32,
    pub(crate) pipeline: PipelineName,
    pub(crate) revision: u32,
    /// What the run was started with.
    pub(crate) options: RunOptions,
}

impl Work {
    /// Returns what the run was started with, for its tasks.
    pub(crate) fn asked(&self) -> Option<wire::task::RunOptions> {
        if self.options == RunOptions::default() {
            return None;
        }
        let RunOptions { parameters, from, to, resumed } = self.options.clone();
        Some(wire::task::RunOptions {
            parameters: parameters.into_iter().collect(),
            from: from.unwrap_or_default(),
            to: to.unwrap_or_default(),
            resumed,
        })
    }
}

/// Takes tasks, does them, acknowledges them.
pub(crate) struct Service {
    pub(crate) bus: Bus,
    pub(crate) ledger: LedgerWriter,
    pub(crate) progress: KeyValue,
    pub(crate) config: Config,
    pipelines: Pipelines,
    sources: Sources,
    /// Places for parts and for plans; a plan never waits for the end of a long part.
    parts: Arc<Semaphore>,
    plans: Arc<Semaphore>,
}

impl Service {
    pub(crate) fn new(
        bus: Bus,
        pipelines: Pipelines,
        ledger: LedgerWriter,
        sources: Sources,
        config: Config,
    ) -> Self {
        Self {
            progress: bus.key_value(Bucket::Progress),
            parts: Arc::new(Semaphore::new(config.concurrent_parts)),
            plans: Arc::new(Semaphore::new(config.concurrent_parts)),
            bus,
            ledger,
            config,
            pipelines,
            sources,
        }
    }

    /// Serves the tasks of every pipeline that there is, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let service = Arc::new(self);
        let mut pipelines = service.pipelines.clone();
        let queues = TaskTracker::new();
        let mut served: HashMap<PipelineName, CancellationToken> = HashMap::new();
        loop {
            let names = pipelines.names();
            served.retain(|name, ending| {
                let stays = names.contains(name);
                if !stays {
                    ending.cancel();
                }
                stays
            });
            for name in names {
                if served.contains_key(&name) {
                    continue;
                }
                let ending = shutdown.child_token();
                for kind in [TaskKind::Plan, TaskKind::Extract, TaskKind::Fetch] {
                    let service = Arc::clone(&service);
                    queues.spawn(service.serve(kind, name.clone(), ending.clone()));
                }
                served.insert(name, ending);
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                more = pipelines.changed() => if !more { break },
            }
        }
        queues.close();
        queues.wait().await;
        Ok(())
    }

    /// Takes the tasks of one queue while there are places for them. A task never waits in hand, where
    /// it would be out of reach of another extractor that has a place.
    async fn serve(
        self: Arc<Self>,
        kind: TaskKind,
        pipeline: PipelineName,
        ending: CancellationToken,
    ) {
        let places = match kind {
            TaskKind::Plan => &self.plans,
            TaskKind::Extract | TaskKind::Fetch | TaskKind::Sweep => &self.parts,
        };
        let queue = Queue::Tasks { kind, pipeline };
        let mut consumer = self.bus.consumer(ConsumerOptions::new(queue));
        let tasks = TaskTracker::new();
        while is_free(places, &ending).await {
            let Some(delivery) = consumer.next(&ending).await else { break };
            // The queue of another pipeline may have been faster.
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                delivery.nak(Duration::ZERO).await;
                continue;
            };
            let (service, ending) = (Arc::clone(&self), ending.clone());
            tasks.spawn(async move {
                service.take(delivery, &ending).await;
                drop(place);
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Does one task and answers its message.
    async fn take(&self, delivery: Delivery, ending: &CancellationToken) {
        let (work, task) = match read(&delivery) {
            Ok(read) => read,
            Err(error) => {
                // It names no run that could be stopped. The scheduler hands the work out again when
                // the books of the run do not move.
                tracing::error!(error = format!("{error:#}"), "a task cannot be read");
                return acknowledge(delivery).await;
            }
        };
        let span = tracing::info_span!(
            "task",
            stage = "extractor",
            pipeline = %work.pipeline,
            run.id = %work.run,
            attempt = work.attempt,
        );
        if let Err(error) = span.set_parent(delivery.context()) {
            tracing::trace!(%error, "the span has no parent");
        }
        async {
            let done = match &task {
                task::Work::PlanParts(asked) => plan::plan(self, &work, asked, ending).await,
                task::Work::ExtractPart(part) => {
                    Box::pin(part::extract(self, &work, part, ending)).await
                }
                task::Work::FetchRecords(asked) => push::fetch(self, &work, asked, ending).await,
                task::Work::SweepTarget(_) => Ok(()),
            };
            match self.settle(&work, done).await {
                Ok(()) => acknowledge(delivery).await,
                Err(delay) => delivery.nak(delay).await,
            }
        }
        .instrument(span)
        .await;
    }

    /// Tells whether the message is answered for, or when it is to be delivered again.
    async fn settle(&self, work: &Work, done: Result<(), Failure>) -> Result<(), Duration> {
        let failure = match done {
            Ok(()) => return Ok(()),
            Err(Failure::Stop { reason, hint }) => {
                tracing::error!(reason, hint, "the run stops");
                let stopped = RunStopped { stage: "extractor".to_owned(), reason, hint };
                match self.record(work, vec![Event::RunStopped(stopped)]).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        match failure {
            Failure::Later { reason, delay } => {
                let delay_ms = delay.as_millis();
                tracing::warn!(reason, delay_ms, "the task is given back");
                Err(delay)
            }
            Failure::Stop { .. } | Failure::Shutdown => Err(Duration::ZERO),
        }
    }

    /// Records what happened to the run.
    pub(crate) async fn record(&self, work: &Work, events: Vec<Event>) -> Result<(), Failure> {
        let entry = |event| LedgerEntry {
            run: work.run.to_string(),
            attempt: work.attempt,
            event: Some(event),
            push: None,
        };
        let entries = events.into_iter().map(entry).collect();
        Ok(self.ledger.record(&work.pipeline, entries).await?)
    }

    /// Builds the source as the revision of the run declares it.
    pub(crate) async fn source(
        &self,
        work: &Work,
        accepted_fields: &[String],
        shutdown: &CancellationToken,
    ) -> Result<Arc<dyn Source>, Failure> {
        let stored = self.pipelines.get(&work.pipeline, work.revision, shutdown).await?;
        let pipeline = stored.pipeline()?;
        let schema = pipeline.schema.as_ref();
        let source = (self.sources)(pipeline, schema, accepted_fields, work.options.clone())
            .map_err(|error| stopped(&error))?;
        Ok(Arc::new(SealedCursors::new(source, &self.bus, pipeline)))
    }
}

/// Waits until there is a place; `false` when the end comes first.
async fn is_free(places: &Semaphore, ending: &CancellationToken) -> bool {
    tokio::select! {
        place = places.acquire() => place.is_ok(),
        () = ending.cancelled() => false,
    }
}

fn options(asked: wire::task::RunOptions) -> RunOptions {
    let given = |text: String| (!text.is_empty()).then_some(text);
    RunOptions {
        parameters: asked.parameters.into_iter().collect(),
        from: given(asked.from),
        to: given(asked.to),
        resumed: asked.resumed,
    }
}

fn read(delivery: &Delivery) -> anyhow::Result<(Work, task::Work)> {
    let task = Task::decode(delivery.payload()?)?;
    let work = Work {
        run: task.run.parse()?,
        attempt: task.attempt,
        pipeline: task.pipeline.parse()?,
        revision: task.revision,
        options: options(task.options.unwrap_or_default()),
    };
    Ok((work, task.work.context("the task names no work")?))
}

async fn acknowledge(delivery: Delivery) {
    if let Err(error) = delivery.ack().await {
        tracing::warn!(%error, "a task may be delivered again");
    }
}
