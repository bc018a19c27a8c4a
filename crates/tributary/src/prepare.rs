//! Makes what the services need, before they start or while they run.

use anyhow::Context;
use runtime::{config::Environment, shutdown, telemetry};

use crate::{
    cli::Prepare,
    failure::Failure,
    service::{install_crypto, settings},
};

pub(crate) async fn run(options: Prepare) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let (mut process, config) =
        settings::<scheduler::Config>("scheduler", options.service.config.as_deref(), &environment)
            .context("the settings cannot be used")?;
    install_crypto();
    // It ends within a moment; its log is what remains.
    process.telemetry.otlp_endpoint = None;
    let telemetry =
        telemetry::init("prepare", &process.telemetry).context("the log cannot be set up")?;
    let shutdown = shutdown::on_signal().context("signals cannot be listened to")?;
    let outcome = scheduler::prepare(config, options.patience, &shutdown).await;
    telemetry.flush().await;
    Ok(outcome?)
}
