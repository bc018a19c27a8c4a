//! The one token that ends a process.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that SIGINT or SIGTERM cancels. A second signal ends the process at once with
/// status 130.
///
/// Call it once, inside the runtime.
///
/// # Errors
///
/// When the system does not let us listen to signals.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    // Lives as long as the process: nobody waits for it.
    tokio::spawn(async move {
        for first in [true, false] {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            if first {
                tracing::info!(signal = name, "shutting down, a second signal ends at once");
                token.cancel();
            } else {
                tracing::warn!(signal = name, "ending at once");
                std::process::exit(130);
            }
        }
    });
    Ok(shutdown)
}
