//! Follows a run to its end.

use std::{io::IsTerminal, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::Status;
use wire::control::{Run, RunState, WatchRunRequest};

use super::{
    runs,
    server::{Server, is_lost},
};
use crate::{
    cli::Format,
    failure::Failure,
    output::{Output, json, progress::Progress, text},
};

/// How long a server may be away in the middle of a run, such as during a restart.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(250);

/// Shows the progress of a run, then its ledger. A run that did not succeed is a failure.
pub(crate) async fn watch(server: &Server, output: Output, id: String) -> Result<(), Failure> {
    match output.format() {
        Format::Json => {
            let run = follow(server, &id, |run| output.line(&json::run(run))).await?;
            succeeded(&run)
        }
        Format::Text => {
            let mut progress = Progress::new(std::io::stderr().is_terminal());
            let run = follow(server, &id, |run| {
                progress.show(run);
                Ok(())
            });
            let run = run.await?;
            progress.end();
            output.print(|| json::run(&run), || text::ledger(&run))?;
            succeeded(&run)
        }
    }
}

/// Waits for the end of a run and prints its ledger. A run that did not succeed is a failure.
pub(crate) async fn wait(server: &Server, output: Output, id: String) -> Result<(), Failure> {
    let run = follow(server, &id, |_| Ok(())).await?;
    output.print(|| json::run(&run), || text::ledger(&run))?;
    succeeded(&run)
}

fn succeeded(run: &Run) -> Result<(), Failure> {
    if run.state() == RunState::Succeeded { Ok(()) } else { Err(Failure::Result) }
}

/// Calls `seen` for every state of the run and returns the last one.
async fn follow(
    server: &Server,
    id: &str,
    mut seen: impl FnMut(&Run) -> Result<(), Failure>,
) -> Result<Run, Failure> {
    let what = format!("the run {id} cannot be watched");
    let mut last_seen: Option<Instant> = None;
    loop {
        let server = server.found_again();
        let lost = match follow_once(&server, id, &mut seen, &mut last_seen).await? {
            Ended::Run(run) => return Ok(*run),
            Ended::Stream(status) => status,
        };
        // A server that has never answered is not there; one that has may be restarting.
        match last_seen {
            Some(at) if is_lost(&lost) && at.elapsed() < PATIENCE => sleep(PAUSE).await,
            _ => return Err(server.refused(what, &lost)),
        }
    }
}

/// Tells whether nothing more will happen to a run.
fn has_ended(state: RunState) -> bool {
    match state {
        RunState::Unspecified | RunState::Waiting | RunState::Running | RunState::Paused => false,
        RunState::Succeeded | RunState::Failed | RunState::Cancelled | RunState::Skipped => true,
    }
}

enum Ended {
    Run(Box<Run>),
    Stream(Status),
}

async fn follow_once(
    server: &Server,
    id: &str,
    seen: &mut impl FnMut(&Run) -> Result<(), Failure>,
    last_seen: &mut Option<Instant>,
) -> Result<Ended, Failure> {
    let mut client = match runs::client(server).await {
        Ok(client) => client,
        Err(failure) if last_seen.is_none() => return Err(failure),
        Err(_) => return Ok(Ended::Stream(Status::unavailable("no connection"))),
    };
    let mut states = match client.watch_run(WatchRunRequest { id: id.to_owned() }).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(Ended::Stream(status)),
    };
    loop {
        let run = match states.message().await {
            Ok(Some(state)) => state.run.unwrap_or_default(),
            Ok(None) => {
                return Ok(Ended::Stream(Status::unavailable("the server ended the watch")));
            }
            Err(status) => return Ok(Ended::Stream(status)),
        };
        *last_seen = Some(Instant::now());
        seen(&run)?;
        if has_ended(run.state()) {
            return Ok(Ended::Run(Box::new(run)));
        }
    }
}
