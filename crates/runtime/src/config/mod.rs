//! Settings: defaults, then a YAML file, then the environment.
//!
//! A service's `Config` is a serde struct with `#[serde(default)]`. Its key `batch.max_records` in
//! the file is `TRIBUTARY_LOADER__BATCH__MAX_RECORDS` in the environment. Keys that nobody asked
//! for are errors that name the key and the place it stands in. Messages do not hold texts, which
//! may be secrets.

mod environment;
mod error;
mod read;
mod tree;
mod units;

pub use environment::Environment;
pub use error::ConfigError;
pub use tree::Tree;
pub use units::{duration, parse_duration, parse_size, size};
