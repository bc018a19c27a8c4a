use connect::{Error, PartCursor, RunOptions};
use serde::{Deserialize, Serialize};

/// Where reading a table stands. JSON on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cursor {
    /// Number of the last row, counted from 1; it is the position of its record.
    pub(crate) row: u64,
    /// Greatest value of the cursor column that was ever read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) high: Option<String>,
    /// Values of the last row: the cursor column, if there is one, then the key. Empty: at the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) after: Vec<String>,
    /// The last row is one of those without a value in the cursor column, which are read first;
    /// `after` holds its key alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) nulls: bool,
    /// There was no further row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) end: bool,
}

impl Cursor {
    /// Reads a cursor; the empty text is the start.
    ///
    /// # Errors
    ///
    /// Stops the run for a text that is none.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|cause| {
            Error::stop(
                "the cursor of the last run does not belong to a table",
                "run once with `--full` after changing the kind of a source",
            )
            .because(cause)
        })
    }

    /// Returns where a run starts that gets `cursors`.
    ///
    /// # Errors
    ///
    /// Stops the run for a text that is none.
    pub(crate) fn start(
        cursors: &[PartCursor],
        full: bool,
        incremental: bool,
        options: &RunOptions,
    ) -> Result<Self, Error> {
        let last = cursors.iter().find(|cursor| cursor.part.is_empty());
        let Some(last) = last.filter(|_| !full) else { return Ok(Self::default()) };
        let last = Self::parse(&last.cursor)?;
        if options.resumed && !last.end { Ok(last) } else { Ok(last.restart(incremental)) }
    }

    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts can always be JSON")
    }

    /// Returns where the next run starts.
    ///
    /// A table without a cursor column is always read from its beginning. With one, reading goes
    /// back behind the greatest value. Inside of a run that is handed out again rows are numbered
    /// on, so that what is read again is newer than what was read before.
    pub(crate) fn restart(&self, incremental: bool) -> Self {
        Self {
            row: if self.end { 0 } else { self.row },
            high: self.high.clone().filter(|_| incremental),
            ..Self::default()
        }
    }
}

/// Writes the id of a row: `<table>/<key>` and, where there is a cursor column, `@<its value>`.
pub(crate) fn write_id(id: &mut String, table: &str, key: &[String], cursor: Option<&str>) {
    id.push_str(table);
    for (index, value) in key.iter().enumerate() {
        id.push(if index == 0 { '/' } else { ',' });
        if key.len() > 1 && value.contains([',', '\\']) {
            id.push_str(&value.replace('\\', "\\\\").replace(',', "\\,"));
        } else {
            id.push_str(value);
        }
    }
    if let Some(value) = cursor {
        id.push('@');
        id.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_is_none_of_ours_is_refused() {
        for text in ["{", "[]", "{\"row\":1,\"x\":2}", "{\"offset\":3}"] {
            assert!(Cursor::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_restart_keeps_the_greatest_value_and_forgets_the_place() {
        let cursor = Cursor {
            row: 7,
            high: Some("b".to_owned()),
            after: vec!["a".to_owned(), "1".to_owned()],
            nulls: false,
            end: false,
        };
        assert_eq!(Cursor::parse(&cursor.to_text()).unwrap(), cursor);
        let next = cursor.restart(true);
        assert_eq!((next.row, next.high.as_deref(), next.after.len()), (7, Some("b"), 0));
        let ended = Cursor { end: true, ..cursor };
        assert_eq!(ended.restart(true).row, 0);
        assert_eq!(ended.restart(false).high, None);
    }

    #[test]
    fn ids_of_different_keys_differ() {
        let id = |key: &[&str]| {
            let key: Vec<_> = key.iter().map(|part| (*part).to_owned()).collect();
            let mut text = String::new();
            write_id(&mut text, "t", &key, None);
            text
        };
        assert_ne!(id(&["a,b", "c"]), id(&["a", "b,c"]));
        assert_eq!(id(&["a,b"]), "t/a,b");
    }
}
