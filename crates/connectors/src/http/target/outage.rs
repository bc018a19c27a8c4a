//! How long nothing has got through to a receiver.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use connect::{Error, Memory};

/// While nothing gets through, one delivery in so long finds out whether that is still so.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// How long what was found of a receiver, that it is disabled or not, is believed.
const BELIEVED: Duration = Duration::from_secs(2);

/// What is known of a receiver that may be away.
pub(super) struct Outage {
    /// How long deliveries are kept in hand.
    patience: Duration,
    memory: Arc<dyn Memory>,
    /// Remembered while the receiver is disabled.
    key: String,
    failing: Mutex<Option<Failing>>,
    disabled: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

struct Failing {
    since: Instant,
    last: Instant,
    reason: String,
}

impl Outage {
    pub(super) fn new(patience: Duration, memory: Arc<dyn Memory>, key: String) -> Self {
        Self {
            patience,
            memory,
            key,
            failing: Mutex::default(),
            disabled: tokio::sync::Mutex::default(),
        }
    }

    /// A delivery got through.
    pub(super) fn ended(&self) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A delivery failed.
    pub(super) fn goes_on(&self, reason: &str) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let last = Instant::now();
        let since = failing.as_ref().map_or(last, |failing| failing.since);
        *failing = Some(Failing { since, last, reason: reason.to_owned() });
    }

    /// Tells whether deliveries are no longer kept in hand.
    pub(super) fn is_long(&self) -> bool {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.as_ref().is_some_and(|failing| failing.since.elapsed() >= self.patience)
    }

    /// Tells why a delivery need not be tried at this moment.
    pub(super) fn hopeless(&self) -> Option<String> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = failing.as_ref()?;
        let hopeless =
            failing.since.elapsed() >= self.patience && failing.last.elapsed() < PROBE_EVERY;
        hopeless.then(|| failing.reason.clone())
    }

    /// Tells whether somebody has disabled the receiver.
    ///
    /// # Errors
    ///
    /// When the memory cannot be reached.
    pub(super) async fn is_disabled(&self) -> Result<bool, Error> {
        let mut known = self.disabled.lock().await;
        if let Some((at, disabled)) = *known
            && at.elapsed() < BELIEVED
        {
            return Ok(disabled);
        }
        let found = self.memory.get(&self.key).await?;
        let disabled = found.is_some_and(|found| !found.value.is_empty());
        *known = Some((Instant::now(), disabled));
        Ok(disabled)
    }
}
