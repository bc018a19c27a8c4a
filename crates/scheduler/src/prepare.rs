//! Makes everything that the services need before they start.

use std::time::{Duration, Instant};

use anyhow::Context;
use bus::Bus;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::Config;

/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Creates or migrates the tables of the control plane and creates or adapts streams and buckets.
/// Repeating it changes nothing, and services may run meanwhile. What is not there yet is waited for,
/// for `patience`.
///
/// # Errors
///
/// When a setting is out of its limits, or database or broker cannot be used until then.
pub async fn prepare(
    config: Config,
    patience: Duration,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    config.validate().context("the settings of the scheduler are invalid")?;
    let address = config.database_address()?;
    let deadline = Instant::now() + patience;
    let store = until(deadline, shutdown, store::Error::remedy, || {
        Store::open(&address, config.database_connections)
    });
    let store = store.await.context("the database of the control plane cannot be used")?;
    store.close().await;
    tracing::info!("the tables of the control plane are up to date");
    let wanted = config.bus.of_service(bus::Service::Scheduler);
    let bus = until(deadline, shutdown, bus::ConnectError::remedy, || Bus::try_connect(&wanted));
    let bus = bus.await?;
    // A cluster that has just started has no leader yet.
    let provisioned = until(deadline, shutdown, bus::BusError::remedy, || bus.try_provision());
    provisioned.await.context("the streams cannot be created")?;
    bus.close().await;
    tracing::info!("streams and buckets are as they have to be");
    Ok(())
}

/// Tries again until the deadline what may get better by itself.
async fn until<T, E: std::error::Error + 'static, F: Future<Output = Result<T, E>>>(
    deadline: Instant,
    shutdown: &CancellationToken,
    remedy: impl Fn(&E) -> model::Remedy,
    attempt: impl Fn() -> F,
) -> Result<T, E> {
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let hopeful = matches!(remedy(&error), model::Remedy::Retry { .. });
        if !hopeful || Instant::now() + PAUSE > deadline {
            return Err(error);
        }
        tracing::warn!(error = &error as &dyn std::error::Error, "trying again");
        tokio::select! {
            () = shutdown.cancelled() => return Err(error),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Looks at the database of the control plane, and changes nothing.
///
/// # Errors
///
/// When the address has a secret that is missing, or the database cannot be reached.
pub async fn inspect_database(config: &Config) -> anyhow::Result<store::Inspection> {
    let address = config.database_address()?;
    let found = store::inspect(&address).await;
    found.context("the database of the control plane cannot be looked at")
}
