#![deny(clippy::wildcard_enum_match_arm, reason = "a new variant forces a decision")]

use std::time::Duration;

use bus::{BusError, PublishError};

/// Why a piece of work ends early, and so what becomes of its message.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The run cannot go on until an operator has acted. It is stopped in the ledger and the message
    /// is acknowledged.
    #[error("{reason}")]
    Stop {
        /// What failed, with its place.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// It goes away by itself. The message is given back, to be delivered again after `delay`.
    #[error("{reason}")]
    Later {
        /// What failed, with its place.
        reason: String,
        /// When to try again.
        delay: Duration,
    },
    /// The process is going down. The message is given back at once.
    #[error("the process is going down")]
    Shutdown,
}

/// When work is taken up again after the broker has not answered for as long as its patience lasts.
const BROKER_DELAY: Duration = Duration::from_secs(5);

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::TooLarge { .. } => Self::Stop {
                reason: chain(&error),
                hint: "make the file and field names, or their number, smaller".to_owned(),
            },
            PublishError::NotAcknowledged { .. } | PublishError::Cancelled => {
                Self::Later { reason: chain(&error), delay: BROKER_DELAY }
            }
            other => Self::Later { reason: chain(&other), delay: BROKER_DELAY },
        }
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        Self::Later { reason: chain(&error), delay: BROKER_DELAY }
    }
}

/// Returns an error and its causes, from the outside in, joined by `: `.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
