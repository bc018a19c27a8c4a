use std::time::Duration;

use bus::WindowLimits;
use serde::{Deserialize, Serialize};
use stage::retry;

use crate::{IngestConfig, PushConfig};

/// Settings of the extractor. Durations are written as `30s`, sizes as `4MiB`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The broker.
    pub bus: bus::Config,
    /// Parts that are read at the same time, 1 to 64. Each holds a few chunks and up to
    /// `in_flight_bytes` in memory. Default 4.
    pub concurrent_parts: usize,
    /// Bytes of one part that may wait for the broker's acknowledgement, at least `512KiB`. Default
    /// `4MiB`.
    #[serde(with = "runtime::config::size")]
    pub in_flight_bytes: usize,
    /// Messages of one part that may wait for the broker's acknowledgement, 1 to 256. Default 16.
    pub in_flight_messages: usize,
    /// Rough size of the values of a batch, `1KiB` to `384KiB`. Default `256KiB`.
    #[serde(with = "runtime::config::size")]
    pub batch_bytes: usize,
    /// Largest number of records of a batch, at least 1. Default 16384.
    pub batch_records: usize,
    /// Size above which a record is quarantined, `1KiB` to `384KiB`. Default `384KiB`.
    #[serde(with = "runtime::config::size")]
    pub record_bytes: usize,
    /// How a source that fails is tried again.
    pub retry: retry::Policy,
    /// How long what was read may take to be published after a shutdown. Default `5s`.
    #[serde(with = "runtime::config::duration")]
    pub shutdown_grace: Duration,
    /// How webhooks are taken in.
    pub push: PushConfig,
    /// How gRPC ingest is served.
    pub ingest: IngestConfig,
    /// Where the extractor tells that it is ready. Not a setting.
    #[serde(skip)]
    pub readiness: runtime::Readiness,
}

impl Default for Config {
    fn default() -> Self {
        let window = WindowLimits::default();
        let limits = connect::Limits::default();
        Self {
            bus: bus::Config::default(),
            concurrent_parts: 4,
            in_flight_bytes: window.bytes,
            in_flight_messages: window.messages,
            batch_bytes: limits.chunk_bytes,
            batch_records: limits.chunk_records,
            record_bytes: limits.record_bytes,
            retry: retry::Policy::default(),
            shutdown_grace: Duration::from_secs(5),
            push: PushConfig::default(),
            ingest: IngestConfig::default(),
            readiness: runtime::Readiness::default(),
        }
    }
}

/// A setting is out of its limits.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// A number is out of its limits.
    #[error("`{key}` is {found}; use {least} to {most}")]
    Range {
        /// Name of the setting.
        key: &'static str,
        /// Its value.
        found: usize,
        /// Least value.
        least: usize,
        /// Greatest value.
        most: usize,
    },
    /// The waits between repetitions cannot work.
    #[error("`retry` cannot work")]
    Retry(#[from] retry::InvalidPolicy),
}

impl Config {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the first setting that is out of its limits.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const KIB: usize = 1024;
        let ranges = [
            ("concurrent_parts", self.concurrent_parts, 1, 64),
            ("in_flight_bytes", self.in_flight_bytes, 512 * KIB, 1024 * 1024 * KIB),
            ("in_flight_messages", self.in_flight_messages, 1, 256),
            ("batch_bytes", self.batch_bytes, KIB, 384 * KIB),
            ("batch_records", self.batch_records, 1, 1_000_000),
            ("record_bytes", self.record_bytes, KIB, 384 * KIB),
        ];
        for (key, found, least, most) in ranges {
            if !(least..=most).contains(&found) {
                return Err(InvalidConfig::Range { key, found, least, most });
            }
        }
        self.push.validate()?;
        Ok(self.retry.validate()?)
    }

    pub(crate) fn limits(&self) -> connect::Limits {
        connect::Limits {
            chunk_bytes: self.batch_bytes,
            chunk_records: self.batch_records,
            record_bytes: self.record_bytes,
        }
    }

    pub(crate) fn window(&self) -> WindowLimits {
        WindowLimits { messages: self.in_flight_messages, bytes: self.in_flight_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_its_limits_is_named() {
        let config = Config { concurrent_parts: 0, ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().contains("concurrent_parts"));
        let config = Config { record_bytes: 1 << 20, ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().contains("record_bytes"));
        Config::default().validate().unwrap();
    }

    #[test]
    fn settings_are_written_with_units_and_unknown_keys_are_refused() {
        let config: Config = serde_json::from_str(r#"{"in_flight_bytes": "2MiB"}"#).unwrap();
        assert_eq!(config.in_flight_bytes, 2 * 1024 * 1024);
        assert!(serde_json::from_str::<Config>(r#"{"in_flight": 2}"#).is_err());
    }
}
