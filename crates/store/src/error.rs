#![deny(clippy::wildcard_enum_match_arm, reason = "a new variant forces a decision")]

use model::{PipelineName, Remedy, RunId};

/// The control plane's database could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the database names no kind of database that is known.
    #[error("the database address starts with neither `postgres://` nor `sqlite://`")]
    Address,
    /// The database is away, busy, or gave way to another transaction.
    #[error("the control plane's database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused a statement.
    #[error("the control plane's database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// The tables could not be brought up to date.
    #[error("the tables of the control plane's database cannot be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// The lock file beside an SQLite file cannot be used.
    #[error("the file `{path}` cannot be created or locked")]
    File {
        /// Path of the file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A row holds what this version does not understand.
    #[error("`{column}` holds what this version of Tributary cannot read")]
    Unreadable {
        /// The column.
        column: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no pipeline of that name.
    #[error("there is no pipeline `{0}`")]
    NoPipeline(PipelineName),
    /// There is no run of that id.
    #[error("there is no run `{0}`")]
    NoRun(RunId),
    /// Another run of the pipeline is going.
    #[error("run `{run}` of pipeline `{pipeline}` is still going")]
    StillRunning {
        /// The pipeline.
        pipeline: PipelineName,
        /// The run that is going.
        run: RunId,
    },
    /// Somebody else has created the run that was due.
    #[error("the run of pipeline `{0}` that was due exists already")]
    NotDue(PipelineName),
    /// As many runs go on at a connection as may.
    #[error("connection `{0}` has no place for another run")]
    NoPlace(PipelineName),
    /// The pipeline was changed since it was looked at.
    #[error("pipeline `{0}` was changed by somebody else at the same time")]
    Changed(PipelineName),
}

impl Error {
    /// Returns what the caller does about it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unavailable(_) | Self::Changed(_) => Remedy::RETRY,
            Self::Address
            | Self::Refused(_)
            | Self::Migration(_)
            | Self::File { .. }
            | Self::Unreadable { .. }
            | Self::NoPipeline(_)
            | Self::NoRun(_)
            | Self::StillRunning { .. }
            | Self::NotDue(_)
            | Self::NoPlace(_) => Remedy::Stop,
        }
    }

    pub(crate) fn unreadable(
        column: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unreadable { column, source: source.into() }
    }
}

/// SQLSTATE classes and codes after which the same transaction may succeed: connection lost,
/// serialization failure, deadlock, resources, shut down by an operator.
const TRANSIENT: [&str; 6] = ["08", "40", "53", "57", "55P03", "25P03"];

/// Primary result codes of SQLite for a file that somebody else is writing to: busy, locked.
const BUSY: [&str; 2] = ["5", "6"];

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the list of what is retried is short; everything else is not"
)]
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let transient = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(database) => database.code().is_some_and(|code| {
                TRANSIENT.iter().any(|transient| code.starts_with(transient) && code.len() == 5)
                    || is_busy(&code)
            }),
            _ => false,
        };
        if transient { Self::Unavailable(error) } else { Self::Refused(error) }
    }
}

/// An extended result code of SQLite holds the primary one in its lowest byte.
fn is_busy(code: &str) -> bool {
    code.parse::<u32>()
        .is_ok_and(|code| code < 10_000 && BUSY.contains(&(code & 0xff).to_string().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_by_itself_is_retried() {
        assert_eq!(Error::from(sqlx::Error::PoolTimedOut).remedy(), Remedy::RETRY);
        assert_eq!(Error::from(sqlx::Error::RowNotFound).remedy(), Remedy::Stop);
        assert!(is_busy("5") && is_busy("517"));
        assert!(!is_busy("19") && !is_busy("2067") && !is_busy("23505"));
    }
}
