use std::fmt;

use model::Remedy;

/// A source or target failed as a whole; a single record that is refused is not an error.
///
/// `Display` gives what failed; the cause is the `source`. Neither holds values of records or
/// secrets.
#[derive(Debug)]
pub struct Error {
    /// What failed, with its place: the file and line, the table, the address without credentials.
    pub what: String,
    /// What to do about it, in one sentence.
    pub hint: String,
    /// What the caller does about it.
    pub remedy: Remedy,
    /// The cause.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error that stops the run until an operator has done what `hint` says.
    #[must_use]
    pub fn stop(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into(), remedy: Remedy::Stop, source: None }
    }

    /// Makes an error that goes away by itself when the call is repeated.
    #[must_use]
    pub fn retry(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into(), remedy: Remedy::RETRY, source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Returns what failed and all causes, from the outside in, joined by `: `.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.what.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}
