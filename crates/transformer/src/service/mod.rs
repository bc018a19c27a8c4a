mod config;
mod fitting;
mod metrics;
mod programs;
mod queue;

use std::{collections::HashMap, sync::Arc};

use anyhow::Context;
use bus::{Bus, ConsumerOptions, LedgerWriter, Queue, Service};
use model::PipelineName;
use stage::{Pipelines, Turns};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use queue::Worker;

pub use config::{Config, InvalidConfig};

/// Serves until `shutdown`, then finishes or gives back what is in hand.
///
/// # Errors
///
/// When a setting is out of its limits, or the broker is too old.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.validate().context("the settings of the transformer are invalid")?;
    let bus = Bus::connect(&config.bus.of_service(Service::Transformer), &shutdown).await?;
    bus.provision().await.context("the streams cannot be created")?;
    let (pipelines, follower) = Pipelines::follow(&bus);
    let ready = config.readiness.part("transformer");
    let mut tasks = runtime::tasks::Tasks::new(&shutdown);
    let ending = tasks.shutdown();
    tasks.spawn("pipelines", {
        let ending = ending.clone();
        async move {
            follower.run(ending).await;
            anyhow::Ok(())
        }
    });
    tasks.spawn("queues", serve(bus.clone(), pipelines, config.concurrent_batches, ending));
    let tell_ready = bus.clone().tell_ready(move |is_ready| ready.set(is_ready), tasks.shutdown());
    tasks.spawn("readiness", tell_ready);
    let outcome = tasks.wait(config.shutdown_grace).await;
    bus.close().await;
    Ok(outcome?)
}

/// Serves the batches of all pipelines that there are.
async fn serve(
    bus: Bus,
    mut pipelines: Pipelines,
    concurrent_batches: usize,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let ledger = LedgerWriter::new(&bus);
    let places = Arc::new(Semaphore::new(concurrent_batches));
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
            served.entry(name.clone()).or_insert_with(|| {
                let ending = shutdown.child_token();
                let worker =
                    Worker::new(bus.clone(), ledger.clone(), name.clone(), pipelines.clone());
                let queue = Queue::Raw { pipeline: name };
                let consumer = bus.consumer(ConsumerOptions::new(queue));
                queues.spawn(consume(consumer, worker, Arc::clone(&places), ending.clone()));
                ending
            });
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

/// Takes the batches of one pipeline, each as soon as there is a place for it.
async fn consume(
    mut consumer: bus::Consumer,
    worker: Worker,
    places: Arc<Semaphore>,
    ending: CancellationToken,
) {
    let worker = Arc::new(worker);
    let batches = TaskTracker::new();
    let mut turns = Turns::default();
    while let Some(delivery) = consumer.next(&ending).await {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = ending.cancelled() => break,
        };
        let place = place.expect("the semaphore is never closed");
        let (worker, ending, turn) = (Arc::clone(&worker), ending.clone(), turns.begin());
        batches.spawn(async move {
            worker.take(delivery, &turn, &ending).await;
            drop(place);
        });
    }
    batches.close();
    batches.wait().await;
}
