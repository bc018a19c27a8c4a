use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, ensure};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use spec::{ResolveError, SecretFiles, SecretText};

use crate::access::AccessConfig;

/// Settings of the scheduler. Durations are written as `30s`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address that the gRPC API listens on. Port 0 takes a free one. Default `127.0.0.1:7000`.
    pub listen: SocketAddr,
    /// Who may call the gRPC API.
    pub access: AccessConfig,
    /// Where the control plane is kept: `postgres://…`, `sqlite://path` or the path of an SQLite
    /// file, which is created if it is missing. Secrets are references such as
    /// `${env:DATABASE_PASSWORD}` or `${file:/path}`. Several schedulers share one database;
    /// on several machines it has to be PostgreSQL. Default `.tributary/scheduler.db`.
    pub database: Database,
    /// Refuse a database whose connection others could read: one that leaves the machine needs
    /// `sslmode=verify-full` (or `verify-ca`) in its address. Default: no.
    pub require_database_tls: bool,
    /// Address on which KEDA, and nobody else, asks how much work waits, such as `0.0.0.0:7001`. KEDA
    /// sends no tokens, so this needs none; it tells counts and ages. The gRPC API answers the same
    /// questions to callers that may see pipelines. Default: none.
    pub scaler_listen: Option<SocketAddr>,
    /// Connections to the database, 2 to 100. Default 8.
    pub database_connections: u32,
    /// The broker.
    pub bus: bus::Config,
    /// Least time between two updates of the books of a run, `10ms` to `10s`. Default `200ms`.
    #[serde(with = "runtime::config::duration")]
    pub settle_interval: Duration,
    /// How often everything is looked at without a cause: what is due, what has stalled, what the
    /// broker lacks, `100ms` to `1m`. Default `2s`.
    #[serde(with = "runtime::config::duration")]
    pub reconcile_interval: Duration,
    /// A run whose books have not moved for so long and of which the broker holds nothing is handed
    /// out again, `500ms` to `1h`. Default `10s`.
    #[serde(with = "runtime::config::duration")]
    pub stalled_after: Duration,
    /// How long an extractor or loader may take to answer a question, `1s` to `10m`. Default `30s`.
    #[serde(with = "runtime::config::duration")]
    pub ask_timeout: Duration,
    /// How long calls in hand may take to end after a shutdown. Default `5s`.
    #[serde(with = "runtime::config::duration")]
    pub shutdown_grace: Duration,
    /// Where the scheduler tells that it is ready. Not a setting.
    #[serde(skip)]
    pub readiness: runtime::Readiness,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7000)),
            access: AccessConfig::default(),
            database: Database::new(".tributary/scheduler.db"),
            require_database_tls: false,
            scaler_listen: None,
            database_connections: 8,
            bus: bus::Config::default(),
            settle_interval: Duration::from_millis(200),
            reconcile_interval: Duration::from_secs(2),
            stalled_after: Duration::from_secs(10),
            ask_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(5),
            readiness: runtime::Readiness::default(),
        }
    }
}

/// Address of a database. It may hold references to secrets; it is never printed, because somebody
/// may have written the secret itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Database(String);

impl Database {
    /// Takes an address or a path as written.
    #[must_use]
    pub fn new(written: impl Into<String>) -> Self {
        Self(written.into())
    }

    /// Returns the secret files that it refers to.
    pub(crate) fn secret_files(&self) -> SecretFiles {
        SecretFiles::of(&self.0)
    }

    /// Replaces references by their secrets and a path by an address.
    ///
    /// # Errors
    ///
    /// When a secret is missing.
    pub(crate) fn resolve(&self) -> Result<SecretString, ResolveError> {
        let address = SecretText::new(self.0.clone()).resolve(|name| std::env::var(name).ok())?;
        // Only now: a reference may stand for the whole address.
        if address.expose_secret().contains("://") {
            return Ok(address);
        }
        Ok(format!("sqlite://{}", address.expose_secret()).into())
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database(…)")
    }
}

/// A setting is out of its limits.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` is {found:?}; use {least:?} to {most:?}")]
pub struct InvalidConfig {
    /// Name of the setting.
    key: &'static str,
    found: Duration,
    least: Duration,
    most: Duration,
}

impl Config {
    /// Returns the address of the database, with its secrets.
    ///
    /// # Errors
    ///
    /// When a secret is missing, or the connection is not protected as is required.
    pub(crate) fn database_address(&self) -> anyhow::Result<SecretString> {
        let address = self.database.resolve().context("the database address has a secret")?;
        if self.require_database_tls {
            let protection = store::protection(&address).context("`database`")?;
            ensure!(
                protection.holds(),
                "`require_database_tls` is set, and the connection to the database could be read on \
                 the way: add `sslmode=verify-full` to `database`, and `sslrootcert=/path` if its \
                 certificate is not of a public authority"
            );
        }
        Ok(address)
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the first one that is out of its limits.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const MS: fn(u64) -> Duration = Duration::from_millis;
        let limits = [
            ("settle_interval", self.settle_interval, MS(10), MS(10_000)),
            ("reconcile_interval", self.reconcile_interval, MS(100), MS(60_000)),
            ("stalled_after", self.stalled_after, MS(500), MS(3_600_000)),
            ("ask_timeout", self.ask_timeout, MS(1_000), MS(600_000)),
        ];
        for (key, found, least, most) in limits {
            if found < least || found > most {
                return Err(InvalidConfig { key, found, least, most });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_out_of_its_limits_is_named() {
        let config = Config { stalled_after: Duration::from_millis(1), ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().contains("stalled_after"));
        assert!(Config::default().validate().is_ok());
    }

    #[test]
    fn the_address_of_the_database_is_never_printed() {
        let config =
            Config { database: Database::new("postgres://u:word@h/d"), ..Config::default() };
        assert!(!format!("{config:?}").contains("word"));
    }

    #[test]
    fn a_path_is_a_file_and_an_unknown_key_is_refused() {
        let config: Config = serde_json::from_str(r#"{"database": "a/b.db"}"#).unwrap();
        assert_eq!(config.database.resolve().unwrap().expose_secret(), "sqlite://a/b.db");
        assert!(serde_json::from_str::<Config>(r#"{"databse": "x"}"#).is_err());
    }
    #[test]
    fn a_reference_may_stand_for_the_whole_address() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("address");
        for (secret, address) in
            [("postgres://u@h/d", "postgres://u@h/d"), ("a.db", "sqlite://a.db")]
        {
            std::fs::write(&file, secret).unwrap();
            let database = Database::new(format!("${{file:{}}}", file.display()));
            assert_eq!(database.resolve().unwrap().expose_secret(), address);
        }
    }
}
