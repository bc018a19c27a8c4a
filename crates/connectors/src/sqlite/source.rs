use std::sync::Arc;

use async_trait::async_trait;
use connect::{Error, Limits, Part, PartCursor, Parts, RunOptions, Stream};
use model::{Contract, Field, FieldType, Schema};
use sqlx::{Connection, Row, SqliteConnection};

use super::{
    catalog::{self, CatalogColumn},
    error::whole,
    reader::{Reading, Selected, Selects, bind},
    target::main_table,
    types::field_type,
    value::Value,
};
use crate::sql::{
    columns::{Declared, column_exists, key, no_table},
    cursor::Cursor,
    quote::{Identifier, Origin, Table, list, statement},
    reader::Reader,
    text::Moment,
};

/// Rows that are looked at to find out what texts mean.
const SAMPLE: usize = 1_000;

/// A table of an SQLite file that is read.
pub(crate) struct Source {
    path: String,
    read: spec::TableRead,
    declared: Declared,
    run: Arc<RunOptions>,
}

impl Source {
    /// Takes the settings; nothing is opened yet.
    pub(crate) fn new(
        config: &spec::SqliteSource,
        contract: Contract,
        schema: Option<&Schema>,
        accepted: &[String],
    ) -> Self {
        Self {
            path: config.path.clone(),
            read: config.read.clone(),
            declared: Declared::new(contract, schema, accepted),
            run: Arc::default(),
        }
    }

    /// Reads for a run that was started so.
    pub(crate) fn for_run(self, run: &Arc<RunOptions>) -> Self {
        Self { run: Arc::clone(run), ..self }
    }

    fn what(&self) -> String {
        let rows = match &self.read.rows {
            spec::Rows::Table(table) => format!("table `{table}`"),
            spec::Rows::Query(_) => "the query".to_owned(),
        };
        format!("{rows} in `{}` cannot be read", self.path)
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        whole(&self.what(), error)
    }

    async fn connect(&self) -> Result<SqliteConnection, Error> {
        SqliteConnection::connect_with(&catalog::read_only(&self.path))
            .await
            .map_err(|error| self.failed(error))
    }

    async fn columns(
        &self,
        connection: &mut SqliteConnection,
        origin: &Origin,
    ) -> Result<Vec<CatalogColumn>, Error> {
        let columns = match origin {
            Origin::Table(table) => catalog::columns(connection, table).await,
            Origin::Query(query) => catalog::query_columns(connection, query).await,
        };
        let columns = columns.map_err(|error| self.failed(error))?;
        if columns.is_empty() {
            return Err(no_table(&origin.shown()));
        }
        Ok(columns)
    }

    fn origin(&self) -> Result<Origin, Error> {
        Ok(match Origin::parse(&self.read.rows)? {
            Origin::Table(table) => Origin::Table(main_table(table)?),
            query @ Origin::Query(_) => query,
        })
    }

    /// Looks at the table and decides how to read it.
    async fn reading(&self) -> Result<Reading, Error> {
        let origin = self.origin()?;
        let mut connection = self.connect().await?;
        let columns = self.columns(&mut connection, &origin).await?;
        let shown = origin.shown();
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        self.declared.check(&shown, &names)?;
        let primary = catalog::primary_key(&columns);
        let key = key(&shown, &self.read.key, Some(&primary), &names)?;
        let place = |name: &String| names.iter().position(|column| column == name);
        let cursor = match &self.read.cursor {
            Some(name) => {
                column_exists(&shown, name, &names)?;
                place(name)
            }
            None => None,
        };
        connection.close().await.map_err(|error| self.failed(error))?;
        Ok(Reading {
            options: catalog::read_only(&self.path),
            what: self.what(),
            key: key.iter().filter_map(place).collect(),
            cursor,
            lag: self.read.lag,
            run: Arc::clone(&self.run),
            columns: columns
                .iter()
                .map(|column| Selected {
                    name: column.name.clone(),
                    field_type: field_type(&column.declared),
                    required: is_required(column, &primary),
                })
                .collect(),
            origin,
        })
    }

    /// Tells whether there is any row from where the cursor says.
    async fn has_news(&self, reading: &Reading, start: &Cursor) -> Result<bool, Error> {
        let mut connection = self.connect().await?;
        let mut condition = "1 = 1".to_owned();
        let mut from = None;
        if let (Some(cursor), Some(high)) = (reading.cursor, &start.high) {
            let name = Identifier::known(reading.columns[cursor].name.clone());
            condition = format!("{name} is null or {name} >= ?");
            from = Some(reading.start_from(high)?);
        }
        let sql = format!("select exists (select 1 from {} where {condition})", reading.origin);
        let query = sqlx::query(statement(sql));
        let query = match from {
            Some(value) => bind(query, value),
            None => query,
        };
        let row = query.fetch_one(&mut connection).await.map_err(|error| self.failed(error))?;
        row.try_get(0).map_err(|error| self.failed(error))
    }

    /// Reads the types off the declarations and, where these promise what texts may not keep, off
    /// some values.
    async fn schema(
        &self,
        connection: &mut SqliteConnection,
        origin: &Origin,
        columns: &[CatalogColumn],
    ) -> Result<Schema, Error> {
        let names = list(columns.iter().map(|column| Identifier::known(column.name.clone())));
        let sql = format!("select {names} from {origin} limit {SAMPLE}");
        let rows = sqlx::query(statement(sql))
            .fetch_all(connection)
            .await
            .map_err(|error| self.failed(error))?;
        let primary = catalog::primary_key(columns);
        let mut fields = Vec::new();
        for (index, column) in columns.iter().enumerate() {
            let mut values = Vec::with_capacity(rows.len());
            for row in &rows {
                let value = Value::of(row, index).map_err(|error| self.failed(error))?;
                values.push(value.unwrap_or(Value::Null));
            }
            fields.push(Field {
                required: is_required(column, &primary) || self.read.key.contains(&column.name),
                ..Field::new(&column.name, fitting(field_type(&column.declared), &values))
            });
        }
        Ok(Schema { fields })
    }
}

/// A primary key may hold nulls, except for one of a single integer.
fn is_required(column: &CatalogColumn, primary: &[String]) -> bool {
    column.required
        || (column.key > 0 && primary.len() == 1 && column.declared.eq_ignore_ascii_case("integer"))
}

/// Returns the promised type if all values keep it.
fn fitting(promised: FieldType, values: &[Value]) -> FieldType {
    let keeps = |value: &Value| match (promised, value) {
        (_, Value::Null) | (FieldType::Text, _) => true,
        (FieldType::Boolean, Value::Integer(value)) => (0..=1).contains(value),
        (FieldType::Integer | FieldType::Double, Value::Integer(_))
        | (FieldType::Double, Value::Real(_))
        | (FieldType::Bytes, Value::Blob(_)) => true,
        (FieldType::Json, Value::Text(text)) => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
        }
        (FieldType::Date, Value::Text(text)) => text.len() == 10 && Moment::parse(text).is_some(),
        (FieldType::Timestamp, Value::Text(text)) => Moment::parse(text).is_some(),
        (FieldType::Decimal { precision, scale }, value) => {
            value.text().is_some_and(|text| fits_decimal(&text, precision, scale))
        }
        _ => false,
    };
    if values.iter().all(keeps) {
        promised
    } else if values.iter().any(|value| matches!(value, Value::Blob(_))) {
        FieldType::Bytes
    } else {
        FieldType::Text
    }
}

fn fits_decimal(text: &str, precision: u8, scale: u8) -> bool {
    let digits = text.trim_start_matches('-');
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
        && !whole.is_empty()
        && fraction.len() <= usize::from(scale)
        && whole.trim_start_matches('0').len() <= usize::from(precision - scale)
}

#[async_trait]
impl connect::Source for Source {
    async fn check(&self) -> Result<String, Error> {
        let reading = self.reading().await?;
        let key = reading.key.iter().map(|index| format!("`{}`", reading.columns[*index].name));
        Ok(format!(
            "{} in `{}` has {} columns and the key {}",
            reading.origin.shown(),
            self.path,
            reading.columns.len(),
            list(key)
        ))
    }

    async fn discover(&self) -> Result<Vec<Stream>, Error> {
        let mut connection = self.connect().await?;
        let tables: Vec<String> = sqlx::query_scalar(
            "select name from sqlite_schema where type in ('table', 'view') \
             and name not like 'sqlite\\_%' escape '\\' \
             and name not like '\\_tributary\\_%' escape '\\' order by name",
        )
        .fetch_all(&mut connection)
        .await
        .map_err(|error| self.failed(error))?;
        let mut streams = Vec::new();
        for name in tables {
            let table =
                Origin::Table(Table { schema: None, name: Identifier::known(name.clone()) });
            let columns = self.columns(&mut connection, &table).await?;
            streams.push(Stream {
                schema: self.schema(&mut connection, &table, &columns).await?,
                key: catalog::primary_key(&columns),
                name,
            });
        }
        Ok(streams)
    }

    async fn infer(&self) -> Result<Schema, Error> {
        let origin = self.origin()?;
        let mut connection = self.connect().await?;
        let columns = self.columns(&mut connection, &origin).await?;
        self.schema(&mut connection, &origin, &columns).await
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
        let (table, lag) = (reading.origin.plain(), self.read.lag);
        let selects = Selects::new(reading);
        Ok(Box::new(Reader::start(selects, table, lag, cursor, extraction_base, limits)))
    }
}
