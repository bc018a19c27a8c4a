use std::time::Duration;

/// What the caller does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Try the same call again, no sooner than `after` if the peer named a delay.
    Retry {
        /// Delay that the peer asked for.
        after: Option<Duration>,
    },
    /// Quarantine this record and go on with the next one.
    Quarantine,
    /// Stop the run until an operator has acted.
    Stop,
}

impl Remedy {
    /// Retry whenever the caller's own backoff says so.
    pub const RETRY: Self = Self::Retry { after: None };
}
