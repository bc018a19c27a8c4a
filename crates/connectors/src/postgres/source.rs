use std::time::Duration;

use async_trait::async_trait;
use connect::{Error, Limits, Part, PartCursor, Parts, Stream};
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
    quote::{Identifier, Table, statement},
    reader::Reader,
};

/// A PostgreSQL table that is read.
pub(crate) struct Source {
    options: PgConnectOptions,
    pool: PgPool,
    address: String,
    read: spec::TableRead,
    table: Table,
    declared: Declared,
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
        let options = pool::options(&config.url, variables)?;
        Ok(Self {
            address: pool::address(&options),
            pool: pool::pool(options.clone()),
            options,
            table: Table::parse(&config.read.table)?,
            read: config.read.clone(),
            declared: Declared::new(contract, schema, accepted),
        })
    }

    fn what(&self) -> String {
        format!("table `{}` at {} cannot be read", self.table.plain(), self.address)
    }

    async fn connect(&self) -> Result<PoolConnection<Postgres>, Error> {
        self.pool.acquire().await.map_err(|error| whole(&self.what(), error))
    }

    async fn columns(&self, connection: &mut PgConnection) -> Result<Vec<CatalogColumn>, Error> {
        let columns = catalog::columns(connection, &self.table)
            .await
            .map_err(|error| whole(&self.what(), error))?;
        if columns.is_empty() {
            return Err(no_table(&self.table.plain()));
        }
        Ok(columns)
    }

    /// Looks at the table and decides how to read it.
    async fn reading(&self) -> Result<Reading, Error> {
        let mut connection = self.connect().await?;
        let columns = self.columns(&mut connection).await?;
        let table = self.table.plain();
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        self.declared.check(&table, &names)?;
        let unique = catalog::unique(&mut connection, &self.table)
            .await
            .map_err(|error| whole(&self.what(), error))?;
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
        // Values are kept outside of the row only where the table has such a relation with
        // something in it; all others fit a page, compressed.
        let guarded: bool = sqlx::query_scalar(
            "select coalesce(c.relkind not in ('r', 'm') or \
             pg_relation_size(nullif(c.reltoastrelid, 0)) > 0, false) \
             from pg_class c where c.oid = to_regclass($1)",
        )
        .bind(self.table.to_string())
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| whole(&self.what(), error))?;
        Ok(Reading {
            options: self.options.clone(),
            table: self.table.clone(),
            what: self.what(),
            key: key.iter().filter_map(place).collect(),
            cursor,
            lag: self.read.lag,
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
                "`lag` is a time, but the cursor column `{}` of table `{}` is {}",
                cursor.name,
                self.table.plain(),
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
        let sql = format!("select exists (select 1 from {} where {condition})", reading.table);
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
        let sql = format!("select 1 from {} limit 1", reading.table);
        let mut connection = self.connect().await?;
        sqlx::query(statement(sql))
            .execute(&mut *connection)
            .await
            .map_err(|error| whole(&self.what(), error))?;
        Ok(format!(
            "table `{}` at {} has {} columns and the key {}",
            self.table.plain(),
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
        let last = cursors.iter().find(|cursor| cursor.part.is_empty());
        let start = match last {
            Some(last) if !full => Cursor::parse(&last.cursor)?.restart(reading.cursor.is_some()),
            _ => Cursor::default(),
        };
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
        let (table, lag) = (self.table.plain(), self.read.lag);
        let copies = Copies::new(reading);
        Ok(Box::new(Reader::start(copies, table, lag, cursor, extraction_base, limits)))
    }
}
