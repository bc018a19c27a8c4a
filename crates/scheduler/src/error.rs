#![deny(clippy::wildcard_enum_match_arm, reason = "a new variant forces a decision")]

use bus::{AskError, BusError};
use model::{InvalidId, PipelineName, Remedy};
use spec::Problem;
use tonic::{Code, Status};

/// Something that was asked of the scheduler cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database said no.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The broker said no.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A stage did not answer a question.
    #[error("the {stage} did not answer")]
    Ask {
        /// The stage.
        stage: &'static str,
        /// Why.
        #[source]
        source: AskError,
    },
    /// The text of a pipeline is wrong.
    #[error("the pipeline cannot be read: {}", first(.0))]
    Invalid(Vec<Problem>),
    /// A stored pipeline was written for another version.
    #[error("pipeline `{pipeline}` cannot be read by this version: {problem}")]
    Outdated {
        /// The pipeline.
        pipeline: PipelineName,
        /// The first problem.
        problem: String,
    },
    /// The steps do not fit the schema that was inferred.
    #[error("the steps of pipeline `{pipeline}` do not fit its source: {problem}")]
    Unfit {
        /// The pipeline.
        pipeline: PipelineName,
        /// The first problem.
        problem: String,
    },
    /// A request lacks something or holds something that cannot be.
    #[error("{0}")]
    Request(String),
    /// The source cannot read a range of itself.
    #[error(
        "pipeline `{0}` cannot be run for a range: only a source with a cursor has one to name a \
         range of"
    )]
    NoRange(PipelineName),
    /// A text is no name or id.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// There is no quarantined record of that id.
    #[error("there is no quarantined record {0}")]
    NoRecord(i64),
    /// There is no quota of that name.
    #[error("there is no quota `{0}`")]
    NoQuota(PipelineName),
    /// A quota cannot be removed while it is used.
    #[error("pipeline `{pipeline}` uses the quota `{quota}`")]
    QuotaInUse {
        /// The quota.
        quota: PipelineName,
        /// A pipeline that uses it.
        pipeline: PipelineName,
    },
    /// A pipeline marks fields, and nothing here is sealed.
    #[error(
        "pipeline `{0}` marks fields as `pii`, and the services have no keys to seal them with"
    )]
    NoSealKeys(PipelineName),
    /// What is kept of a record cannot be opened.
    #[error("the record cannot be opened: {0}")]
    Sealed(bus::OpenError),
    /// Nothing of what was delivered is kept and wanted.
    #[error(
        "no such webhook is kept: none was delivered since then for that record, or longer ago than \
         `keep_delivered` of its target says"
    )]
    NothingDelivered,
    /// Nothing that was selected could be replayed.
    #[error(
        "no quarantined record of the selection can be replayed: there is none, it is being \
         replayed, or it was never parsed and has to come from its source again"
    )]
    NothingToReplay,
}

/// What to do where a pipeline marks fields and nothing is sealed.
pub(crate) const NO_SEAL_KEYS: &str = "give all services the same `bus.seal_keys`, a folder with a \
                                       key that `openssl rand -base64 32` makes";

fn first(problems: &[Problem]) -> String {
    problems.first().map(ToString::to_string).unwrap_or_default()
}

impl Error {
    /// Returns what the scheduler itself does about it.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Bus(error) => error.remedy(),
            Self::Ask { source, .. } => source.remedy(),
            Self::Invalid(_)
            | Self::Outdated { .. }
            | Self::Unfit { .. }
            | Self::Request(_)
            | Self::NoRange(_)
            | Self::Id(_)
            | Self::NoRecord(_)
            | Self::NoQuota(_)
            | Self::QuotaInUse { .. }
            | Self::NoSealKeys(_)
            | Self::Sealed(_)
            | Self::NothingDelivered
            | Self::NothingToReplay => Remedy::Stop,
        }
    }

    /// Returns what an operator can do, in one sentence.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Store(_) => "look into the scheduler's log and at the database".to_owned(),
            Self::Bus(_) => "look at the broker".to_owned(),
            Self::Ask { stage, source } => match source {
                AskError::NoResponders(_) | AskError::TimedOut { .. } => {
                    format!("start the {stage}, or look into its log")
                }
                AskError::Refused(_) => {
                    "correct the pipeline or its source, or declare the schema".to_owned()
                }
                AskError::Unusable { .. } | AskError::Broker(_) | _ => {
                    "look at the broker".to_owned()
                }
            },
            Self::Invalid(_) | Self::Outdated { .. } | Self::Unfit { .. } => {
                "correct the pipeline and apply it again".to_owned()
            }
            Self::NoRange(_) => {
                "declare the column or field that grows with every change as cursor".to_owned()
            }
            Self::QuotaInUse { .. } => {
                "remove it from the pipeline, or delete the pipeline, first".to_owned()
            }
            Self::NoSealKeys(_) => NO_SEAL_KEYS.to_owned(),
            Self::Request(_)
            | Self::Id(_)
            | Self::NoRecord(_)
            | Self::NoQuota(_)
            | Self::Sealed(_)
            | Self::NothingDelivered
            | Self::NothingToReplay => String::new(),
        }
    }

    /// Returns what failed and why, for people. Texts of the database stay in the log.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Ask { stage, source } => match source {
                AskError::Refused(reason) => reason.clone(),
                AskError::NoResponders(_) => format!("no {stage} is running"),
                AskError::TimedOut { .. } | AskError::Unusable { .. } | AskError::Broker(_) | _ => {
                    format!("the {stage} did not answer: {source}")
                }
            },
            Self::Store(_)
            | Self::Bus(_)
            | Self::Invalid(_)
            | Self::Outdated { .. }
            | Self::Unfit { .. }
            | Self::Request(_)
            | Self::NoRange(_)
            | Self::Id(_)
            | Self::NoRecord(_)
            | Self::NoQuota(_)
            | Self::QuotaInUse { .. }
            | Self::NoSealKeys(_)
            | Self::Sealed(_)
            | Self::NothingDelivered
            | Self::NothingToReplay => self.to_string(),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Store(error) => match error {
                store::Error::NoPipeline(_) | store::Error::NoRun(_) => Code::NotFound,
                store::Error::StillRunning { .. }
                | store::Error::NotDue(_)
                | store::Error::NoPlace(_) => Code::FailedPrecondition,
                store::Error::Changed(_) => Code::Aborted,
                store::Error::Unavailable(_) => Code::Unavailable,
                store::Error::Address
                | store::Error::Refused(_)
                | store::Error::Migration(_)
                | store::Error::File { .. }
                | store::Error::Unreadable { .. }
                | _ => Code::Internal,
            },
            Self::Bus(_) => Code::Unavailable,
            Self::Ask { source, .. } => match source {
                AskError::Refused(_) => Code::FailedPrecondition,
                AskError::NoResponders(_)
                | AskError::TimedOut { .. }
                | AskError::Unusable { .. }
                | AskError::Broker(_)
                | _ => Code::Unavailable,
            },
            Self::Invalid(_) | Self::Request(_) | Self::Id(_) => Code::InvalidArgument,
            Self::Outdated { .. }
            | Self::Unfit { .. }
            | Self::NoRange(_)
            | Self::QuotaInUse { .. }
            | Self::NoSealKeys(_)
            | Self::Sealed(_)
            | Self::NothingDelivered
            | Self::NothingToReplay => Code::FailedPrecondition,
            Self::NoRecord(_) | Self::NoQuota(_) => Code::NotFound,
        }
    }
}

/// Turns an error into what a client sees. What only an operator may see is logged here.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = error.code();
        if matches!(code, Code::Internal | Code::Unavailable) {
            tracing::warn!(error = chain(&error), "a call failed");
        }
        let hint = error.hint();
        let message = error.told();
        Self::new(code, if hint.is_empty() { message } else { format!("{message}; {hint}") })
    }
}

/// Returns an error and its causes, from the outside in, joined by `: `.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_not_found_and_what_is_wrong_is_invalid() {
        let missing = Error::Store(store::Error::NoPipeline("shop".parse().unwrap()));
        assert_eq!(Status::from(missing).code(), Code::NotFound);
        let wrong = Error::Id("a b".parse::<PipelineName>().unwrap_err());
        assert_eq!(Status::from(wrong).code(), Code::InvalidArgument);
    }
}
