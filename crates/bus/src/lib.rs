#![doc = include_str!("../README.md")]

mod ask;
mod backoff;
mod checksum;
mod config;
mod connection;
mod consumer;
mod delivery;
mod error;
mod key_value;
mod ledger;
mod metrics;
mod missing;
mod names;
mod pending;
mod provision;
mod publish;
pub mod questions;
mod trace;
mod units;
mod watch;
mod window;

pub use checksum::Damaged;
pub use config::{Config, MaxBytes};
pub use connection::Bus;
pub use consumer::{Consumer, ConsumerOptions};
pub use delivery::Delivery;
pub use error::{AckError, AskError, BusError, ConfigError, ConnectError, PublishError};
pub use key_value::KeyValue;
pub use ledger::LedgerWriter;
pub use names::{Bucket, Names, Queue, Stream, Subject, TaskKind};
pub use pending::Pending;
pub use publish::{MAX_PAYLOAD, Outgoing};
pub use watch::{Change, Watch};
pub use window::{PublishWindow, WindowLimits};
