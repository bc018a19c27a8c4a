//! Where the reading of an API stands.

use connect::Error;
use serde::{Deserialize, Serialize};
use spec::PageKind;

/// The cursor of an HTTP source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Cursor {
    /// Greatest value of the growing field that completed runs have seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<i64>,
    /// Token of the last completed run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    /// What the last completed run read, to ask whether it has changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) seen: Vec<Seen>,
    /// How long an answer usually takes, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usual_ms: Option<u32>,
    /// The run that is going on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<Progress>,
}

/// How far a run has come: everything before it was given out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    /// When the run began, microseconds since 1970-01-01 UTC.
    pub(super) began: i64,
    /// The run reads this range and leaves what completed runs have seen alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range: Option<(Option<String>, Option<String>)>,
    /// Beginning of the piece that is being asked for, lookback not yet taken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<i64>,
    /// Its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<i64>,
    /// End of the last piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<i64>,
    /// Greatest value of the growing field so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max: Option<i64>,
    /// Token that the last answer had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    /// Page of parents that is being worked on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parents: Option<Page>,
    /// Parent that is being worked on, as JSON; none: the first of the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<String>,
    /// Page that comes next.
    pub(super) page: Page,
    /// Records of the page that were given out.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) skip: u64,
    /// Position of the last record before the page.
    pub(super) position: u64,
    /// What was read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) seen: Vec<Seen>,
    /// How often the pages were begun again.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) restarts: u64,
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Page {
    /// Number of pages before it.
    pub(super) index: u64,
    /// Records before it.
    pub(super) records: u64,
    /// What leads to it: a token, a link, or the key of the last record as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<String>,
    /// The way, where it was found out from the first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) way: Option<PageKind>,
}

/// An answer, as far as it is needed to ask whether it has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Hash of the request.
    pub(super) request: u64,
    /// `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    /// `Last-Modified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) modified: Option<String>,
    /// Page behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<Page>,
}

/// So many answers are remembered; a cursor travels with every batch.
pub(super) const MOST_SEEN: usize = 24;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Cursor {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|cause| {
            Error::stop(
                "the cursor of the HTTP source cannot be understood",
                "start the pipeline with `tributary run NAME --full`",
            )
            .because(cause)
        })
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts always become JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_written() {
        assert!(Cursor::parse("{").is_err());
        assert_eq!(Cursor::parse("").unwrap(), Cursor::default());
        let page = Page { index: 3, records: 300, by: Some("abc".to_owned()), way: None };
        let seen = Seen {
            request: 7,
            etag: Some("\"x\"".to_owned()),
            modified: None,
            next: Some(page.clone()),
        };
        let run = Progress { page, position: 9, seen: vec![seen.clone()], ..Progress::default() };
        let cursor =
            Cursor { since: Some(5), run: Some(run), seen: vec![seen], ..Cursor::default() };
        assert_eq!(Cursor::parse(&cursor.to_text()).unwrap(), cursor);
    }
}
