//! What is kept of records and may be sealed, to be sealed anew.

use model::PipelineName;

use crate::{Error, Store, value::args};

/// What the quarantine keeps of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRecord {
    /// Id in the quarantine.
    pub id: i64,
    /// Name of the pipeline.
    pub pipeline: PipelineName,
    /// A batch message that holds this record alone.
    pub contents: Option<Vec<u8>>,
    /// The text of a record that could not be parsed at all.
    pub raw: Option<Vec<u8>>,
}

/// A sealed cursor of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedCursor {
    /// Name of the pipeline.
    pub pipeline: PipelineName,
    /// Name of the part.
    pub part: String,
    /// The cursor, as the extractor has sealed it.
    pub cursor: String,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    pipeline: String,
    contents: Option<Vec<u8>>,
    raw: Option<Vec<u8>>,
}

impl Store {
    /// Returns what the quarantine keeps of at most `limit` records with ids above `after`, in the
    /// order of their ids, those of which nothing is kept left out. Empty: there are no more.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn kept_records(&self, after: i64, limit: u32) -> Result<Vec<KeptRecord>, Error> {
        let rows: Vec<Row> = self
            .pool
            .fetch(
                "select id, pipeline, contents, raw from quarantine \
                 where id > $1 and (contents is not null or raw is not null) \
                 order by id limit $2",
                args![after, limit],
            )
            .await?;
        let kept = rows.into_iter().map(|Row { id, pipeline, contents, raw }| {
            let pipeline = name("quarantine.pipeline", &pipeline)?;
            Ok(KeptRecord { id, pipeline, contents, raw })
        });
        kept.collect()
    }

    /// Replaces what the quarantine keeps of a record. A record that left it meanwhile stays away.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn replace_kept(&self, record: KeptRecord) -> Result<(), Error> {
        let KeptRecord { id, contents, raw, .. } = record;
        self.pool
            .execute(
                "update quarantine set contents = $2, raw = $3 where id = $1",
                args![id, contents, raw],
            )
            .await?;
        Ok(())
    }

    /// Returns the cursors of all pipelines that are sealed, in no order.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn sealed_cursors(&self) -> Result<Vec<SealedCursor>, Error> {
        let rows: Vec<(String, String, String)> = self
            .pool
            .fetch(
                "select pipeline, part, cursor_text from cursors where cursor_text like 'sealed:%'",
                args![],
            )
            .await?;
        let cursors = rows.into_iter().map(|(pipeline, part, cursor)| {
            Ok(SealedCursor { pipeline: name("cursors.pipeline", &pipeline)?, part, cursor })
        });
        cursors.collect()
    }

    /// Replaces a cursor by one that says the same, unless it moved meanwhile; then it returns
    /// `false`.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn replace_cursor(&self, found: &SealedCursor, same: &str) -> Result<bool, Error> {
        let replaced = self
            .pool
            .execute(
                "update cursors set cursor_text = $4 \
                 where pipeline = $1 and part = $2 and cursor_text = $3",
                args![&found.pipeline, &found.part, &found.cursor, same],
            )
            .await?;
        Ok(replaced > 0)
    }

    /// Returns the cursors in the books of runs that have not ended, those that are sealed, in no
    /// order. They are compared with each other, so they stay as they are until the run ends.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn sealed_cursors_of_runs(&self) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .pool
            .fetch(
                "select cursor_before from batches where cursor_before like 'sealed:%' \
                 union select cursor_after from batches where cursor_after like 'sealed:%' \
                 union select end_cursor from parts where end_cursor like 'sealed:%' \
                 union select cursor_text from run_cursors where cursor_text like 'sealed:%'",
                args![],
            )
            .await?;
        Ok(rows.into_iter().map(|(cursor,)| cursor).collect())
    }
}

fn name(column: &'static str, text: &str) -> Result<PipelineName, Error> {
    text.parse().map_err(|error| Error::unreadable(column, error))
}
