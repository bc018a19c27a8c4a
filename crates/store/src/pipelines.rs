use chrono::{DateTime, Utc};
use model::{PipelineName, Schema};
use spec::Revision;

use crate::{
    Error, RunState, Store,
    database::Tx,
    ending::{Ending, end},
    value::args,
};

/// A pipeline as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPipeline {
    /// The current revision.
    pub revision: Revision,
    /// When it was applied.
    pub applied_at: DateTime<Utc>,
}

/// A revision to store.
#[derive(Debug, Clone)]
pub struct NewRevision {
    /// Name of the pipeline.
    pub name: PipelineName,
    /// The revision that it is to replace; `None`: there is no such pipeline.
    pub replaces: Option<u32>,
    /// The text.
    pub yaml: String,
    /// The schema, if it is known already.
    pub schema: Option<Schema>,
    /// Forget where the source stands: the cursors are of another source, or a target that has
    /// seen nothing yet has come.
    pub forget_cursors: bool,
}

#[derive(sqlx::FromRow)]
struct Row {
    name: String,
    revision: i64,
    yaml: String,
    source_schema: Option<String>,
    applied_at: DateTime<Utc>,
}

impl TryFrom<Row> for StoredPipeline {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let schema = row
            .source_schema
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| Error::unreadable("revisions.source_schema", error))?;
        Ok(Self {
            revision: Revision {
                name: row
                    .name
                    .parse()
                    .map_err(|error| Error::unreadable("pipelines.name", error))?,
                revision: u32::try_from(row.revision)
                    .map_err(|error| Error::unreadable("revisions.revision", error))?,
                yaml: row.yaml,
                schema,
            },
            applied_at: row.applied_at,
        })
    }
}

impl Store {
    /// Returns the current revisions of all pipelines, by name.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn pipelines(&self) -> Result<Vec<StoredPipeline>, Error> {
        let rows: Vec<Row> = self
            .pool
            .fetch(
                "select p.name, r.revision, r.yaml, r.source_schema, r.applied_at \
                 from pipelines p \
                 join revisions r on r.pipeline = p.name and r.revision = p.revision \
                 where p.deleted_at is null order by p.name",
                args![],
            )
            .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Returns the current revision of a pipeline; `None`: there is no such pipeline.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn pipeline(&self, name: &PipelineName) -> Result<Option<StoredPipeline>, Error> {
        let row: Option<Row> = self
            .pool
            .fetch_optional(
                "select p.name, r.revision, r.yaml, r.source_schema, r.applied_at \
                 from pipelines p \
                 join revisions r on r.pipeline = p.name and r.revision = p.revision \
                 where p.deleted_at is null and p.name = $1",
                args![name],
            )
            .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Returns one revision of a pipeline, which may be deleted by now.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn revision(
        &self,
        name: &PipelineName,
        revision: u32,
    ) -> Result<Option<Revision>, Error> {
        let row: Option<Row> = self
            .pool
            .fetch_optional(
                "select pipeline as name, revision, yaml, source_schema, applied_at \
                 from revisions where pipeline = $1 and revision = $2",
                args![name, revision],
            )
            .await?;
        Ok(row.map(StoredPipeline::try_from).transpose()?.map(|stored| stored.revision))
    }

    /// Returns the revisions that runs which are going on were started with and that are not the
    /// current ones.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn earlier_revisions_in_use(&self) -> Result<Vec<Revision>, Error> {
        let rows: Vec<Row> = self
            .pool
            .fetch(
                "select p.name, r.revision, r.yaml, r.source_schema, r.applied_at \
                 from runs u \
                 join pipelines p on p.name = u.pipeline \
                 join revisions r on r.pipeline = u.pipeline and r.revision = u.revision \
                 where u.state in ('running', 'paused') and p.deleted_at is null and u.revision <> p.revision",
                args![],
            )
            .await?;
        rows.into_iter().map(|row| StoredPipeline::try_from(row).map(|p| p.revision)).collect()
    }

    /// Stores new revisions, all or none, and returns them with their numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] when a pipeline is not at the revision that was to be replaced.
    pub async fn apply(
        &self,
        mut changes: Vec<NewRevision>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Revision>, Error> {
        // One order for everybody, so that nobody waits in a circle.
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut tx = self.pool.begin().await?;
        let mut applied = Vec::new();
        for change in changes {
            applied.push(apply(&mut tx, change, now).await?);
        }
        tx.commit().await?;
        Ok(applied)
    }

    /// Keeps an inferred schema with its revision and returns the one that is kept: the first.
    ///
    /// # Errors
    ///
    /// When there is no such revision.
    pub async fn keep_schema(
        &self,
        name: &PipelineName,
        revision: u32,
        schema: &Schema,
    ) -> Result<Schema, Error> {
        let text = serde_json::to_string(schema).expect("a schema can be written as JSON");
        self.pool
            .execute(
                "update revisions set source_schema = $3 \
                 where pipeline = $1 and revision = $2 and source_schema is null",
                args![name, revision, text],
            )
            .await?;
        self.revision(name, revision)
            .await?
            .and_then(|revision| revision.schema)
            .ok_or_else(|| Error::NoPipeline(name.clone()))
    }

    /// Removes a pipeline: its runs stay as history, a run that is going on is cancelled, cursors
    /// and quarantined records are gone.
    ///
    /// # Errors
    ///
    /// [`Error::NoPipeline`] where there is none of that name.
    pub async fn delete_pipeline(
        &self,
        name: &PipelineName,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let mut tx = self.pool.begin().await?;
        let running: Vec<(String,)> = tx
            .fetch(
                "select id from runs where pipeline = $1 \
                 and state in ('waiting', 'running', 'paused')",
                args![name],
            )
            .await?;
        for (id,) in running {
            let run = id.parse().map_err(|error| Error::unreadable("runs.id", error))?;
            let ending =
                Ending { state: RunState::Cancelled, reason: "the pipeline was deleted", hint: "" };
            end(&mut tx, run, &ending, now).await?;
        }
        let deleted = tx
            .execute(
                "update pipelines set deleted_at = $2 where name = $1 and deleted_at is null",
                args![name, now],
            )
            .await?;
        if deleted == 0 {
            return Err(Error::NoPipeline(name.clone()));
        }
        tx.execute("delete from cursors where pipeline = $1", args![name]).await?;
        tx.execute("delete from quarantine where pipeline = $1", args![name]).await?;
        tx.execute("delete from schedules where pipeline = $1", args![name]).await?;
        tx.commit().await
    }
}

async fn apply(tx: &mut Tx, change: NewRevision, now: DateTime<Utc>) -> Result<Revision, Error> {
    let NewRevision { name, replaces, yaml, schema, forget_cursors } = change;
    let stored: Option<(i64, Option<DateTime<Utc>>)> = tx
        .fetch_locked("select revision, deleted_at from pipelines where name = $1", args![&name])
        .await?
        .into_iter()
        .next();
    let current =
        stored.filter(|(_, deleted_at)| deleted_at.is_none()).map(|(revision, _)| revision);
    if current != replaces.map(i64::from) {
        return Err(Error::Changed(name));
    }
    let number = stored.map_or(1, |(revision, _)| revision + 1);
    if stored.is_none() {
        let inserted = tx
            .execute(
                "insert into pipelines (name, revision, cursors_since, created_at) \
                 values ($1, $2, $2, $3) on conflict do nothing",
                args![&name, number, now],
            )
            .await?;
        if inserted == 0 {
            return Err(Error::Changed(name));
        }
    } else {
        tx.execute(
            "update pipelines set revision = $2, deleted_at = null where name = $1",
            args![&name, number],
        )
        .await?;
    }
    if forget_cursors || current.is_none() {
        tx.execute("update pipelines set cursors_since = $2 where name = $1", args![&name, number])
            .await?;
        tx.execute("delete from cursors where pipeline = $1", args![&name]).await?;
    }
    let text = schema
        .as_ref()
        .map(|schema| serde_json::to_string(schema).expect("a schema can be written as JSON"));
    tx.execute(
        "insert into revisions (pipeline, revision, yaml, source_schema, applied_at) \
         values ($1, $2, $3, $4, $5)",
        args![&name, number, &yaml, text, now],
    )
    .await?;
    let revision =
        u32::try_from(number).map_err(|error| Error::unreadable("revisions.revision", error))?;
    Ok(Revision { name, revision, yaml, schema })
}
