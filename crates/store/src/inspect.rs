//! How the database stands, without changing it.

use std::{net::IpAddr, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Connection, PgConnection, SqliteConnection,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgSslMode},
    sqlite::SqliteConnectOptions,
};

use crate::{
    Error,
    database::{POSTGRES_MIGRATIONS, SQLITE_MIGRATIONS, is_postgres},
};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Kind and version of the database, such as `PostgreSQL 15.8`.
    pub version: String,
    /// Migrations of this version that were not applied yet.
    pub pending: Vec<i64>,
    /// Migrations that were begun and not finished.
    pub unfinished: Vec<i64>,
    /// Migrations that this version does not know: those of a later one.
    pub unknown: Vec<i64>,
    /// What the user may not do, such as `INSERT on runs`.
    pub denied: Vec<String>,
    /// Whether it refuses all writes, as a replica does.
    pub read_only: bool,
    /// Settings with which committed work may be lost, such as `fsync = off`.
    pub unsafe_settings: Vec<String>,
    /// What protects the connection.
    pub protection: Protection,
    /// Its time of day; `None` where it has no clock of its own.
    pub now: Option<DateTime<Utc>>,
}

/// What protects a connection from those on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protection {
    /// It does not leave the machine: a file, or a Unix socket.
    #[default]
    Local,
    /// It goes to an address of this machine.
    Loopback,
    /// TLS, with the certificate of the server verified.
    Verified,
    /// Nothing, or TLS with whoever answers.
    Nothing,
}

impl Protection {
    /// Tells whether nobody on the way can read or answer.
    #[must_use]
    pub fn holds(self) -> bool {
        self != Self::Nothing
    }
}

/// Tells what will protect the connections to an address: its `sslmode`. Nothing is reached.
///
/// # Errors
///
/// When it is no address of a database.
pub fn protection(address: &SecretString) -> Result<Protection, Error> {
    let address = address.expose_secret();
    if !is_postgres(address) {
        return Ok(Protection::Local);
    }
    let options: PgConnectOptions = address.parse()?;
    if options.get_socket().is_some() || options.get_host().starts_with('/') {
        return Ok(Protection::Local);
    }
    Ok(match options.get_ssl_mode() {
        PgSslMode::VerifyCa | PgSslMode::VerifyFull => Protection::Verified,
        _ if is_loopback(options.get_host()) => Protection::Loopback,
        _ => Protection::Nothing,
    })
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// How long a database may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at a database, and changes nothing. An SQLite file that is missing is one whose migrations
/// are all pending.
///
/// # Errors
///
/// When the database cannot be reached within ten seconds or its catalog cannot be read.
pub async fn inspect(address: &SecretString) -> Result<Inspection, Error> {
    let protection = protection(address)?;
    let address = address.expose_secret();
    let inspected = async {
        if is_postgres(address) {
            Ok(Inspection { protection, ..postgres(address).await? })
        } else if let Some(path) = address.strip_prefix("sqlite://") {
            sqlite(Path::new(path)).await
        } else {
            Err(Error::Address)
        }
    };
    tokio::time::timeout(PATIENCE, inspected)
        .await
        .unwrap_or(Err(Error::Unavailable(sqlx::Error::PoolTimedOut)))
}

async fn postgres(address: &str) -> Result<Inspection, Error> {
    let mut connection = PgConnection::connect(address).await?;
    let sql = "select current_setting('server_version'), clock_timestamp(), \
               pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean, \
               coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
               to_regclass('_sqlx_migrations') is not null \
               and has_table_privilege(to_regclass('_sqlx_migrations'), 'SELECT'), \
               to_regclass('_sqlx_migrations') is not null";
    let (version, now, read_only, may_create, may_look, migrated): (
        String,
        DateTime<Utc>,
        bool,
        bool,
        bool,
        bool,
    ) = sqlx::query_as(sql).fetch_one(&mut connection).await?;
    let applied: Vec<(i64, bool)> = if may_look {
        let sql = "select version, success from _sqlx_migrations";
        sqlx::query_as(sql).fetch_all(&mut connection).await?
    } else {
        Vec::new()
    };
    let mut inspection = Inspection {
        version: format!("PostgreSQL {version}"),
        now: Some(now),
        read_only,
        ..Inspection::default()
    };
    if may_look || !migrated {
        inspection.compare(&POSTGRES_MIGRATIONS, &applied);
    }
    if !may_create && (!inspection.pending.is_empty() || !migrated) {
        inspection.denied.push("CREATE in the schema".to_owned());
    }
    let sql = "select p.name || ' on ' || c.relname from pg_class c \
               cross join (values ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) as p (name) \
               where c.relkind in ('r', 'p') and c.relnamespace = to_regnamespace(current_schema()) \
               and c.relname = any ($1) and not has_table_privilege(c.oid, p.name) \
               order by c.relname, p.name";
    let denied: Vec<(String,)> =
        sqlx::query_as(sql).bind(tables()).fetch_all(&mut connection).await?;
    inspection.denied.extend(denied.into_iter().map(|(denied,)| denied));
    let sql = "select name || ' = ' || setting from pg_settings \
               where name in ('fsync', 'full_page_writes', 'synchronous_commit') \
               and setting = 'off' order by name";
    let settings: Vec<(String,)> = sqlx::query_as(sql).fetch_all(&mut connection).await?;
    inspection.unsafe_settings = settings.into_iter().map(|(setting,)| setting).collect();
    // What was asked is answered; how the connection ends does not matter.
    connection.close().await.ok();
    Ok(inspection)
}

async fn sqlite(path: &Path) -> Result<Inspection, Error> {
    let mut inspection = Inspection { version: "SQLite".to_owned(), ..Inspection::default() };
    if !path.exists() {
        inspection.compare(&SQLITE_MIGRATIONS, &[]);
        return Ok(inspection);
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let sql = "select count(*) from sqlite_master where name = '_sqlx_migrations'";
    let (migrated,): (i64,) = sqlx::query_as(sql).fetch_one(&mut connection).await?;
    let applied: Vec<(i64, bool)> = if migrated > 0 {
        let sql = "select version, success from _sqlx_migrations";
        sqlx::query_as(sql).fetch_all(&mut connection).await?
    } else {
        Vec::new()
    };
    inspection.compare(&SQLITE_MIGRATIONS, &applied);
    let writable = std::fs::metadata(path).is_ok_and(|file| !file.permissions().readonly());
    inspection.read_only = !writable;
    connection.close().await.ok();
    Ok(inspection)
}

impl Inspection {
    fn compare(&mut self, migrations: &Migrator, applied: &[(i64, bool)]) {
        let known = || migrations.iter().filter(|found| found.migration_type.is_up_migration());
        let was_applied = |version| applied.iter().any(|(found, _)| *found == version);
        let is_known = |version| known().any(|found| found.version == version);
        self.pending =
            known().map(|found| found.version).filter(|version| !was_applied(*version)).collect();
        let versions = |wanted: &dyn Fn(i64, bool) -> bool| {
            let found = applied.iter().filter(|(version, done)| wanted(*version, *done));
            found.map(|(version, _)| *version).collect()
        };
        self.unfinished = versions(&|_, done| !done);
        self.unknown = versions(&|version, _| !is_known(version));
    }
}

/// The tables that the migrations create, and the one that counts them.
fn tables() -> Vec<String> {
    let texts = POSTGRES_MIGRATIONS
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration())
        .flat_map(|migration| migration.sql.as_str().lines());
    let created = texts.filter_map(|line| {
        let rest = line.trim_start().strip_prefix("create table ")?;
        let name = rest.strip_prefix("if not exists ").unwrap_or(rest);
        name.split([' ', '(']).next().map(str::to_owned)
    });
    created.chain(["_sqlx_migrations".to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_the_migrations() {
        let tables = tables();
        for table in ["pipelines", "runs", "_sqlx_migrations"] {
            assert!(tables.iter().any(|known| known == table), "{tables:?}");
        }
    }
    #[test]
    fn only_a_verified_certificate_protects_what_leaves_the_machine() {
        for (address, expected) in [
            ("sqlite://a.db", Protection::Local),
            ("postgres://u@localhost/d", Protection::Loopback),
            ("postgres://u:p@127.0.0.1:5432/d?sslmode=require", Protection::Loopback),
            ("postgres://u@[::1]/d", Protection::Loopback),
            ("postgres:///d?host=/var/run/postgresql", Protection::Local),
            ("postgres://u@db.example/d", Protection::Nothing),
            ("postgres://u@db.example/d?sslmode=require", Protection::Nothing),
            ("postgres://u@db.example/d?sslmode=verify-ca", Protection::Verified),
            ("postgres://u@localhost/d?sslmode=verify-full", Protection::Verified),
        ] {
            assert_eq!(protection(&address.into()).unwrap(), expected, "{address}");
        }
    }
}
