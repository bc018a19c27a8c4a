use std::time::Duration;

use serde::{Deserialize, Serialize};
use stage::retry;

/// Settings of the loader. Durations are written as `30s`, sizes as `4MiB`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The broker.
    pub bus: bus::Config,
    /// Groups of batches that are written to one target at the same time, 1 to 32. Default 2.
    pub connections_per_target: usize,
    /// Size of the messages that are written together, `1MiB` to `64MiB`. As much again is fetched
    /// ahead for every target. Default `4MiB`.
    #[serde(with = "runtime::config::size")]
    pub group_bytes: usize,
    /// Messages that are written together, 1 to 256; what is pushed comes in small ones. Default 256.
    pub group_messages: u32,
    /// How long one write may take before it is taken for lost and repeated, at least `1s`. Default
    /// `5m`.
    #[serde(with = "runtime::config::duration")]
    pub write_timeout: Duration,
    /// How a target that fails is tried again. It is waited for without limit; the number of
    /// attempts is not used.
    pub retry: retry::Policy,
    /// How long a write may go on after a shutdown. Default `5s`.
    #[serde(with = "runtime::config::duration")]
    pub shutdown_grace: Duration,
    /// Where the loader tells that it is ready. Not a setting.
    #[serde(skip)]
    pub readiness: runtime::Readiness,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bus: bus::Config::default(),
            connections_per_target: 2,
            group_bytes: 4 * 1024 * 1024,
            group_messages: 256,
            write_timeout: Duration::from_secs(300),
            retry: retry::Policy::default(),
            shutdown_grace: Duration::from_secs(5),
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
    /// Every write would be taken for lost.
    #[error("`write_timeout` is shorter than 1s")]
    WriteTimeout,
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
        const MIB: usize = 1024 * 1024;
        let ranges = [
            ("connections_per_target", self.connections_per_target, 1, 32),
            ("group_bytes", self.group_bytes, MIB, 64 * MIB),
            ("group_messages", self.group_messages as usize, 1, 256),
        ];
        for (key, found, least, most) in ranges {
            if !(least..=most).contains(&found) {
                return Err(InvalidConfig::Range { key, found, least, most });
            }
        }
        if self.write_timeout < Duration::from_secs(1) {
            return Err(InvalidConfig::WriteTimeout);
        }
        Ok(self.retry.validate()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_its_limits_is_named() {
        let config = Config { connections_per_target: 0, ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().contains("connections_per_target"));
        let config = Config { group_bytes: 10, ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().contains("group_bytes"));
        let config = Config { write_timeout: Duration::ZERO, ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().contains("write_timeout"));
        Config::default().validate().unwrap();
    }

    #[test]
    fn settings_are_written_with_units_and_unknown_keys_are_refused() {
        let config: Config = serde_json::from_str(r#"{"group_bytes": "2MiB"}"#).unwrap();
        assert_eq!(config.group_bytes, 2 * 1024 * 1024);
        assert!(serde_json::from_str::<Config>(r#"{"group": 2}"#).is_err());
    }
}
