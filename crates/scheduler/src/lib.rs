#![doc = include_str!("../README.md")]

mod accept;
mod access;
mod address;
mod catalog;
mod certificates;
mod clock;
mod config;
mod core;
mod delivered;
mod deliveries;
mod destructive;
mod due;
mod error;
mod grpc;
mod infer;
mod intake;
mod metrics;
mod pipelines;
mod polls;
mod prepare;
mod pushes;
mod questions;
mod reconcile;
mod refused;
mod renewal;
mod replay;
mod scaling;
mod sealing;
mod settling;
mod shared;
mod start;
mod tasks;
mod waiting;

use anyhow::Context;
use bus::{Bus, Service};
use runtime::{tasks::Tasks, tls::Tls};
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use access::{AccessConfig, Mode, OidcConfig, Role, TokenAlgorithm};
pub use config::{Config, Database, InvalidConfig};
pub use prepare::{inspect_database, prepare};
pub use renewal::{Kept, Resealed, reseal};

use crate::core::Scheduler;

/// Serves until `shutdown`, then gives back what is in hand. Any number may run at once on one
/// database and one broker.
///
/// # Errors
///
/// When a setting is out of its limits, the address is taken, or database or broker cannot be used.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.validate().context("the settings of the scheduler are invalid")?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("the scheduler cannot listen on {}", config.listen))?;
    run_on(listener, config, shutdown).await
}

/// Does what [`run`] does, on a listener that is bound already.
///
/// # Errors
///
/// As [`run`].
pub async fn run_on(
    listener: TcpListener,
    config: Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.validate().context("the settings of the scheduler are invalid")?;
    let ready = config.readiness.part("scheduler");
    let database = config.database_address()?;
    let store = Store::open(&database, config.database_connections)
        .await
        .context("the database of the control plane cannot be used")?;
    let bus = Bus::connect(&config.bus.of_service(Service::Scheduler), &shutdown).await?;
    bus.provision().await.context("the streams cannot be created")?;

    let tls = config.access.tls.as_ref().map(|settings| Tls::load("access.tls", settings));
    let tls = tls.transpose()?;
    let scaler = match config.scaler_listen {
        Some(address) => {
            let bound = TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("`scaler_listen`: {address} cannot be had"))?)
        }
        None => None,
    };

    let deadline = config.shutdown_grace * 2;
    let mut tasks = Tasks::new(&shutdown);
    let ending = tasks.shutdown();
    let scheduler = Scheduler::new(store.clone(), bus.clone(), config, ending);
    // What the broker has lost is there before the first task.
    reconcile::restore(&scheduler).await;
    tasks.spawn("ledger", intake::ledger(scheduler.clone()));
    tasks.spawn("quarantine", intake::quarantine(scheduler.clone()));
    tasks.spawn("settling", settling::run(scheduler.clone()));
    tasks.spawn("reconciling", reconcile::run(scheduler.clone()));
    tasks.spawn("scaling", scaling::run(scheduler.clone()));
    tasks.spawn("due", due::run(scheduler.clone()));
    if let Some(listener) = scaler {
        tasks.spawn("scaler", grpc::serve_scaler(scheduler.clone(), listener));
    }
    tasks.spawn("address", address::follow(scheduler.clone()));
    tasks.spawn("certificates", certificates::follow(scheduler.clone(), tls.clone()));
    tasks.spawn("api", grpc::serve(scheduler.clone(), listener, tls));
    let tell_ready = bus.clone().tell_ready(move |is_ready| ready.set(is_ready), tasks.shutdown());
    tasks.spawn("readiness", tell_ready);
    let outcome = tasks.wait(deadline).await;
    scheduler.wait().await;
    bus.close().await;
    store.close().await;
    Ok(outcome?)
}
