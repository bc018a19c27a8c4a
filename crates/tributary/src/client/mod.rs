//! The commands that ask the control plane.

mod access;
mod deliveries;
mod files;
mod pipelines;
mod polls;
mod quarantine;
mod quotas;
mod runs;
mod server;
mod watch;

use crate::{
    cli::{Command, Global, Pipelines},
    client::server::Server,
    failure::Failure,
    output::Output,
};

/// Runs one client command.
pub(crate) async fn run(command: Command, global: &Global) -> Result<(), Failure> {
    let output = Output::new(global.output);
    if let Command::Pipelines(Pipelines { wait: true }) = command {
        let server = server::wait(global).await?;
        return pipelines::list(&server, output).await;
    }
    let server = Server::find(global)?;
    match command {
        Command::Apply(files) => pipelines::apply(&server, output, &files).await,
        Command::Plan(files) => pipelines::plan(&server, output, &files).await,
        Command::Check(pipeline) => pipelines::check(&server, output, pipeline).await,
        Command::Discover(pipeline) => pipelines::discover(&server, output, pipeline).await,
        Command::Pipelines(_) => pipelines::list(&server, output).await,
        Command::Show(name) => pipelines::show(&server, output, name.name).await,
        Command::Delete(name) => pipelines::delete(&server, output, name.name).await,
        Command::Run(run) => runs::start(&server, output, run).await,
        Command::Runs(runs) => runs::list(&server, output, runs).await,
        Command::Watch(run) => watch::watch(&server, output, run.run).await,
        Command::Polls(given) => polls::list(&server, output, given).await,
        Command::Cancel(run) => runs::cancel(&server, output, run.run).await,
        Command::Quotas(given) => quotas::run(&server, output, given).await,
        Command::Deliveries(command) => deliveries::run(&server, output, command).await,
        Command::Token(command) => access::token(&server, output, command).await,
        Command::Audit(given) => access::audit(&server, output, &given).await,
        Command::Quarantine(command) => quarantine::run(&server, output, command).await,
        Command::Up(_)
        | Command::Scheduler(_)
        | Command::Extractor(_)
        | Command::Transformer(_)
        | Command::Loader(_)
        | Command::BrokerUsers(_)
        | Command::Prepare(_)
        | Command::Doctor(_)
        | Command::Reseal(_)
        | Command::Completions { .. } => Err(Failure::new("this command asks no server", "", "")),
    }
}
