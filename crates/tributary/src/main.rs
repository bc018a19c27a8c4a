#![doc = include_str!("../README.md")]

mod broker_users;
mod cli;
mod client;
mod doctor;
mod failure;
mod output;
mod prepare;
mod reseal;
mod service;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match Box::pin(run(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Failure::Told(told) = &failure {
                eprintln!("{told}");
            }
            ExitCode::from(failure.code())
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Up(options) => up::run(options, &cli.global.data).await,
        Command::Scheduler(options) => service::scheduler(options).await,
        Command::Extractor(options) => service::extractor(options).await,
        Command::Transformer(options) => service::transformer(options).await,
        Command::Loader(options) => service::loader(options).await,
        Command::BrokerUsers(options) => broker_users::run(&options),
        Command::Prepare(options) => prepare::run(options).await,
        Command::Reseal(options) => reseal::run(options, cli.global.output).await,
        Command::Doctor(options) => doctor::run(options, cli.global.output).await,
        Command::Completions { shell } => output::completions(shell),
        command => client::run(command, &cli.global).await,
    }
}
