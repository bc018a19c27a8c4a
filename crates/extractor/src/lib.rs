#![doc = include_str!("../README.md")]

mod config;
mod cut;
mod metrics;
mod part;
mod plan;
mod progress;
mod publishing;
mod push;
mod questions;
mod reading;
mod sealed;
mod service;

use std::sync::Arc;

use anyhow::Context;
use bus::{Bus, LedgerWriter, Service};
use connect::RunOptions;
use model::Schema;
use runtime::tls::Tls;
use stage::Pipelines;
use tokio_util::sync::CancellationToken;

pub use config::{Config, InvalidConfig};
pub use push::{IngestConfig, Listeners, PushConfig};

/// How webhooks are read, for the fuzz targets.
#[cfg(feature = "fuzz")]
pub mod fuzz {
    pub use crate::push::fuzz::read_request;
}

/// Builds the source of a pipeline for a schema, the names of accepted fields and what the run was
/// started with, as [`connectors::source`] does.
pub type Sources = Arc<
    dyn Fn(
            &spec::Pipeline,
            Option<&Schema>,
            &[String],
            RunOptions,
        ) -> Result<Arc<dyn connect::Source>, connect::Error>
        + Send
        + Sync,
>;

/// Serves until `shutdown`, then gives back what is in hand.
///
/// # Errors
///
/// When a setting is out of its limits, or the broker is too old.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    run_on(Listeners::default(), config, shutdown).await
}

/// Does what [`run`] does, with listeners that are bound already.
///
/// # Errors
///
/// As [`run`].
pub async fn run_on(
    listeners: Listeners,
    config: Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let bus = reach(&config, &shutdown).await?;
    let quotas = bus::Quotas::new(&bus);
    let context = connectors::Context::new(
        Arc::new(|name| std::env::var(name).ok()),
        Arc::new(quotas.clone()),
        Arc::new(bus::Memory::new(&bus)),
    );
    let sources: Sources = Arc::new(move |pipeline, schema, accepted_fields, options| {
        connectors::source(pipeline, schema, accepted_fields, &context.for_run(options))
    });
    let outcome = serve(listeners, config, &bus, sources, shutdown).await;
    quotas.close().await;
    bus.close().await;
    outcome
}

/// Does what [`run`] does, with sources of the caller's making.
///
/// # Errors
///
/// As [`run`].
pub async fn run_with(
    config: Config,
    sources: Sources,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let bus = reach(&config, &shutdown).await?;
    let outcome = serve(Listeners::default(), config, &bus, sources, shutdown).await;
    bus.close().await;
    outcome
}

async fn reach(config: &Config, shutdown: &CancellationToken) -> anyhow::Result<Bus> {
    config.validate().context("the settings of the extractor are invalid")?;
    let bus = Bus::connect(&config.bus.of_service(Service::Extractor), shutdown).await?;
    bus.provision().await.context("the streams cannot be created")?;
    Ok(bus)
}

async fn serve(
    listeners: Listeners,
    config: Config,
    bus: &Bus,
    sources: Sources,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (pipelines, follower) = Pipelines::follow(bus);
    let ledger = LedgerWriter::new(bus);
    let ready = config.readiness.part("extractor");
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
    tasks.spawn("questions", questions::answer(bus.clone(), Arc::clone(&sources), ending.clone()));
    let tls = config.ingest.tls.as_ref().map(|settings| Tls::load("ingest.tls", settings));
    let intakes = push::Intakes {
        listeners: listeners.bind(&config.push, &config.ingest).await?,
        config: config.push.clone(),
        tls: tls.transpose()?,
        grace: config.shutdown_grace,
        bus: bus.clone(),
        ledger: ledger.clone(),
        pipelines: pipelines.clone(),
        variables: Arc::new(|name| std::env::var(name).ok()),
    };
    tasks.spawn("push", intakes.run(ending.clone()));
    let service = service::Service::new(bus.clone(), pipelines, ledger, sources, config);
    tasks.spawn("tasks", service.run(ending));
    let tell_ready = bus.clone().tell_ready(move |is_ready| ready.set(is_ready), tasks.shutdown());
    tasks.spawn("readiness", tell_ready);
    let outcome = tasks.wait(deadline).await;
    Ok(outcome?)
}
