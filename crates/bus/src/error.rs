#![deny(clippy::wildcard_enum_match_arm, reason = "a new variant forces a decision")]

use std::{path::PathBuf, time::Duration};

use model::Remedy;

use crate::{MAX_PAYLOAD, Stream, Subject};

/// The cause of a failure, as the client library tells it.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A setting is out of its limits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No server is named.
    #[error("`servers` is empty; name at least one, such as `nats://127.0.0.1:4222`")]
    NoServers,
    /// A server's address cannot be read.
    #[error("`servers` has an address that cannot be read; write `nats://host:port`")]
    Server(#[source] Cause),
    /// The prefix would break subjects.
    #[error("`prefix` is `{0}`; use 1 to 32 of a-z, 0-9, _ and -, starting with a letter")]
    Prefix(String),
    /// So many copies cannot be.
    #[error("`replicas` is {0}; use 1 to 5")]
    Replicas(usize),
    /// A message would be delivered again while it is worked on.
    #[error("`ack_wait` is {0:?}; use at least 1s")]
    AckWait(Duration),
    /// A stream would be too small or too large.
    #[error("`max_bytes.{stream}` is {found}; use at least 1MiB")]
    MaxBytes {
        /// The stream.
        stream: Stream,
        /// Its size.
        found: u64,
    },
    /// The credentials file cannot be read.
    #[error("`credentials` names a file that cannot be read")]
    Credentials(#[source] std::io::Error),
    /// The folder of keys cannot be read.
    #[error("`seal_keys` names the folder `{}`, which cannot be read", folder.display())]
    SealKeys {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The folder of keys is empty.
    #[error(
        "`seal_keys` names the folder `{}`, which has no keys; make one there: \
         `openssl rand -base64 32 > {}/1`", folder.display(), folder.display()
    )]
    NoSealKeys {
        /// The folder.
        folder: PathBuf,
    },
    /// A file in the folder of keys is none.
    #[error(
        "`{}` is no key: its name has to be 1 to 32 of a-z, A-Z, 0-9, `-`, `_` and `.`, and its \
         content 32 bytes in base64, as `openssl rand -base64 32` makes it", file.display()
    )]
    SealKey {
        /// The file.
        file: PathBuf,
    },
}

/// The broker could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The settings are wrong.
    #[error("the settings of the broker are invalid")]
    Config(#[from] ConfigError),
    /// The server is too old.
    #[error(
        "the NATS server is version {found}, which ignores settings that keep data safe; run \
         {required} or newer"
    )]
    TooOld {
        /// Version of the server.
        found: String,
        /// Oldest version that will do.
        required: &'static str,
    },
    /// No server answers, or none lets us in.
    #[error("no server of the broker can be reached")]
    Unreachable(#[source] Cause),
    /// Shutdown was asked for before the broker answered.
    #[error("shut down before the broker could be reached")]
    Shutdown,
}

impl ConnectError {
    /// Returns what to do: only a server that is away comes back by itself.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unreachable(_) => Remedy::RETRY,
            Self::Config(_) | Self::TooOld { .. } | Self::Shutdown => Remedy::Stop,
        }
    }
}

/// An operation on streams, consumers or buckets failed.
#[derive(Debug, thiserror::Error)]
#[error("the broker cannot {action}")]
pub struct BusError {
    action: String,
    #[source]
    cause: Cause,
}

impl BusError {
    pub(crate) fn new(action: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self { action: action.into(), cause: cause.into() }
    }

    /// Returns what to do: the broker may be away for a while.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        Remedy::RETRY
    }
}

/// A message could not be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message is larger than any message may be. It was not sent.
    #[error("a message of {size} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLarge {
        /// Size of the payload in bytes.
        size: usize,
    },
    /// JetStream has not acknowledged the message. It may be stored nevertheless; publishing it
    /// again is safe.
    #[error("JetStream has not acknowledged a message on `{subject}` in {patience:?}")]
    NotAcknowledged {
        /// Where it was sent.
        subject: Subject,
        /// How long it was tried.
        patience: Duration,
        /// Why the last try failed.
        #[source]
        cause: Cause,
    },
    /// The publishing task ended early, because the process is going down.
    #[error("publishing was cut off")]
    Cancelled,
}

impl PublishError {
    /// Returns what to do. A message that is too large holds a record that is.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::TooLarge { .. } => Remedy::Quarantine,
            Self::NotAcknowledged { .. } | Self::Cancelled => Remedy::RETRY,
        }
    }
}

/// A message was offered and not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The stream is full. The message was not stored.
    #[error("the stream is full")]
    Full,
    /// The message is larger than any message may be. It was not sent.
    #[error("a message of {size} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLarge {
        /// Size of the payload in bytes.
        size: usize,
    },
    /// JetStream has not answered in time. The message may be stored nevertheless.
    #[error("JetStream has not acknowledged a message in {patience:?}")]
    NotAcknowledged {
        /// How long it was tried.
        patience: Duration,
    },
}

impl OfferError {
    /// Returns what to do.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::TooLarge { .. } => Remedy::Quarantine,
            Self::Full | Self::NotAcknowledged { .. } => Remedy::RETRY,
        }
    }
}

/// An acknowledgement was not confirmed. The message will be delivered again, which is harmless.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The stream or the consumer is another one by now; the message is gone.
    #[error("the stream was replaced since the message was delivered")]
    Replaced,
    /// The broker was killed before it had written down that it delivered the message.
    #[error("the broker does not know of the delivery any more and repeats it")]
    Forgotten,
    /// Nobody has confirmed it in time.
    #[error("the broker has not confirmed an acknowledgement")]
    Unconfirmed(#[source] Cause),
}

impl AckError {
    /// Returns what to do: take the message again when it is delivered again.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Replaced | Self::Forgotten | Self::Unconfirmed(_) => Remedy::RETRY,
        }
    }
}

/// A question was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens.
    #[error("nobody answers on `{0}`; is such a service running?")]
    NoResponders(Subject),
    /// Somebody may have listened but has not answered in time.
    #[error("no answer on `{subject}` in {timeout:?}")]
    TimedOut {
        /// The subject.
        subject: Subject,
        /// How long was waited.
        timeout: Duration,
    },
    /// The other side refused to answer, and says why.
    #[error("{0}")]
    Refused(String),
    /// Question or answer cannot be read or written, or is too large.
    #[error("question or answer on `{subject}` is not usable")]
    Unusable {
        /// The subject.
        subject: Subject,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// The broker could not be reached.
    #[error("the broker cannot carry a question")]
    Broker(#[source] Cause),
}

impl AskError {
    /// Returns what to do.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NoResponders(_) | Self::TimedOut { .. } | Self::Broker(_) => Remedy::RETRY,
            Self::Refused(_) | Self::Unusable { .. } => Remedy::Stop,
        }
    }
}
