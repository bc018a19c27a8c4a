use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use connect::{Error, Limits, Part, PartCursor, Parts, Stream};
use model::{Contract, Field, PipelineName, Schema};
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection, postgres::PgConnectOptions};

use super::{
    super::{
        catalog::{self, CatalogColumn},
        decode::Selected,
        error::whole,
        pool,
        reader::Reading,
        source::Source as Tables,
    },
    connection::Connection,
    cursor::Cursor,
    slot::{Captured, Names},
    snapshot, stream,
};
use crate::sql::{
    columns::{Declared, key, no_table},
    quote::{Origin, Table},
};

/// Positions that are set aside for the records of one run.
const SPAN: u64 = 1 << 30;

/// A PostgreSQL table whose changes are captured.
pub(crate) struct Source {
    options: PgConnectOptions,
    pool: PgPool,
    connection: Connection,
    names: Names,
    key: Vec<String>,
    declared: Declared,
    window: Duration,
    /// The tables of the database, for the menu.
    tables: Tables,
}

/// What was found out about the table.
struct Looked {
    columns: Vec<CatalogColumn>,
    key: Vec<String>,
    captured: Captured,
}

impl Source {
    /// Takes the settings; nothing is reached yet.
    ///
    /// # Errors
    ///
    /// When the URL cannot be put together or the table cannot be named so.
    pub(crate) fn new(
        config: &spec::PostgresSource,
        capture: &spec::Capture,
        pipeline: &PipelineName,
        contract: Contract,
        (schema, accepted): (Option<&Schema>, &[String]),
        variables: &crate::Variables,
    ) -> Result<Self, Error> {
        let options = pool::options(&config.url, variables)?;
        let table = match Origin::parse(&config.read.rows)? {
            Origin::Table(table) => table,
            Origin::Query(_) => {
                return Err(Error::stop("a query has no changes in the log", "name a table"));
            }
        };
        let slot = capture.slot.clone().unwrap_or_else(|| slot_of(pipeline));
        let what = format!(
            "the changes of table `{}` at {} cannot be captured",
            table.plain(),
            pool::address(&options)
        );
        Ok(Self {
            connection: Connection::new(&config.url, &options, what.clone(), variables)?,
            pool: pool::pool(options.clone()),
            options,
            names: Names {
                table,
                publication: capture.publication.clone().unwrap_or_else(|| slot.clone()),
                slot,
                what,
            },
            key: config.read.key.clone(),
            declared: Declared::new(contract, schema, accepted),
            window: capture.window,
            tables: Tables::new(config, contract, schema, accepted, variables)?,
        })
    }

    fn table(&self) -> &Table {
        &self.names.table
    }

    fn shown(&self) -> String {
        format!("table `{}`", self.table().plain())
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        whole(&self.names.what, error)
    }

    async fn connect(&self) -> Result<PoolConnection<Postgres>, Error> {
        self.pool.acquire().await.map_err(|error| self.failed(error))
    }

    /// Returns the columns that the log tells.
    async fn columns(&self, connection: &mut PgConnection) -> Result<Vec<CatalogColumn>, Error> {
        let mut columns =
            catalog::columns(connection, self.table()).await.map_err(|error| self.failed(error))?;
        if columns.is_empty() {
            return Err(no_table(&self.shown()));
        }
        let declared = |name: &str| {
            self.declared.schema.as_ref().is_some_and(|schema| schema.field(name).is_some())
        };
        let generated = columns.iter().find(|column| column.generated && declared(&column.name));
        if let Some(column) = generated {
            return Err(Error::stop(
                format!(
                    "column `{}` of {} is computed by the database, and the log does not tell it",
                    column.name,
                    self.shown()
                ),
                "remove it from the schema, and compute it in a step",
            ));
        }
        columns.retain(|column| !column.generated);
        Ok(columns)
    }

    /// Looks at the table and the server.
    async fn look(&self, connection: &mut PgConnection) -> Result<Looked, Error> {
        let columns = self.columns(connection).await?;
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        self.declared.check(&self.shown(), &names)?;
        let unique =
            catalog::unique(connection, self.table()).await.map_err(|error| self.failed(error))?;
        let primary = unique.iter().find(|(primary, _)| *primary);
        let primary = primary.map(|(_, columns)| columns.as_slice());
        let key = key(&self.shown(), &self.key, primary, &names)?;
        let captured = self.names.inspect(connection, &key).await?;
        Ok(Looked { columns, key, captured })
    }

    /// Makes what the server needs before the table is read for the first time.
    async fn prepare(&self, connection: &mut PgConnection) -> Result<(), Error> {
        // A slot knows only publications that were there before it.
        if !self.names.has_publication(connection).await? {
            self.names.publish(connection).await?;
        }
        if self.names.slot(connection).await?.is_none() {
            self.names.create_slot(connection).await?;
        }
        Ok(())
    }

    async fn reading(
        &self,
        connection: &mut PgConnection,
        looked: &Looked,
    ) -> Result<Reading, Error> {
        let place = |name: &String| looked.columns.iter().position(|column| column.name == *name);
        Ok(Reading {
            options: self.options.clone(),
            origin: Origin::Table(self.table().clone()),
            what: self.names.what.clone(),
            key: looked.key.iter().filter_map(place).collect(),
            cursor: None,
            lag: Duration::ZERO,
            run: Arc::default(),
            guarded: catalog::may_be_large(connection, self.table())
                .await
                .map_err(|error| self.failed(error))?,
            columns: looked.columns.iter().map(Selected::new).collect(),
        })
    }
}

/// Returns the name of the slot that belongs to a pipeline.
fn slot_of(pipeline: &PipelineName) -> String {
    let mut name = format!("tributary_{}", pipeline.as_str().replace('-', "_"));
    if name.len() > 63 {
        let hash = twox_hash::XxHash3_64::oneshot(name.as_bytes());
        name.truncate(46);
        name.push_str(&format!("_{hash:016x}"));
    }
    name
}

#[async_trait]
impl connect::Source for Source {
    async fn check(&self) -> Result<String, Error> {
        let mut connection = self.connect().await?;
        let looked = self.look(&mut connection).await?;
        let published = self.names.has_publication(&mut connection).await?;
        let slot = self.names.slot(&mut connection).await?;
        let state = match (published, slot) {
            (true, Some(slot)) => {
                let kept = slot.end.as_u64().saturating_sub(slot.confirmed.as_u64()) / 1024;
                format!("slot `{}` keeps {kept} KiB of the log", self.names.slot)
            }
            _ => format!("the first run will create slot `{}`", self.names.slot),
        };
        Ok(format!(
            "{} can be captured with {} columns; {state}",
            self.shown(),
            looked.columns.len()
        ))
    }

    async fn discover(&self) -> Result<Vec<Stream>, Error> {
        connect::Source::discover(&self.tables).await
    }

    async fn infer(&self) -> Result<Schema, Error> {
        let mut connection = self.connect().await?;
        let looked = self.look(&mut connection).await?;
        let fields = looked.columns.iter().map(|column| Field {
            required: column.required || looked.key.contains(&column.name),
            ..Field::new(&column.name, Selected::new(column).field_type())
        });
        Ok(Schema { fields: fields.collect() })
    }

    async fn parts(&self, cursors: &[PartCursor], full: bool) -> Result<Parts, Error> {
        let mut connection = self.connect().await?;
        self.look(&mut connection).await?;
        let last = cursors.iter().find(|cursor| cursor.part.is_empty());
        let last = last.map_or(Ok(None), |last| Cursor::parse(&last.cursor));
        let start = if full { None } else { last?.map(Cursor::restart) };
        let row = match &start {
            None => {
                self.prepare(&mut connection).await?;
                0
            }
            Some(start) => {
                if !self.names.has_publication(&mut connection).await? {
                    let gone = format!("has lost its publication `{}`", self.names.publication);
                    return Err(self.names.lost(&gone));
                }
                self.names.slot_at(&mut connection, start.at()).await?;
                start.row()
            }
        };
        let cursor = start.map_or_else(String::new, |start| start.to_text());
        let part = Part { name: String::new(), cursor, span: row.saturating_add(SPAN) };
        Ok(Parts { with_news: vec![part], ..Parts::default() })
    }

    async fn open(
        &self,
        _part: &str,
        cursor: &str,
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Box<dyn connect::Reader>, Error> {
        let cursor = Cursor::parse(cursor)?;
        let mut connection = self.connect().await?;
        let looked = self.look(&mut connection).await?;
        let slot = match &cursor {
            Some(cursor) => self.names.slot_at(&mut connection, cursor.at()).await?,
            None => {
                self.names.slot(&mut connection).await?.ok_or_else(|| self.names.lost("is gone"))?
            }
        };
        let (name, base) = (&self.names.slot, extraction_base);
        let snapshot = match cursor {
            Some(Cursor::Log(log)) => {
                drop(connection);
                let publication = &self.names.publication;
                let client = self.connection.follow(name, publication, log.at, log.loaded).await?;
                let following = stream::Following {
                    names: self.names.clone(),
                    relation: looked.captured.id,
                    key: looked.key,
                    declared: self.declared.clone(),
                    pool: self.pool.clone(),
                    connection: self.connection.clone(),
                    window: self.window,
                    end: slot.end,
                    extraction_base,
                    limits,
                };
                return Ok(Box::new(stream::Reader::new(following, client, log)));
            }
            Some(Cursor::Snapshot(snapshot)) => Some(snapshot),
            None => None,
        };
        let reading = self.reading(&mut connection, &looked).await?;
        drop(connection);
        let session = &self.connection;
        let reader =
            snapshot::Reader::start(session, reading, name, snapshot, base, limits).await?;
        Ok(Box::new(reader))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_named_after_its_pipeline() {
        let slot = |name: &str| slot_of(&name.parse().unwrap());
        assert_eq!(slot("shop-orders"), "tributary_shop_orders");
        let long = "a".repeat(63);
        assert!(slot(&long).len() <= 63);
    }
}
