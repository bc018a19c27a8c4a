use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use crate::PushWindow;

/// A text is not a valid id.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {rule}")]
pub struct InvalidId {
    text: String,
    what: &'static str,
    rule: &'static str,
}

/// Id of a run: a UUID of version 7, so later runs sort after earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(uuid::Uuid);

impl RunId {
    /// Makes a new id, later than all that this process made before.
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7())
    }

    /// Names the run that accounts for what was pushed to a revision in a window of time. Everybody
    /// who takes pushes in gives it the same name, without asking.
    #[must_use]
    pub fn of_window(pipeline: &PipelineName, revision: u32, window: PushWindow) -> Self {
        let text = format!("{pipeline}/{revision}/{}-{}", window.start_ms, window.end_ms);
        let hash = XxHash3_128::oneshot(text.as_bytes());
        let [_, _, time @ ..] = window.start_ms.to_be_bytes();
        let mut bytes = hash.to_be_bytes();
        // Like other ids of runs it begins with its time.
        bytes[..6].copy_from_slice(&time);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl std::str::FromStr for RunId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.parse().map(Self).map_err(|_| InvalidId {
            text: text.to_owned(),
            what: "run id",
            rule: "it is a UUID as `tributary runs` shows it",
        })
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Name of a pipeline: 1 to 63 of `a-z`, `0-9`, `_` and `-`, starting with a letter.
///
/// It is a token of subjects, consumer names and metric labels, hence the limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PipelineName(String);

impl PipelineName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PipelineName {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        let valid = text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if valid {
            Ok(Self(text))
        } else {
            Err(InvalidId {
                text,
                what: "name",
                rule: "use 1 to 63 of a-z, 0-9, _ and -, starting with a letter",
            })
        }
    }
}

impl std::str::FromStr for PipelineName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.to_owned().try_into()
    }
}

impl From<PipelineName> for String {
    fn from(name: PipelineName) -> Self {
        name.0
    }
}

impl fmt::Display for PipelineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Id of a batch: names the source range and its content, so equal ids mean equal records.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BatchId(String);

impl BatchId {
    /// Names the records of one part of a run between two positions, with a hash of their content.
    #[must_use]
    pub fn new(run: RunId, part: u32, first: u64, last: u64, content_hash: u64) -> Self {
        Self(format!("{run}/{part}/{first}-{last}/{content_hash:016x}"))
    }

    /// Takes an id from the wire.
    #[must_use]
    pub fn from_wire(text: String) -> Self {
        Self(text)
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_break_a_subject_is_refused() {
        for name in ["", "a.b", "A", "1a", "a b", "a>", &"a".repeat(64)] {
            assert!(name.parse::<PipelineName>().is_err(), "{name}");
        }
        assert!("shop-orders_2".parse::<PipelineName>().is_ok());
    }
}
