//! What pipelines share: quotas and connections.

use chrono::{DateTime, Utc};
use model::PipelineName;
use spec::{Connection, NamedQuota, Shared};

use crate::{
    Error, Store,
    value::{Value, args},
};

const QUOTA: &str = "quota";
const CONNECTION: &str = "connection";

type Row = (String, String, String);

impl Store {
    /// Returns all quotas and connections, by name.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn shared(&self) -> Result<Shared, Error> {
        let rows: Vec<Row> = self
            .pool
            .fetch("select kind, name, definition from shared order by kind, name", args![])
            .await?;
        let mut shared = Shared::default();
        for (kind, name, definition) in rows {
            let unreadable = |error| Error::unreadable("shared.definition", error);
            if kind == QUOTA {
                let name = parse_name(&name)?;
                let quota = serde_json::from_str(&definition).map_err(unreadable)?;
                shared.quotas.push(NamedQuota { name, quota });
            } else {
                let connection = serde_json::from_str(&definition).map_err(unreadable)?;
                shared.connections.push(connection);
            }
        }
        Ok(shared)
    }

    /// Returns a connection; `None`: there is none of that name.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn connection(&self, name: &PipelineName) -> Result<Option<Connection>, Error> {
        let row: Option<(String,)> = self
            .pool
            .fetch_optional(
                "select definition from shared where kind = 'connection' and name = $1",
                args![name],
            )
            .await?;
        row.map(|(definition,)| serde_json::from_str(&definition))
            .transpose()
            .map_err(|error| Error::unreadable("shared.definition", error))
    }

    /// Stores quotas and connections; those that are not named stay as they are.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn apply_shared(&self, shared: &Shared, now: DateTime<Utc>) -> Result<(), Error> {
        let row = |kind: &str, name: &PipelineName, definition: serde_json::Result<String>| {
            let definition = definition.expect("a declaration can be written as JSON");
            args![kind, name, definition, now, now]
        };
        let quotas = shared
            .quotas
            .iter()
            .map(|NamedQuota { name, quota }| row(QUOTA, name, serde_json::to_string(quota)));
        let connections = shared
            .connections
            .iter()
            .map(|connection| row(CONNECTION, &connection.name, serde_json::to_string(connection)));
        let mut rows: Vec<Vec<Value>> = connections.collect();
        rows.extend(quotas);
        let mut tx = self.pool.begin().await?;
        tx.insert(
            "insert into shared (kind, name, definition, created_at, applied_at)",
            rows,
            "on conflict (kind, name) do update set definition = excluded.definition, \
             applied_at = excluded.applied_at",
        )
        .await?;
        tx.commit().await
    }

    /// Removes a quota and tells whether there was one.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn delete_quota(&self, name: &PipelineName) -> Result<bool, Error> {
        let deleted = self
            .pool
            .execute("delete from shared where kind = 'quota' and name = $1", args![name])
            .await?;
        Ok(deleted > 0)
    }
}

fn parse_name(name: &str) -> Result<PipelineName, Error> {
    name.parse().map_err(|error| Error::unreadable("shared.name", error))
}
