use std::time::Duration;

use runtime::{certificate::Ends, tls::Tls};

use crate::core::Scheduler;

/// How often the file of the broker's authorities is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Follows the files of TLS, and tells when the certificates end, until shutdown.
pub(crate) async fn follow(scheduler: Scheduler, tls: Option<Tls>) -> anyhow::Result<()> {
    let shutdown = scheduler.shutdown().clone();
    let api = async {
        if let Some(tls) = tls {
            tls.follow("api", shutdown.clone()).await;
        }
    };
    let bus = async {
        let Some(path) = &scheduler.config().bus.tls_ca else { return };
        let ends = Ends::new();
        let mut ticks = tokio::time::interval(LOOK);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            // The connection to the broker tells when this file is of no use.
            if let Ok(authorities) = tokio::fs::read(path).await {
                ends.tell("bus".to_owned(), &authorities);
            }
        }
    };
    tokio::join!(api, bus);
    Ok(())
}
