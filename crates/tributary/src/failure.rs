//! What an operator reads when a command fails: what failed, the detail, what to do.

use std::fmt;

use tonic::{Code, Status};

/// Why a command ends with another exit code than 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something failed; the three sentences are not printed yet.
    Told(Told),
    /// The result, which is printed already, is a bad one.
    Result,
}

/// Three sentences, each without a full stop; empty where there is nothing to say.
#[derive(Debug)]
pub(crate) struct Told {
    what: String,
    detail: String,
    hint: String,
    unreachable: bool,
}

impl Failure {
    pub(crate) fn new(
        what: impl Into<String>,
        detail: impl fmt::Display,
        hint: impl Into<String>,
    ) -> Self {
        Self::Told(Told {
            what: what.into(),
            detail: detail.to_string(),
            hint: hint.into(),
            unreachable: false,
        })
    }

    pub(crate) fn unreachable(server: &str, detail: &str, hint: &str) -> Self {
        Self::Told(Told {
            what: format!("the server {server} cannot be reached"),
            detail: detail.to_owned(),
            hint: hint.to_owned(),
            unreachable: true,
        })
    }

    /// Says what the server answered instead of a result.
    pub(crate) fn refused(what: impl Into<String>, status: &Status) -> Self {
        let hint = match status.code() {
            Code::NotFound => "see `tributary pipelines` and `tributary runs` for what there is",
            Code::PermissionDenied => "ask for a token with another role",
            Code::Unimplemented => "use a server and a client of the same release",
            Code::Internal | Code::Unknown | Code::DataLoss => {
                "the log of the scheduler tells more"
            }
            Code::ResourceExhausted | Code::Aborted | Code::DeadlineExceeded => "try again",
            _ => "",
        };
        Self::new(what, status.message(), hint)
    }

    /// Returns the exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Told(told) if told.unreachable => 3,
            Self::Told(_) | Self::Result => 1,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        Self::new(error.to_string(), causes.join(": "), "")
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("error: ")?;
        for (index, sentence) in [&self.what, &self.detail, &self.hint]
            .into_iter()
            .filter(|sentence| !sentence.is_empty())
            .enumerate()
        {
            if index > 0 {
                f.write_str("\n  ")?;
            }
            f.write_str(sentence.trim_end_matches('.'))?;
            f.write_str(".")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(failure: &Failure) -> String {
        match failure {
            Failure::Told(told) => told.to_string(),
            Failure::Result => String::new(),
        }
    }

    #[test]
    fn a_failure_is_up_to_three_sentences() {
        let failure = Failure::new("the run cannot be started", "it is going already.", "wait");
        assert_eq!(
            text(&failure),
            "error: the run cannot be started.\n  it is going already.\n  wait."
        );
        let error = anyhow::anyhow!("no such file").context("the settings cannot be read");
        let failure = Failure::from(error);
        assert_eq!(text(&failure), "error: the settings cannot be read.\n  no such file.");
    }

    #[test]
    fn exit_codes_tell_failures_apart() {
        assert_eq!(Failure::unreachable("http://a", "", "").code(), 3);
        assert_eq!(Failure::new("a", "", "").code(), 1);
        assert_eq!(Failure::Result.code(), 1);
    }
}
