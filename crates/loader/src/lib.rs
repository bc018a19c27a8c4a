#![doc = include_str!("../README.md")]

mod config;
mod group;
mod lane;
mod metrics;
mod patience;
mod questions;
mod receipt;
mod service;
mod sweeping;

use std::sync::Arc;

use anyhow::Context;
use bus::{Bus, LedgerWriter, Service};
use stage::Pipelines;
use tokio_util::sync::CancellationToken;

pub use config::{Config, InvalidConfig};

/// Builds one target of a pipeline, as [`connectors::target`] does.
pub type Targets = Arc<
    dyn Fn(&spec::Pipeline, &spec::Target) -> Result<Arc<dyn connect::Target>, connect::Error>
        + Send
        + Sync,
>;

/// Serves until `shutdown`, then gives back what is in hand.
///
/// # Errors
///
/// When a setting is out of its limits, or the broker is too old.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let bus = reach(&config, &shutdown).await?;
    let quotas = bus::Quotas::new(&bus);
    let context = connectors::Context::new(
        Arc::new(|name| std::env::var(name).ok()),
        Arc::new(quotas.clone()),
        Arc::new(bus::Memory::new(&bus)),
    );
    let targets: Targets =
        Arc::new(move |pipeline, target| connectors::target(pipeline, target, &context));
    let outcome = serve(config, &bus, targets, shutdown).await;
    quotas.close().await;
    bus.close().await;
    outcome
}

/// Does what [`run`] does, with targets of the caller's making.
///
/// # Errors
///
/// As [`run`].
pub async fn run_with(
    config: Config,
    targets: Targets,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let bus = reach(&config, &shutdown).await?;
    let outcome = serve(config, &bus, targets, shutdown).await;
    bus.close().await;
    outcome
}

async fn reach(config: &Config, shutdown: &CancellationToken) -> anyhow::Result<Bus> {
    config.validate().context("the settings of the loader are invalid")?;
    let bus = Bus::connect(&config.bus.of_service(Service::Loader), shutdown).await?;
    bus.provision().await.context("the streams cannot be created")?;
    Ok(bus)
}

async fn serve(
    config: Config,
    bus: &Bus,
    targets: Targets,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (pipelines, follower) = Pipelines::follow(bus);
    let ledger = LedgerWriter::new(bus);
    let ready = config.readiness.part("loader");
    let mut tasks = runtime::tasks::Tasks::new(&shutdown);
    let deadline = config.shutdown_grace * 2;

    let ending = tasks.shutdown();
    tasks.spawn("pipelines", {
        let ending = ending.clone();
        async move {
            follower.run(ending).await;
            anyhow::Ok(())
        }
    });
    tasks.spawn("questions", questions::answer(bus.clone(), Arc::clone(&targets), ending.clone()));
    let service = service::Service::new(bus.clone(), pipelines, ledger, targets, config);
    tasks.spawn("queues", service.run(ending));
    let tell_ready = bus.clone().tell_ready(move |is_ready| ready.set(is_ready), tasks.shutdown());
    tasks.spawn("readiness", tell_ready);
    let outcome = tasks.wait(deadline).await;
    Ok(outcome?)
}
