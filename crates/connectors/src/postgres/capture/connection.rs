use std::{str::FromStr, time::Duration};

use connect::Error;
use pgwire_replication::{
    Lsn, PgWireError, ReplicationClient, ReplicationConfig, SslMode, TlsConfig,
};
use secrecy::{ExposeSecret, SecretString};
use spec::SecretText;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::time::Instant;

use crate::sql::quote::Identifier;

/// How often the server hears from us. It asks by itself, and holds its own shutdown up, after half
/// of `wal_sender_timeout`.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that were received and not yet looked at.
const BUFFERED_MESSAGES: usize = 128;
/// How long another session may still hold the slot: that of a reader that has just ended.
const SLOT_PATIENCE: Duration = Duration::from_secs(10);
const SLOT_CHECK: Duration = Duration::from_millis(50);

/// How to open replication connections.
#[derive(Clone)]
pub(super) struct Connection {
    options: PgConnectOptions,
    password: SecretString,
    tls: TlsConfig,
    /// What fails when the connection does.
    what: String,
}

impl Connection {
    /// # Errors
    ///
    /// Stops the run when the URL cannot be put together.
    pub(super) fn new(
        url: &SecretText,
        options: &PgConnectOptions,
        what: String,
        variables: &crate::Variables,
    ) -> Result<Self, Error> {
        let broken = || Error::stop(&*what, "check the connection URL");
        let resolved = url.resolve(|name| variables(name)).map_err(|_| broken())?;
        let url = url::Url::from_str(resolved.expose_secret()).map_err(|_| broken())?;
        let setting = |names: &[&str]| {
            let found = url.query_pairs().find(|(name, _)| names.contains(&name.as_ref()));
            found.map(|(_, value)| value.into_owned())
        };
        let password = url.password().map(percent_decoded);
        let password =
            password.or_else(|| setting(&["password"])).or_else(|| variables("PGPASSWORD"));
        let file = |names: &[&str]| setting(names).map(Into::into);
        let tls = TlsConfig {
            mode: match options.get_ssl_mode() {
                PgSslMode::Disable => SslMode::Disable,
                PgSslMode::Allow | PgSslMode::Prefer => SslMode::Prefer,
                PgSslMode::Require => SslMode::Require,
                PgSslMode::VerifyCa => SslMode::VerifyCa,
                PgSslMode::VerifyFull => SslMode::VerifyFull,
            },
            ca_pem_path: file(&["sslrootcert", "ssl-root-cert", "ssl-ca"]),
            sni_hostname: None,
            client_cert_pem_path: file(&["sslcert", "ssl-cert"]),
            client_key_pem_path: file(&["sslkey", "ssl-key"]),
        };
        Ok(Self {
            options: options.clone(),
            password: password.unwrap_or_default().into(),
            tls,
            what,
        })
    }

    fn config(&self) -> ReplicationConfig {
        let options = &self.options;
        let socket = options.get_socket().map(|socket| socket.to_string_lossy().into_owned());
        let tls = if socket.is_some() { TlsConfig::disabled() } else { self.tls.clone() };
        let mut config = ReplicationConfig::new(
            socket.unwrap_or_else(|| options.get_host().to_owned()),
            options.get_username(),
            self.password.expose_secret(),
            options.get_database().unwrap_or(options.get_username()),
            "",
            "",
        )
        .with_port(options.get_port())
        .with_tls(tls)
        .with_status_interval(STATUS_INTERVAL)
        .with_wakeup_interval(STATUS_INTERVAL)
        .with_buffer_size(BUFFERED_MESSAGES)
        .with_application_name("tributary");
        config.options = options.get_options().map(str::to_owned);
        config
    }

    /// Opens a session that waits for commands.
    ///
    /// # Errors
    ///
    /// Only what the client refuses before it connects.
    pub(super) async fn session(&self) -> Result<ReplicationClient, Error> {
        ReplicationClient::connect_gated(self.config()).await.map_err(|error| self.failed(error))
    }

    /// Follows the log from `at`, confirming `loaded` and nothing more.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or the slot cannot be read.
    pub(super) async fn follow(
        &self,
        slot: &str,
        publication: &str,
        at: Lsn,
        loaded: Lsn,
    ) -> Result<ReplicationClient, Error> {
        let mut config = self.config().with_start_lsn(at).with_ack_lsn(loaded);
        config.slot = Identifier::known(slot).to_string();
        config.publication = Identifier::known(publication).to_string().into();
        let deadline = Instant::now() + SLOT_PATIENCE;
        loop {
            let connected = ReplicationClient::connect(config.clone()).await;
            let mut client = connected.map_err(|error| self.failed(error))?;
            match client.wait_started().await {
                Ok(()) => return Ok(client),
                // Nothing tells when the server has noticed that the session before has ended.
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(SLOT_CHECK).await;
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Decides what to do about an error of the client.
    pub(super) fn failed(&self, error: PgWireError) -> Error {
        failed(&self.what, error)
    }
}

fn failed(what: &str, error: PgWireError) -> Error {
    let hint = match &error {
        PgWireError::Server(message) => return refused(what, message),
        PgWireError::Auth(_) => "check user and password in the connection URL",
        PgWireError::Tls(_) => "check `sslmode` and `sslrootcert` in the connection URL",
        PgWireError::MessageTooLarge { .. } | PgWireError::Protocol(_) => "see the cause",
        _ => {
            let hint = "check that the PostgreSQL server runs and can be reached";
            return Error::retry(what, hint).because(error);
        }
    };
    Error::stop(what, hint).because(error)
}

/// Decides what to do about what the server says, by its code.
///
/// Source: PostgreSQL 15 documentation, appendix A.
fn refused(what: &str, message: &str) -> Error {
    let code = code(message);
    let retry = |hint: &str| Error::retry(what, hint).because(message.to_owned());
    let stop = |hint: &str| Error::stop(what, hint).because(message.to_owned());
    match code {
        "55006" => retry("something else reads the replication slot; end it, or name another slot"),
        "42501" => stop("give the user of the connection URL the attribute `replication`"),
        "28000" | "28P01" => stop(
            "check user and password in the connection URL, and that pg_hba.conf allows logical \
             replication connections to the database",
        ),
        "53400" => stop("raise `max_replication_slots`, or drop slots that nobody reads"),
        "55000" => stop(
            "the log before the slot's position is gone, or the server is not set up for logical \
             replication; see the cause, then run once with `--full`",
        ),
        "42704" => stop(
            "the slot or the publication is gone, and with it the changes since then; run once \
             with `--full`",
        ),
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "53" | "57" | "58" => retry("the server is away or short of something"),
            _ => stop("see the cause"),
        },
    }
}

fn is_busy(error: &PgWireError) -> bool {
    matches!(error, PgWireError::Server(message) if code(message) == "55006")
}

fn code(message: &str) -> &str {
    let code = message.rsplit_once("SQLSTATE ").map_or("", |(_, code)| code);
    code.get(..5).unwrap_or_default()
}

fn percent_decoded(text: &str) -> String {
    let pair = format!("p={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use model::Remedy;

    use super::*;

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        for (message, passes) in [
            ("FATAL: terminating connection (SQLSTATE 57P01)", true),
            ("ERROR: replication slot \"s\" is active for PID 7 (SQLSTATE 55006)", true),
            ("ERROR: replication slot \"s\" does not exist (SQLSTATE 42704)", false),
            ("ERROR: can no longer get changes (SQLSTATE 55000)", false),
            ("something without a code", false),
        ] {
            let error = failed("w", PgWireError::Server(message.to_owned()));
            assert_eq!(matches!(error.remedy, Remedy::Retry { .. }), passes, "{message}");
        }
        let away = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(failed("w", away.into()).remedy, Remedy::Retry { .. }));
    }

    #[test]
    fn a_password_is_taken_as_it_is_meant() {
        assert_eq!(percent_decoded("a%40b+c%26d=e&f"), "a@b+c&d=e&f");
        assert_eq!(percent_decoded("p%2Bq"), "p+q");
    }
}
