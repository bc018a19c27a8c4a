use chrono::{DateTime, Utc};
use model::RunId;

use crate::{Error, Store, database::Tx, value::args};

impl Store {
    /// Returns what the stages noted about a run, oldest first.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn notes(&self, run: RunId) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .pool
            .fetch(
                "select text from notes where run_id = $1 order by noted_at, text_digest",
                args![run],
            )
            .await?;
        Ok(rows.into_iter().map(|(text,)| text).collect())
    }
}

/// Keeps a note. The same text counts once per run.
pub(crate) async fn note(
    tx: &mut Tx,
    run: RunId,
    stage: &str,
    text: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    // A text may be longer than an index of PostgreSQL allows.
    let digest = format!("{:016x}", twox_hash::XxHash3_64::oneshot(text.as_bytes()));
    tx.execute(
        "insert into notes (run_id, text_digest, stage, text, noted_at) \
         values ($1, $2, $3, $4, $5) on conflict do nothing",
        args![run, digest, stage, text, now],
    )
    .await?;
    Ok(())
}
