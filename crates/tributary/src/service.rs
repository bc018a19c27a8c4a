//! The life of one service process.

use std::{future::Future, path::Path, time::Duration};

use anyhow::Context;
use runtime::{
    Readiness,
    config::{Environment, Tree},
    http, shutdown,
    tasks::Tasks,
    telemetry::{self, TelemetryConfig},
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{cli::Service, failure::Failure};

/// How long a process may take to end after a shutdown. The grace period of whoever runs it is
/// longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn scheduler(options: Service) -> Result<(), Failure> {
    let ready = |config: &mut scheduler::Config, readiness| config.readiness = readiness;
    Ok(serve("scheduler", options, ready, scheduler::run).await?)
}

pub(crate) async fn extractor(options: Service) -> Result<(), Failure> {
    let ready = |config: &mut extractor::Config, readiness| config.readiness = readiness;
    Ok(serve("extractor", options, ready, extractor::run).await?)
}

pub(crate) async fn transformer(options: Service) -> Result<(), Failure> {
    let ready = |config: &mut transformer::Config, readiness| config.readiness = readiness;
    Ok(serve("transformer", options, ready, transformer::run).await?)
}

pub(crate) async fn loader(options: Service) -> Result<(), Failure> {
    let ready = |config: &mut loader::Config, readiness| config.readiness = readiness;
    Ok(serve("loader", options, ready, loader::run).await?)
}

/// What every process has besides its services.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) telemetry: TelemetryConfig,
    pub(crate) http: http::Config,
}

impl Process {
    /// Takes the sections of the process out of the settings.
    pub(crate) fn take(tree: &mut Tree) -> anyhow::Result<Self> {
        Ok(Self { telemetry: tree.take("telemetry")?, http: tree.take("http")? })
    }
}

async fn serve<C, F>(
    service: &'static str,
    options: Service,
    ready: impl FnOnce(&mut C, Readiness),
    run: impl FnOnce(C, CancellationToken) -> F,
) -> anyhow::Result<()>
where
    C: DeserializeOwned,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let environment = Environment::of_process();
    let (process, mut config) = settings::<C>(service, options.config.as_deref(), &environment)
        .context("the settings cannot be used")?;
    // Nothing is bound or connected yet.
    install_crypto();
    let telemetry = telemetry::init(service, &process.telemetry)?;
    let shutdown = shutdown::on_signal()?;
    let readiness = Readiness::expecting([service]);
    ready(&mut config, readiness.clone());

    let server = http::bind(&process.http).await.context("the address of `http` is not free")?;
    let mut tasks = Tasks::new(&shutdown);
    let serving = server.serve(telemetry.metrics(), readiness, tasks.shutdown());
    tasks.spawn("http", serving);
    tasks.spawn(service, run(config, tasks.shutdown()));
    let outcome = tasks.wait(DEADLINE).await;

    tracing::info!("ended");
    telemetry.flush().await;
    Ok(outcome?)
}

/// Reads the settings of a service: its file, and the environment over it.
pub(crate) fn settings<C: DeserializeOwned>(
    service: &str,
    file: Option<&Path>,
    environment: &Environment,
) -> anyhow::Result<(Process, C)> {
    let mut tree = Tree::read(file)?.overlay(service, "", environment)?;
    Ok((Process::take(&mut tree)?, tree.finish()?))
}

/// rustls wants to be told once per process which cryptography to use.
pub(crate) fn install_crypto() {
    // An error means that it has been told before, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
}
