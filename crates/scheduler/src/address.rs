//! The address of the database, whose password may be replaced at any time.

use std::{convert::Infallible, time::Duration};

use crate::{core::Scheduler, error::chain};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Takes replaced secrets of the database's address for new connections, until shutdown.
pub(crate) async fn follow(scheduler: Scheduler) -> Result<(), Infallible> {
    let files = scheduler.config().database.secret_files();
    let mut state = files.state();
    let mut ticks = tokio::time::interval(LOOK);
    while !files.is_empty() {
        tokio::select! {
            () = scheduler.shutdown().cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let found = files.state();
        if found == state {
            continue;
        }
        state = found;
        let taken = match scheduler.config().database_address() {
            Ok(address) => scheduler.store().set_address(&address).map_err(|error| chain(&error)),
            Err(error) => Err(format!("{error:#}")),
        };
        match taken {
            Ok(()) => tracing::info!("the secret of the database was replaced and is in use"),
            Err(error) => tracing::error!(error, "the new secret of the database cannot be used"),
        }
    }
    scheduler.shutdown().cancelled().await;
    Ok(())
}
