use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use connect::{Error, Sweep, Written};
use model::{Batch, Field};
use sqlx::PgPool;
use twox_hash::XxHash3_64;

use super::{
    catalog,
    error::{failure, whole},
    pool,
    session::PgSession,
    types::Postgres,
};
use crate::sql::{
    failure::Failure,
    load::{self, Known},
    plan,
    plan::{Change, Incoming},
    session::Session,
    settings::Settings,
    shape::Shape,
    sweep,
    unit::{Unit, units},
};

/// A PostgreSQL table that is written.
pub(crate) struct Target {
    pool: PgPool,
    address: String,
    settings: Settings,
    shape: Mutex<Option<Arc<Shape>>>,
    known: Known,
}

impl Target {
    /// Takes the settings; nothing is reached yet.
    ///
    /// # Errors
    ///
    /// When the URL cannot be put together or the settings cannot work.
    pub(crate) fn new(
        url: &spec::SecretText,
        pipeline: &spec::Pipeline,
        target: &spec::Target,
        variables: &crate::Variables,
    ) -> Result<Self, Error> {
        // A batch is small and its key has an index: looking its rows up one by one takes as long
        // as the batch is, anything else as long as the table is.
        let options = pool::options(url, variables)?
            .options([("enable_hashjoin", "off"), ("enable_mergejoin", "off")]);
        Ok(Self {
            address: pool::address(&options),
            pool: pool::pool(options),
            settings: Settings::new(pipeline, target)?,
            shape: Mutex::new(None),
            known: Known { fresh: true.into(), patched: false.into() },
        })
    }

    fn what(&self) -> String {
        format!("table `{}` at {} cannot be written", self.settings.table.plain(), self.address)
    }

    async fn begin(&self) -> Result<PgSession, Error> {
        let transaction = self.pool.begin().await.map_err(|error| whole(&self.what(), error))?;
        Ok(PgSession::new(transaction, self.what()))
    }

    fn known_shape(&self) -> Option<Arc<Shape>> {
        self.shape.lock().map_or(None, |shape| shape.clone())
    }

    fn learn(&self, shape: Option<Arc<Shape>>) {
        if let Ok(mut known) = self.shape.lock() {
            *known = shape;
        }
    }

    /// Returns the shape of the table after making it take these units.
    async fn shape(&self, units: &[Unit<'_>]) -> Result<Arc<Shape>, Failure> {
        if let Some(shape) = self.known_shape()
            && self.changes(units, Some(&shape))?.is_empty()
        {
            return Ok(shape);
        }
        let mut session = self.begin().await?;
        // Creating a table twice at once is an error even with `if not exists`.
        let lock = i64::from_ne_bytes(
            XxHash3_64::oneshot(self.settings.table.to_string().as_bytes()).to_ne_bytes(),
        );
        sqlx::query("select pg_advisory_xact_lock($1)")
            .bind(lock)
            .execute(&mut *session.transaction)
            .await
            .map_err(|error| failure(&self.what(), error))?;
        let found = self.look(&mut session).await?;
        let changes = self.changes(units, found.as_ref())?;
        for change in &changes {
            for sql in plan::statements(&self.settings, &Postgres, change) {
                session.execute(sql, &[]).await?;
            }
        }
        let shape = self.look(&mut session).await?.unwrap_or_default();
        if self.settings.sweeps() {
            for sql in plan::create_seen(&self.settings, &shape) {
                session.execute(sql, &[]).await?;
            }
        }
        session.commit().await?;
        let shape = Arc::new(shape);
        self.learn(Some(Arc::clone(&shape)));
        Ok(shape)
    }

    fn changes(&self, units: &[Unit<'_>], shape: Option<&Shape>) -> Result<Vec<Change>, Error> {
        let mut all = Vec::new();
        for unit in units {
            for change in plan::changes(&self.settings, &Postgres, &unit.fields, shape)? {
                if !all.contains(&change) {
                    all.push(change);
                }
            }
        }
        Ok(all)
    }

    async fn look(&self, session: &mut PgSession) -> Result<Option<Shape>, Failure> {
        catalog::shape(&mut session.transaction, &self.settings.table)
            .await
            .map_err(|error| failure(&self.what(), error))
    }

    async fn try_write(
        &self,
        batches: &[Batch],
        units: &[Unit<'_>],
    ) -> Result<Vec<Written>, Failure> {
        let shape = self.shape(units).await?;
        let mut session = self.begin().await?;
        let written =
            load::write(&mut session, &self.settings, &shape, batches, units, &self.known).await?;
        session.commit().await?;
        Ok(written)
    }
}

#[async_trait]
impl connect::Target for Target {
    async fn check(&self) -> Result<String, Error> {
        let mut session = self.begin().await?;
        let table = self.settings.table.plain();
        let Some(shape) = self.look(&mut session).await.map_err(Failure::into_error)? else {
            return Ok(format!(
                "{} can be reached; table `{table}` does not exist yet",
                self.address
            ));
        };
        let allowed: bool = sqlx::query_scalar(
            "select has_table_privilege(to_regclass($1), 'insert') \
             and has_table_privilege(to_regclass($1), 'update')",
        )
        .bind(self.settings.table.to_string())
        .fetch_one(&mut *session.transaction)
        .await
        .map_err(|error| whole(&self.what(), error))?;
        if allowed {
            Ok(format!("table `{table}` at {} has {} columns", self.address, shape.columns.len()))
        } else {
            Err(Error::stop(
                format!("the user may not write table `{table}` at {}", self.address),
                "grant it `select`, `insert`, `update` and `delete` on the table",
            ))
        }
    }

    async fn plan(&self, fields: &[Field]) -> Result<Vec<String>, Error> {
        let incoming = fields
            .iter()
            .map(|field| Incoming::new(&field.name, field.field_type))
            .collect::<Result<Vec<_>, _>>()?;
        let mut session = self.begin().await?;
        let shape = self.look(&mut session).await.map_err(Failure::into_error)?;
        let changes = plan::changes(&self.settings, &Postgres, &incoming, shape.as_ref())?;
        Ok(changes.iter().map(|change| plan::sentence(&self.settings, &Postgres, change)).collect())
    }

    async fn write(&self, batches: &[Batch]) -> Result<Vec<Written>, Error> {
        if batches.iter().all(|batch| batch.records.is_empty()) {
            return Ok(vec![Written::default(); batches.len()]);
        }
        let units = units(batches)?;
        match self.try_write(batches, &units).await {
            Err(Failure::Stale(_)) => {
                self.learn(None);
                self.try_write(batches, &units).await.map_err(Failure::into_error)
            }
            done => done.map_err(Failure::into_error),
        }
    }

    async fn sweep(&self, request: &Sweep) -> Result<u64, Error> {
        let swept = async {
            let mut session = self.begin().await?;
            let Some(shape) = self.look(&mut session).await? else {
                return Ok(0);
            };
            // Here the whole table is looked at.
            sqlx::raw_sql("set local enable_hashjoin = on; set local enable_mergejoin = on")
                .execute(&mut *session.transaction)
                .await
                .map_err(|error| failure(&self.what(), error))?;
            let removed = sweep::sweep(&mut session, &self.settings, &shape, request).await?;
            session.commit().await?;
            Ok::<_, Failure>(removed)
        };
        swept.await.map_err(Failure::into_error)
    }
}
