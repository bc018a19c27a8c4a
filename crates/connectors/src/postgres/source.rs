use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use connect::{Error, Limits, Part, PartCursor, Parts, RunOptions, Stream};
use model::{Contract, Field, Schema};
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection, postgres::PgConnectOptions};

use super::{
    catalog::{self, CatalogColumn},
    decode::Selected,
    error::whole,
    pool,
    reader::{Copies, Reading, from_high, in_range},
};
use crate::sql::{
    columns::{Declared, column_exists, key, no_table},
    cursor::Cursor,
    quote::{Identifier, Origin, Table, statement},
    reader::Reader,
};

/// A PostgreSQL table that is read.
pub(crate) struct Source {
    options: PgConnectOptions,
    pool: PgPool,
    address: String,
    read: spec::TableRead,
    origin: Origin,
    declared: Declared,
    run: Arc<RunOptions>,
}

impl Source {
    /// Takes the settings; nothing is reached yet.
    ///
    /// # Errors
    ///
    /// When the URL cannot be put together or the table cannot be named so.
    pub(crate) fn new(
        config: &spec::PostgresSource,
        contract: Contract,
        schema: Option<&Schema>,
        accepted: &[String],
        variables: &crate::Variables,
    ) -> Result<Self, Error> {
        // A query of the user's cannot write, whatever it calls.
        let options = pool::options(&config.url, variables)?
            .options([("default_transaction_read_only", "on")]);
        Ok(Self {
            address: pool::address(&options),
            pool: pool::pool(options.clone()),
            options,
            origin: Origin::parse(&config.read.rows)?,
            read: config.read.clone(),
            declared: Declared::new(contract, schema, accepted),
            run: Arc::default(),
        })
    }

    /// Reads for a run that was started so.
    pub(crate) fn for_run(self, run: &Arc<RunOptions>) -> Self {
        Self { run: Arc::clone(run), ..self }
    }

    fn what(&self) -> String {
        format!("{} at {} cannot be read", self.origin.shown(), self.address)
    }

    async fn connect(&self) -> Result<PoolConnection<Postgres>, Error> {
        self.pool.acquire().await.map_err(|error| whole(&self.what(), error))
    }

    async fn columns(&self, connection: &mut PgConnection) -> Result<Vec<CatalogColumn>, Error> {
        let columns = match &self.origin {
            Origin::Table(table) => catalog::columns(connection, table).await,
            Origin::Query(query) => catalog::query_columns(connection, query).await,
        };
        let columns = columns.map_err(|error| whole(&self.what(), error))?;
        if columns.is_empty() {
            return Err(no_table(&self.origin.shown()));
        }
        let mut names = HashSet::new();
        if let Some(twice) = columns.iter().find(|column| !names.insert(&column.name)) {
            return Err(Error::stop(
                format!("{} has two columns `{}`", self.origin.shown(), twice.name),
                "give one of them another name with `as`",
            ));
        }
        Ok(columns)
    }

    /// Looks at the table and decides how to read it.
    async fn reading(&self) -> Result<Reading, Error> {
        let mut connection = self.connect().await?;
        let columns = self.columns(&mut connection).await?;
        let table = self.origin.shown();
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        self.declared.check(&table, &names)?;
        let unique = match &self.origin {
            Origin::Table(table) => catalog::unique(&mut connection, table)
                .await
                .map_err(|error| whole(&self.what(), error))?,
            Origin::Query(_) => Vec::new(),
        };
        let primary = unique.iter().find(|(primary, _)| *primary);
        let primary = primary.map(|(_, columns)| columns.as_slice());
        let key = key(&table, &self.read.key, primary, &names)?;
        let place = |name: &String| names.iter().position(|column| column == name);
        let cursor = match &self.read.cursor {
            Some(name) => {
                column_exists(&table, name, &names)?;
                place(name)
            }
            None => None,
        };
        if let Some(cursor) = cursor {
            self.check_lag(&columns[cursor])?;
        }
        let guarded = match &self.origin {
            Origin::Table(table) => catalog::may_be_large(&mut connection, table)
                .await
                .map_err(|error| whole(&self.what(), error))?,
            Origin::Query(_) => true,
        };
        Ok(Reading {
            options: self.options.clone(),
            origin: self.origin.clone(),
            what: self.what(),
            key: key.iter().filter_map(place).collect(),
            cursor,
            lag: self.read.lag,
            run: Arc::clone(&self.run),
            guarded,
            columns: columns.iter().map(Selected::new).collect(),
        })
    }

    fn check_lag(&self, cursor: &CatalogColumn) -> Result<(), Error> {
        let is_time = matches!(cursor.type_name.as_str(), "date" | "timestamp" | "timestamptz");
        if is_time || self.read.lag == Duration::ZERO {
            return Ok(());
        }
        Err(Error::stop(
            format!(
                "`lag` is a time, but the cursor column `{}` of {} is {}",
                cursor.name,
                self.origin.shown(),
                cursor.declared
            ),
            "set `lag: 0s`, or use a date or timestamp as cursor",
        ))
    }

    /// Tells whether there is any row from where the cursor says.
    async fn has_news(&self, reading: &Reading, start: &Cursor) -> Result<bool, Error> {
        let condition = match (reading.cursor, &start.high) {
            (Some(cursor), Some(_)) => {
                let column = &reading.columns[cursor];
                let high = format!("cast($1 as {})", column.base);
                let from = from_high(column, &high, reading.lag, "cast($2 as interval)");
                format!("{} or ({} and {from})", in_range(column, true), in_range(column, false))
            }
            _ => "true".to_owned(),
        };
        let sql = format!("select exists (select 1 from {} where {condition})", reading.origin);
        let mut query = sqlx::query_scalar(statement(sql));
        if let (Some(_), Some(high)) = (reading.cursor, &start.high) {
            query = query.bind(high.clone());
            if reading.lag > Duration::ZERO {
                query = query.bind(format!("{} microseconds", reading.lag.as_micros()));
            }
        }
        let mut connection = self.connect().await?;
        query.fetch_one(&mut *connection).await.map_err(|error| whole(&self.what(), error))
    }
}

fn schema(columns: &[CatalogColumn]) -> Schema {
    Schema {
        fields: columns
            .iter()
            .map(|column| {
                let selected = Selected::new(column);
                Field {
                    required: column.required,
                    ..Field::new(&column.name, selected.field_type())
                }
            })
            .collect(),
    }
}

#[async_trait]
impl connect::Source for Source {
    async fn check(&self) -> Result<String, Error> {
        let reading = self.reading().await?;
        let key: Vec<_> =
            reading.key.iter().map(|index| format!("`{}`", reading.columns[*index].name)).collect();
        let sql = format!("select 1 from {} limit 1", reading.origin);
        let mut connection = self.connect().await?;
        sqlx::query(statement(sql))
            .execute(&mut *connection)
            .await
            .map_err(|error| whole(&self.what(), error))?;
        Ok(format!(
            "{} at {} has {} columns and the key {}",
            self.origin.shown(),
            self.address,
            reading.columns.len(),
            key.join(", ")
        ))
    }

    async fn discover(&self) -> Result<Vec<Stream>, Error> {
        let what = format!("the tables at {} cannot be listed", self.address);
        let mut connection = self.connect().await?;
        let tables: Vec<(String, String, bool)> = sqlx::query_as(
            "select n.nspname::text, c.relname::text, pg_table_is_visible(c.oid) \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition \
             and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' \
             and c.relname !~ '^_tributary_' and has_table_privilege(c.oid, 'select') \
             order by 1, 2",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| whole(&what, error))?;
        let mut streams = Vec::new();
        for (schema_name, name, visible) in tables {
            let table = Table {
                schema: Some(Identifier::known(schema_name)),
                name: Identifier::known(name),
            };
            let columns = catalog::columns(&mut connection, &table)
                .await
                .map_err(|error| whole(&what, error))?;
            let unique = catalog::unique(&mut connection, &table)
                .await
                .map_err(|error| whole(&what, error))?;
            let primary = unique.into_iter().find(|(primary, _)| *primary);
            streams.push(Stream {
                name: if visible { table.name.name().to_owned() } else { table.plain() },
                schema: schema(&columns),
                key: primary.map(|(_, columns)| columns).unwrap_or_default(),
            });
        }
        Ok(streams)
    }

    async fn infer(&self) -> Result<Schema, Error> {
        let mut connection = self.connect().await?;
        let mut schema = schema(&self.columns(&mut connection).await?);
        for name in &self.read.key {
            if let Some(field) = schema.fields.iter_mut().find(|field| field.name == *name) {
                field.required = true;
            }
        }
        Ok(schema)
    }

    async fn parts(&self, cursors: &[PartCursor], full: bool) -> Result<Parts, Error> {
        let reading = self.reading().await?;
        let incremental = reading.cursor.is_some();
        let start = Cursor::start(cursors, full, incremental, &self.run)?;
        let mut parts = Parts::default();
        if self.has_news(&reading, &start).await? {
            parts.with_news.push(Part {
                name: String::new(),
                cursor: if start == Cursor::default() { String::new() } else { start.to_text() },
                span: 0,
            });
        }
        Ok(parts)
    }

    async fn open(
        &self,
        _part: &str,
        cursor: &str,
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Box<dyn connect::Reader>, Error> {
        let cursor = Cursor::parse(cursor)?;
        let reading = self.reading().await?;
        let (table, lag) = (self.origin.plain(), self.read.lag);
        let copies = Copies::new(reading);
        Ok(Box::new(Reader::start(copies, table, lag, cursor, extraction_base, limits)))
    }
}
