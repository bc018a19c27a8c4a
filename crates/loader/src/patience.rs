use std::time::Duration;

use connect::Target;
use model::Remedy;
use stage::{
    Failure,
    retry::{Backoff, Policy},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a target that is away may take to say so.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits for a target that has failed. Whoever waits keeps what it has in hand and takes no more.
pub(crate) struct Patience<'a> {
    target: &'a dyn Target,
    backoff: Backoff,
    ending: &'a CancellationToken,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(
        target: &'a dyn Target,
        policy: Policy,
        ending: &'a CancellationToken,
    ) -> Self {
        Self { target, backoff: Backoff::new(policy), ending }
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.backoff.reset();
    }

    /// Waits after a failure until a probe reaches the target, however long that takes.
    ///
    /// # Errors
    ///
    /// [`Failure::Shutdown`] when the end comes first.
    pub(crate) async fn wait(
        &mut self,
        error: &connect::Error,
        asked: Option<Duration>,
    ) -> Result<(), Failure> {
        let mut delay = self.backoff.fail(asked);
        let delay_ms = delay.as_millis();
        tracing::warn!(error = error.chain(), delay_ms, "the target is tried again");
        let mut away = false;
        loop {
            tokio::select! {
                () = self.ending.cancelled() => return Err(Failure::Shutdown),
                () = tokio::time::sleep(delay) => {}
            }
            let probe = tokio::select! {
                () = self.ending.cancelled() => return Err(Failure::Shutdown),
                probe = timeout(PROBE_TIMEOUT, self.target.check()) => probe,
            };
            match probe.map(|probe| probe.map_err(|error| error.remedy)) {
                Ok(Err(Remedy::Retry { after })) => delay = self.backoff.fail(after),
                Err(_) => delay = self.backoff.fail(None),
                // What stops the run is for the write to say.
                Ok(Ok(_) | Err(Remedy::Quarantine | Remedy::Stop)) => {
                    if away {
                        tracing::info!("the target is back");
                    }
                    return Ok(());
                }
            }
            if !away {
                away = true;
                tracing::warn!("the target is away, its work waits");
            }
        }
    }
}
