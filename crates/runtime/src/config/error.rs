use std::fmt;

use serde::de::{self, Unexpected};

/// A setting cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Path of the key, outermost first; empty where the whole file is to blame.
    pub(super) path: Vec<String>,
    /// File and line, or variable. Empty: not known yet.
    pub(super) origin: String,
    pub(super) message: String,
}

impl ConfigError {
    /// Makes an error without a place.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { path: Vec::new(), origin: String::new(), message: message.into() }
    }

    /// Returns the path of the key, such as `batch.max_records`; empty where no key is to blame.
    #[must_use]
    pub fn key(&self) -> String {
        self.path.join(".")
    }

    pub(super) fn from(mut self, origin: &str) -> Self {
        if self.origin.is_empty() {
            origin.clone_into(&mut self.origin);
        }
        self
    }

    pub(super) fn below(mut self, key: impl Into<String>) -> Self {
        self.path.insert(0, key.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.key())?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", described(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", described(found)))
    }

    fn unknown_field(_field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key, expected {}", one_of(expected)))
    }

    fn unknown_variant(_variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown choice, expected {}", one_of(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"))
    }
}

fn described(found: Unexpected<'_>) -> String {
    match found {
        // A text may be a secret.
        Unexpected::Str(_) => "another text".to_owned(),
        other => other.to_string(),
    }
}

fn one_of(expected: &[&str]) -> String {
    match expected {
        [] => "nothing".to_owned(),
        [one] => format!("`{one}`"),
        many => format!("one of `{}`", many.join("`, `")),
    }
}
