use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{ConfigError, Names, Service, Stream, units};

/// How to reach the broker and how much it keeps.
///
/// Durations are written as `60s`, sizes as `256MiB`; a plain number counts seconds or bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses of the servers, such as `nats://127.0.0.1:4222`. Default: that one.
    pub servers: Vec<String>,
    /// Prefix of all names, so that several installations can share a server: 1 to 32 of `a-z`,
    /// `0-9`, `_` and `-`, starting with a letter. Default: `tributary`.
    pub prefix: String,
    /// Copies of every stream and bucket, 1 to 5; 3 in production. Default: 1.
    pub replicas: usize,
    /// File to log in with: credentials (`.creds`), or the seed of an nkey alone. Default: none.
    pub credentials: Option<PathBuf>,
    /// File with the certificates (PEM) of the authority that signed the servers'; turns TLS on.
    /// Default: none.
    pub tls_ca: Option<PathBuf>,
    /// Folder of keys with which everything is encrypted that the broker and the quarantine keep;
    /// all services need the same ones. See [`crate::SealKeys`]. Pipelines with `pii` need it.
    /// Default: none.
    pub seal_keys: Option<PathBuf>,
    /// How long a publish is retried when the broker does not answer, at least `60s` in production,
    /// because a change of leader takes up to 10 s. A full stream is waited for without limit.
    /// Default: `90s`.
    #[serde(with = "units::duration")]
    pub publish_patience: Duration,
    /// A message that is neither answered nor kept for so long is delivered again, at least `1s`.
    /// Whoever works on a message keeps it, so this is how long the work of a killed process rests.
    /// Default: `30s`.
    #[serde(with = "units::duration")]
    pub ack_wait: Duration,
    /// Largest size of each stream; a full one refuses what is new, and the writer waits.
    pub max_bytes: MaxBytes,
    /// Who connects, which decides where its answers arrive. Only the scheduler adapts streams that
    /// are there. `None`: somebody who may do everything.
    #[serde(skip)]
    pub service: Option<Service>,
}

/// Largest sizes of the streams in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaxBytes {
    /// Tasks. Default: `64MiB`.
    #[serde(with = "units::size")]
    pub tasks: u64,
    /// Batches on their way to the transformers. Default: `256MiB`.
    #[serde(with = "units::size")]
    pub raw: u64,
    /// Batches on their way to the loaders. Default: `256MiB`.
    #[serde(with = "units::size")]
    pub ready: u64,
    /// Refused records on their way to the scheduler. Default: `1GiB`.
    #[serde(with = "units::size")]
    pub quarantine: u64,
    /// Ledger entries on their way to the scheduler. Default: `256MiB`.
    #[serde(with = "units::size")]
    pub ledger: u64,
}

impl MaxBytes {
    /// Returns the size of one stream.
    #[must_use]
    pub fn of(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Tasks => self.tasks,
            Stream::Raw => self.raw,
            Stream::Ready => self.ready,
            Stream::Quarantine => self.quarantine,
            Stream::Ledger => self.ledger,
        }
    }
}

impl Default for MaxBytes {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            tasks: 64 * MIB,
            raw: 256 * MIB,
            ready: 256 * MIB,
            quarantine: 1024 * MIB,
            ledger: 256 * MIB,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            prefix: "tributary".to_owned(),
            replicas: 1,
            credentials: None,
            tls_ca: None,
            seal_keys: None,
            publish_patience: Duration::from_secs(90),
            ack_wait: Duration::from_secs(30),
            max_bytes: MaxBytes::default(),
            service: None,
        }
    }
}

impl Config {
    /// Returns the settings for a service.
    #[must_use]
    pub fn of_service(&self, service: Service) -> Self {
        Self { service: Some(service), ..self.clone() }
    }

    /// Checks the settings and returns the names that they lead to.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first setting that is out of its limits.
    pub fn validate(&self) -> Result<Names, ConfigError> {
        if self.servers.is_empty() {
            return Err(ConfigError::NoServers);
        }
        if !(1..=5).contains(&self.replicas) {
            return Err(ConfigError::Replicas(self.replicas));
        }
        if self.ack_wait < Duration::from_secs(1) {
            return Err(ConfigError::AckWait(self.ack_wait));
        }
        for stream in Stream::ALL {
            let found = self.max_bytes.of(stream);
            if !(MIN_STREAM_BYTES..=i64::MAX.unsigned_abs()).contains(&found) {
                return Err(ConfigError::MaxBytes { stream, found });
            }
        }
        Names::new(&self.prefix)
    }
}

/// A stream has room for at least two messages of the largest size.
const MIN_STREAM_BYTES: u64 = 2 * crate::MAX_PAYLOAD as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_its_limits_is_named() {
        let replicas = Config { replicas: 6, ..Config::default() };
        assert!(replicas.validate().unwrap_err().to_string().contains("replicas"));
        let servers = Config { servers: Vec::new(), ..Config::default() };
        assert!(servers.validate().unwrap_err().to_string().contains("servers"));
        let small = MaxBytes { raw: 10, ..MaxBytes::default() };
        let small = Config { max_bytes: small, ..Config::default() };
        assert!(small.validate().unwrap_err().to_string().contains("raw"));
    }

    #[test]
    fn settings_are_written_with_units_and_unknown_keys_are_refused() {
        let text = r#"{"publish_patience": "2m", "max_bytes": {"raw": "8MiB"}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.publish_patience, Duration::from_secs(120));
        assert_eq!(config.max_bytes.raw, 8 * 1024 * 1024);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
        assert!(serde_json::from_str::<Config>(r#"{"server": []}"#).is_err());
        assert!(serde_json::from_str::<Config>(r#"{"publish_patience": "2 weeks"}"#).is_err());
    }
}
