use std::path::Path;

use async_trait::async_trait;
use connect::{Error, Sweep, Written};
use model::{Batch, Field};
use sqlx::{Connection, SqliteConnection, SqlitePool, sqlite::SqlitePoolOptions};

use super::{
    catalog,
    error::{failure, whole},
    session::SqliteSession,
    types::Sqlite,
};
use crate::sql::{
    failure::Failure,
    load::{self, Known},
    plan::{self, Change, Incoming},
    quote::Table,
    session::Session,
    settings::Settings,
    shape::Shape,
    sweep,
    unit::{Unit, units},
};

/// A table of an SQLite file that is written.
pub(crate) struct Target {
    pool: SqlitePool,
    path: String,
    /// Settings that cannot work are told when they are first used.
    settings: Result<Settings, (String, String)>,
}

impl Target {
    /// Takes the settings; nothing is opened yet.
    pub(crate) fn new(path: &str, pipeline: &spec::Pipeline, target: &spec::Target) -> Self {
        let settings = Settings::new(pipeline, target).and_then(|mut settings| {
            settings.table = main_table(settings.table)?;
            Ok(settings)
        });
        Self {
            // One connection: there can be one writer only, and waiting here is fair.
            pool: SqlitePoolOptions::new()
                .max_connections(1)
                .connect_lazy_with(catalog::writable(path)),
            path: path.to_owned(),
            settings: settings.map_err(|error| (error.what, error.hint)),
        }
    }

    fn settings(&self) -> Result<&Settings, Error> {
        self.settings.as_ref().map_err(|(what, hint)| Error::stop(what, hint))
    }

    fn what(&self) -> String {
        match &self.settings {
            Ok(settings) => {
                format!("table `{}` in `{}` cannot be written", settings.table.plain(), self.path)
            }
            Err((what, _)) => what.clone(),
        }
    }

    async fn begin(&self) -> Result<SqliteSession, Error> {
        let transaction = self
            .pool
            .begin_with("begin immediate")
            .await
            .map_err(|error| whole(&self.what(), error))?;
        Ok(SqliteSession::new(transaction, self.what()))
    }

    /// Looks at the table without creating the file.
    async fn peek(&self) -> Result<Option<Shape>, Error> {
        let path = Path::new(&self.path);
        if !path.exists() {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            return match folder {
                Some(folder) if !folder.is_dir() => Err(Error::stop(
                    format!("`{}` cannot be created", self.path),
                    format!("create the folder `{}`", folder.display()),
                )),
                _ => Ok(None),
            };
        }
        let settings = self.settings()?;
        let look = async {
            let mut connection =
                SqliteConnection::connect_with(&catalog::read_only(&self.path)).await?;
            let shape = catalog::shape(&mut connection, &settings.table).await?;
            connection.close().await?;
            Ok(shape)
        };
        look.await.map_err(|error| whole(&self.what(), error))
    }

    async fn look(&self, session: &mut SqliteSession) -> Result<Option<Shape>, Failure> {
        let settings = self.settings()?;
        catalog::shape(&mut session.transaction, &settings.table)
            .await
            .map_err(|error| failure(&self.what(), error))
    }

    fn changes(&self, units: &[Unit<'_>], shape: Option<&Shape>) -> Result<Vec<Change>, Error> {
        let mut all = Vec::new();
        for unit in units {
            for change in plan::changes(self.settings()?, &Sqlite, &unit.fields, shape)? {
                if !all.contains(&change) {
                    all.push(change);
                }
            }
        }
        Ok(all)
    }

    /// Returns the shape of the table after making it take these units.
    async fn shape(
        &self,
        session: &mut SqliteSession,
        units: &[Unit<'_>],
    ) -> Result<Shape, Failure> {
        let settings = self.settings()?;
        let found = self.look(session).await?;
        let changes = self.changes(units, found.as_ref())?;
        for change in &changes {
            for sql in plan::statements(settings, &Sqlite, change) {
                session.execute(sql, &[]).await?;
            }
        }
        let shape = self.look(session).await?.unwrap_or_default();
        if settings.sweeps() {
            for sql in plan::create_seen(settings, &shape) {
                session.execute(sql, &[]).await?;
            }
        }
        Ok(shape)
    }

    async fn try_write(
        &self,
        batches: &[Batch],
        units: &[Unit<'_>],
    ) -> Result<Vec<Written>, Failure> {
        let settings = self.settings()?;
        let mut session = self.begin().await?;
        let shape = self.shape(&mut session, units).await?;
        let known = Known { fresh: false.into(), patched: true.into() };
        let written = load::write(&mut session, settings, &shape, batches, units, &known).await?;
        session.commit().await?;
        Ok(written)
    }
}

/// A file has one schema, `main`.
pub(super) fn main_table(table: Table) -> Result<Table, Error> {
    match &table.schema {
        Some(schema) if !schema.name().eq_ignore_ascii_case("main") => Err(Error::stop(
            format!("`{}` names a schema, which an SQLite file does not have", table.plain()),
            "write the table's name alone",
        )),
        _ => Ok(Table { schema: None, name: table.name }),
    }
}

#[async_trait]
impl connect::Target for Target {
    async fn check(&self) -> Result<String, Error> {
        let table = self.settings()?.table.plain();
        Ok(match self.peek().await? {
            Some(shape) => {
                // Only trying shows whether the file can be written.
                drop(self.begin().await?);
                format!("table `{table}` in `{}` has {} columns", self.path, shape.columns.len())
            }
            None => format!("table `{table}` in `{}` does not exist yet", self.path),
        })
    }

    async fn plan(&self, fields: &[Field]) -> Result<Vec<String>, Error> {
        let settings = self.settings()?;
        let incoming = fields
            .iter()
            .map(|field| Incoming::new(&field.name, field.field_type))
            .collect::<Result<Vec<_>, _>>()?;
        let shape = self.peek().await?;
        let changes = plan::changes(settings, &Sqlite, &incoming, shape.as_ref())?;
        Ok(changes.iter().map(|change| plan::sentence(settings, &Sqlite, change)).collect())
    }

    async fn write(&self, batches: &[Batch]) -> Result<Vec<Written>, Error> {
        if batches.iter().all(|batch| batch.records.is_empty()) {
            return Ok(vec![Written::default(); batches.len()]);
        }
        let units = units(batches)?;
        self.try_write(batches, &units).await.map_err(Failure::into_error)
    }

    async fn sweep(&self, request: &Sweep) -> Result<u64, Error> {
        let settings = self.settings()?;
        let swept = async {
            let mut session = self.begin().await?;
            let Some(shape) = self.look(&mut session).await? else {
                return Ok(0);
            };
            let removed = sweep::sweep(&mut session, settings, &shape, request).await?;
            session.commit().await?;
            Ok::<_, Failure>(removed)
        };
        swept.await.map_err(Failure::into_error)
    }
}
