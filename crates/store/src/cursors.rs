use chrono::{DateTime, Utc};
use model::PipelineName;

use crate::{Error, Run, Store, database::Tx, value::args};

/// Where a part of a source stands: everything before it is loaded, filtered or quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedCursor {
    /// Name of the part.
    pub part: String,
    /// The cursor, as the connector writes it.
    pub cursor: String,
}

impl Store {
    /// Returns where the parts of a pipeline's source stand, by part.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn loaded_cursors(
        &self,
        pipeline: &PipelineName,
    ) -> Result<Vec<LoadedCursor>, Error> {
        let rows: Vec<(String, String)> = self
            .pool
            .fetch(
                "select part, cursor_text from cursors where pipeline = $1 order by part",
                args![pipeline],
            )
            .await?;
        Ok(rows.into_iter().map(|(part, cursor)| LoadedCursor { part, cursor }).collect())
    }
}

/// Moves the cursors of a run's parts: its own, and those of the pipeline, unless it is a backfill or
/// its source is one that the pipeline had before.
pub(crate) async fn advance(
    tx: &mut Tx,
    run: &Run,
    cursors: Vec<LoadedCursor>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let rows =
        cursors.iter().map(|LoadedCursor { part, cursor }| args![run.id, part, cursor]).collect();
    tx.insert(
        "insert into run_cursors (run_id, part, cursor_text)",
        rows,
        "on conflict (run_id, part) do update set cursor_text = excluded.cursor_text",
    )
    .await?;
    if run.range.is_some() {
        return Ok(());
    }
    let (pipeline, revision) = (&run.pipeline, run.revision);
    let valid: Vec<(i64,)> = tx
        .fetch(
            "select revision from pipelines \
             where name = $1 and cursors_since <= $2 and deleted_at is null",
            args![pipeline, revision],
        )
        .await?;
    if valid.is_empty() {
        return Ok(());
    }
    let rows = cursors
        .into_iter()
        .map(|LoadedCursor { part, cursor }| args![pipeline, part, cursor, now])
        .collect();
    tx.insert(
        "insert into cursors (pipeline, part, cursor_text, updated_at)",
        rows,
        "on conflict (pipeline, part) do update set cursor_text = excluded.cursor_text, \
         updated_at = excluded.updated_at",
    )
    .await?;
    Ok(())
}
