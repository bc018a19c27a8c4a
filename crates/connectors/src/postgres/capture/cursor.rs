use connect::Error;
use pgwire_replication::Lsn;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sql;

/// Where capturing a table stands. JSON on the wire; the empty text is before the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Cursor {
    /// Within the rows that were there at the beginning.
    Snapshot(Snapshot),
    /// Within the log.
    Log(Log),
}

/// A place in the first reading of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Snapshot {
    /// The log tells every change to the rows read so far from here on.
    #[serde(with = "position")]
    pub(super) at: Lsn,
    /// The last row.
    pub(super) rows: sql::cursor::Cursor,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    /// Behind the last transaction that was read to its end.
    #[serde(with = "position")]
    pub(super) at: Lsn,
    /// Everything before this is loaded, so that the server need not keep it.
    #[serde(with = "position")]
    pub(super) loaded: Lsn,
    /// The transaction behind `at`, as far as it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) within: Option<Within>,
    /// Number of records since the beginning; it is the position of the last one.
    pub(super) row: u64,
}

/// A place in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Within {
    /// Where the transaction was committed.
    #[serde(with = "position")]
    pub(super) commit: Lsn,
    /// Number of changes to the table that were read.
    pub(super) changes: u64,
}

impl Cursor {
    /// Reads a cursor; `None`: at the beginning.
    ///
    /// # Errors
    ///
    /// Stops the run for a text that is none.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, Error> {
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(text).map(Some).map_err(|cause| {
            Error::stop(
                "the cursor of the last run does not belong to a captured table",
                "run once with `--full` after changing how a source is read",
            )
            .because(cause)
        })
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts can always be JSON")
    }

    /// Returns from where on the log is needed.
    pub(super) fn at(&self) -> Lsn {
        match self {
            Self::Snapshot(snapshot) => snapshot.at,
            Self::Log(log) => log.at,
        }
    }

    /// Returns the position of the last record.
    pub(super) fn row(&self) -> u64 {
        match self {
            Self::Snapshot(snapshot) => snapshot.rows.row,
            Self::Log(log) => log.row,
        }
    }

    /// Returns where a run starts behind this cursor, which is loaded.
    pub(super) fn restart(self) -> Self {
        match self {
            Self::Snapshot(snapshot) => Self::Snapshot(snapshot),
            Self::Log(log) => Self::Log(Log { loaded: log.at, ..log }),
        }
    }
}

impl Log {
    /// The place behind a snapshot of `row` records. Not all of it is loaded, but the server has to
    /// keep nothing of the log before it: what is read again is read from the table.
    pub(super) fn behind(at: Lsn, row: u64) -> Self {
        Self { at, loaded: at, within: None, row }
    }
}

/// Positions as PostgreSQL writes them.
mod position {
    use super::{Deserialize, Deserializer, Lsn, Serializer};

    pub(super) fn serialize<S: Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&lsn.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(text: D) -> Result<Lsn, D::Error> {
        let text = String::deserialize(text)?;
        Lsn::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_is_none_of_ours_is_refused() {
        for text in
            ["{", "{\"row\":1}", "{\"log\":{\"at\":\"0/1\"}}", "{\"log\":{\"at\":1,\"loaded\":1}}"]
        {
            assert!(Cursor::parse(text).is_err(), "{text}");
        }
        assert_eq!(Cursor::parse("").unwrap(), None);
    }

    #[test]
    fn a_restart_within_a_transaction_confirms_what_is_before_it() {
        let within = Some(Within { commit: Lsn(0x50), changes: 3 });
        let log = Cursor::Log(Log { at: Lsn(0x40), loaded: Lsn(0x10), within, row: 7 });
        assert_eq!(Cursor::parse(&log.to_text()).unwrap(), Some(log.clone()));
        let expected = Log { at: Lsn(0x40), loaded: Lsn(0x40), within, row: 7 };
        assert_eq!(log.restart(), Cursor::Log(expected));
    }
}
