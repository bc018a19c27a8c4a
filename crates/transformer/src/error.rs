#![deny(clippy::wildcard_enum_match_arm, reason = "a new variant forces a decision")]

use model::Remedy;
use spec::{Problem, ResolveError};

/// A pipeline cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Steps and schema do not fit each other. Never empty.
    #[error("{}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Problems(Vec<Problem>),
    /// An expression cannot be read.
    #[error("the expression of step {step} cannot be read: {reason}")]
    Expression {
        /// The step, such as `2 (filter)`.
        step: String,
        /// Why.
        reason: String,
    },
    /// A secret cannot be resolved.
    #[error("the key of step {step} cannot be resolved")]
    Secret {
        /// The step, such as `2 (hash)`.
        step: String,
        /// Why.
        #[source]
        source: ResolveError,
    },
}

impl CompileError {
    /// Returns what to do: the same pipeline never becomes ready by itself.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Problems(_) | Self::Expression { .. } | Self::Secret { .. } => Remedy::Stop,
        }
    }

    /// Returns what an operator does about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Problems(_) | Self::Expression { .. } => {
                "correct the pipeline and apply it again"
            }
            Self::Secret { .. } => "give the transformers the secret, and start the run again",
        }
    }
}
