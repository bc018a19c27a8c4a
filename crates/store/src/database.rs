//! Two pools behind one type: the same statement text runs on both, with `$1` for arguments.

#![expect(clippy::disallowed_methods, reason = "texts made here hold names of our own tables")]

use std::{fs::File, path::Path, str::FromStr, sync::LazyLock, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, FromRow, PgPool, Postgres, Sqlite, SqlitePool, Transaction,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use crate::{
    Error,
    value::{Value, for_postgres, for_sqlite},
};

pub(crate) static POSTGRES_MIGRATIONS: LazyLock<Migrator> =
    LazyLock::new(|| tolerant(sqlx::migrate!("./migrations/postgres")));
pub(crate) static SQLITE_MIGRATIONS: LazyLock<Migrator> =
    LazyLock::new(|| tolerant(sqlx::migrate!("./migrations/sqlite")));

/// Lets the tables be those of a later version: while services are replaced one by one, earlier ones
/// start again on tables that are migrated already, and after a rollback all of them do. Migrations
/// only add.
fn tolerant(mut migrations: Migrator) -> Migrator {
    migrations.set_ignore_missing(true);
    migrations
}

/// How long a connection may be waited for, and how long a writer waits for the others in SQLite.
const PATIENCE: Duration = Duration::from_secs(15);

/// Arguments that one statement may have on both databases: SQLite's limit is 32,766.
const MAX_ARGUMENTS: usize = 8_000;

/// A row that both databases can give.
pub(crate) trait Row:
    for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin
{
}

impl<T> Row for T where T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin
{}

#[derive(Debug, Clone)]
pub(crate) enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// A transaction that writes. Dropped without a commit it changes nothing.
pub(crate) enum Tx {
    Postgres(Transaction<'static, Postgres>),
    Sqlite(Transaction<'static, Sqlite>),
}

impl Pool {
    /// Connects and brings the tables up to date, one process after the other.
    pub(crate) async fn open(address: &SecretString, connections: u32) -> Result<Self, Error> {
        let address = address.expose_secret();
        if is_postgres(address) {
            let pool = PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(PATIENCE)
                .connect(address)
                .await?;
            // Takes an advisory lock meanwhile.
            POSTGRES_MIGRATIONS.run(&pool).await.map_err(Error::Migration)?;
            Ok(Self::Postgres(pool))
        } else if let Some(path) = address.strip_prefix("sqlite://") {
            Self::open_file(path, connections).await
        } else {
            Err(Error::Address)
        }
    }

    /// Makes new connections to this address.
    pub(crate) fn set_address(&self, address: &SecretString) -> Result<(), Error> {
        let address = address.expose_secret();
        match self {
            Self::Postgres(pool) if is_postgres(address) => {
                pool.set_connect_options(PgConnectOptions::from_str(address)?);
                Ok(())
            }
            Self::Postgres(_) | Self::Sqlite(_) => Err(Error::Address),
        }
    }

    async fn open_file(path: &str, connections: u32) -> Result<Self, Error> {
        let options = SqliteConnectOptions::from_str("sqlite://")?
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A ledger entry is acknowledged once it is here, so a power cut may not undo it.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE);
        let lock = lock_beside(path).await?;
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await?;
        SQLITE_MIGRATIONS.run(&pool).await.map_err(Error::Migration)?;
        drop(lock);
        Ok(Self::Sqlite(pool))
    }

    /// Begins a transaction that will write. In SQLite it is the only one from here on.
    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        Ok(match self {
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
            Self::Sqlite(pool) => Tx::Sqlite(pool.begin_with("begin immediate").await?),
        })
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}

pub(crate) fn is_postgres(address: &str) -> bool {
    address.starts_with("postgres://") || address.starts_with("postgresql://")
}

/// SQLite has no lock that a migration could hold from its first look to its last change.
async fn lock_beside(path: &str) -> Result<File, Error> {
    let path = format!("{path}.lock");
    let locked = tokio::task::spawn_blocking(move || {
        let open = || {
            if let Some(folder) = Path::new(&path).parent() {
                std::fs::create_dir_all(folder)?;
            }
            let file = File::options().create(true).append(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(|source| Error::File { path: path.clone(), source })
    });
    locked.await.expect("locking a file does not panic")
}

impl Tx {
    pub(crate) async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Postgres(tx) => tx.commit().await?,
            Self::Sqlite(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// Lets PostgreSQL plan for what the tables hold now, and not join row by row, for the rest of
    /// the transaction. The details of runs come and go too fast for its statistics and for plans
    /// that were made earlier: both take thousands of rows for a few.
    pub(crate) async fn expect_many_rows(&mut self) -> Result<(), Error> {
        if let Self::Postgres(_) = self {
            let settings = "select set_config('plan_cache_mode', 'force_custom_plan', true), \
                            set_config('enable_nestloop', 'off', true), \
                            set_config('jit', 'off', true)";
            self.execute(settings, Vec::new()).await?;
        }
        Ok(())
    }

    /// Ends a `select` that keeps others from changing its rows. SQLite has one writer anyway.
    pub(crate) async fn fetch_locked<T: Row>(
        &mut self,
        sql: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Vec<T>, Error> {
        match self {
            Self::Postgres(_) => self.fetch(format!("{sql} for update"), arguments).await,
            Self::Sqlite(_) => self.fetch(sql, arguments).await,
        }
    }

    /// Inserts rows of equally many values, as many per statement as fit, and returns how many were
    /// inserted. `head` ends before `values`, `tail` begins behind the last row.
    pub(crate) async fn insert(
        &mut self,
        head: &'static str,
        rows: Vec<Vec<Value>>,
        tail: &'static str,
    ) -> Result<u64, Error> {
        let Some(width) = rows.first().map(Vec::len) else { return Ok(0) };
        let mut inserted = 0;
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let chunk: Vec<Vec<Value>> = rows.by_ref().take(MAX_ARGUMENTS / width).collect();
            let places = places(chunk.len(), width);
            let sql = format!("{head} values {places} {tail}");
            inserted += self.execute(sql, chunk.into_iter().flatten().collect()).await?;
        }
        Ok(inserted)
    }
}

/// `($1, $2), ($3, $4)` for two rows of two.
fn places(rows: usize, width: usize) -> String {
    let row = |index: usize| {
        let places = (1..=width).map(|column| format!("${}", index * width + column));
        format!("({})", places.collect::<Vec<_>>().join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// A statement: written in the source, or made of such texts and numbers.
pub(crate) enum Sql {
    Static(&'static str),
    Made(String),
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<String> for Sql {
    fn from(text: String) -> Self {
        Self::Made(text)
    }
}

macro_rules! run {
    ($query:ident, $sql:expr, $arguments:expr) => {
        match $sql {
            Sql::Static(text) => sqlx::$query(text, $arguments),
            // Such texts vary, so keeping their plans would push others out.
            Sql::Made(text) => sqlx::$query(AssertSqlSafe(text), $arguments).persistent(false),
        }
    };
}

macro_rules! statements {
    ($type:ty, $self:ident, $inner:ident => $executor:expr, $($mutability:tt)?) => {
        #[allow(dead_code, reason = "pool and transaction have the same methods")]
        impl $type {
            /// Returns the number of rows that were changed.
            pub(crate) async fn execute(
                &$($mutability)? $self,
                sql: impl Into<Sql>,
                arguments: Vec<Value>,
            ) -> Result<u64, Error> {
                Ok(match $self {
                    Self::Postgres($inner) => run!(query_with, sql.into(), for_postgres(arguments)?)
                        .execute($executor)
                        .await?
                        .rows_affected(),
                    Self::Sqlite($inner) => run!(query_with, sql.into(), for_sqlite(arguments)?)
                        .execute($executor)
                        .await?
                        .rows_affected(),
                })
            }

            pub(crate) async fn fetch<T: Row>(
                &$($mutability)? $self,
                sql: impl Into<Sql>,
                arguments: Vec<Value>,
            ) -> Result<Vec<T>, Error> {
                Ok(match $self {
                    Self::Postgres($inner) => {
                        run!(query_as_with, sql.into(), for_postgres(arguments)?)
                            .fetch_all($executor)
                            .await?
                    }
                    Self::Sqlite($inner) => {
                        run!(query_as_with, sql.into(), for_sqlite(arguments)?)
                            .fetch_all($executor)
                            .await?
                    }
                })
            }

            pub(crate) async fn fetch_optional<T: Row>(
                &$($mutability)? $self,
                sql: impl Into<Sql>,
                arguments: Vec<Value>,
            ) -> Result<Option<T>, Error> {
                Ok($self.fetch(sql, arguments).await?.into_iter().next())
            }
        }
    };
}

statements!(Pool, self, pool => pool,);
statements!(Tx, self, tx => &mut **tx, mut);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_through() {
        assert_eq!(places(2, 3), "($1, $2, $3), ($4, $5, $6)");
    }
}
