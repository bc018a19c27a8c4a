#![doc = include_str!("../README.md")]

mod config;
mod cut;
mod metrics;
mod part;
mod plan;
mod progress;
mod publishing;
mod questions;
mod reading;
mod service;

use std::sync::Arc;

use anyhow::Context;
use bus::{Bus, LedgerWriter};
use model::Schema;
use stage::Pipelines;
use tokio_util::sync::CancellationToken;

pub use config::{Config, InvalidConfig};

/// Builds the source of a pipeline for a schema and the names of accepted fields, as
/// [`connectors::source`] does.
pub type Sources = Arc<
    dyn Fn(
            &spec::Pipeline,
            Option<&Schema>,
            &[String],
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
    let variables: connectors::Variables = Arc::new(|name| std::env::var(name).ok());
    let sources: Sources = Arc::new(move |pipeline, schema, accepted_fields| {
        connectors::source(pipeline, schema, accepted_fields, &variables)
    });
    run_with(config, sources, shutdown).await
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
    config.validate().context("the settings of the extractor are invalid")?;
    let bus = Bus::connect(&config.bus, &shutdown).await?;
    bus.provision().await.context("the streams cannot be created")?;
    let (pipelines, follower) = Pipelines::follow(&bus);
    let ledger = LedgerWriter::new(&bus);
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
    let service = service::Service::new(bus.clone(), pipelines, ledger, sources, config);
    tasks.spawn("tasks", service.run(ending));
    ready.set(true);
    let outcome = tasks.wait(deadline).await;
    ready.set(false);
    bus.close().await;
    Ok(outcome?)
}
