#![doc = include_str!("../README.md")]

mod ask;
mod backoff;
mod checksum;
mod config;
mod connection;
mod consumer;
mod deliveries;
mod delivery;
mod error;
mod inspect;
mod key_value;
mod lanes;
mod ledger;
mod memory;
mod metrics;
mod missing;
mod names;
mod pending;
mod permissions;
mod provision;
mod publish;
pub mod questions;
mod quota;
mod renewal;
mod seal;
mod trace;
mod units;
mod watch;
mod window;

pub use checksum::Damaged;
pub use config::{Config, MaxBytes};
pub use connection::Bus;
pub use consumer::{Consumer, ConsumerOptions};
pub use deliveries::Deliveries;
pub use delivery::Delivery;
pub use error::{
    AckError, AskError, BusError, ConfigError, ConnectError, OfferError, PublishError,
};
pub use inspect::{Difference, Room, Skew, StreamReport};
pub use key_value::{KeyValue, Versioned};
pub use lanes::Lane;
pub use ledger::LedgerWriter;
pub use memory::Memory;
pub use names::{Bucket, Names, Queue, Stream, Subject, TaskKind};
pub use pending::Pending;
pub use permissions::{LoginKey, Permissions, Service, authorization};
pub use publish::{MAX_PAYLOAD, Outgoing};
pub use quota::{LimitUse, QuotaUse, Quotas};
pub use renewal::Renewal;
pub use seal::{OpenError, SealKeys, cursor_place, sealed_with};
pub use trace::span_of;
pub use watch::{Change, Watch};
pub use window::{PublishWindow, WindowLimits};
