use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of the transformer. Durations are written as `30s`, sizes as `4MiB`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The broker.
    pub bus: bus::Config,
    /// Batches that are worked on at the same time, 1 to 256, over all pipelines; most of the time they
    /// wait for the broker. Default 8.
    pub concurrent_batches: usize,
    /// How long the batches in hand may take after a shutdown. Default `10s`.
    #[serde(with = "runtime::config::duration")]
    pub shutdown_grace: Duration,
    /// Where the transformer tells that it is ready. Not a setting.
    #[serde(skip)]
    pub readiness: runtime::Readiness,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bus: bus::Config::default(),
            concurrent_batches: 8,
            shutdown_grace: Duration::from_secs(10),
            readiness: runtime::Readiness::default(),
        }
    }
}

/// A setting is out of its limits.
#[derive(Debug, thiserror::Error)]
#[error("`concurrent_batches` is {found}; use 1 to 256")]
pub struct InvalidConfig {
    found: usize,
}

impl Config {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the first setting that is out of its limits.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let found = self.concurrent_batches;
        if (1..=256).contains(&found) { Ok(()) } else { Err(InvalidConfig { found }) }
    }
}
