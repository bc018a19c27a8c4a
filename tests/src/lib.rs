#![doc = include_str!("../README.md")]
#![allow(clippy::unwrap_used, reason = "whatever fails here fails a test")]

mod client;
mod customers;
mod fingerprint;
mod process;
mod scenario;
mod seed;
mod sender;
mod service;
mod system;
mod tap;
mod usage;

pub use client::{Client, assert_balanced};
pub use customers::{Customer, Customers, Edition, SCHEMA};
pub use fingerprint::Fingerprint;
pub use process::{Process, binary};
pub use scenario::{History, Peer, Report};
pub use seed::Seed;
pub use sender::Sender;
pub use service::{Role, Service, free_address};
pub use system::{Layout, System};
pub use tap::{Captured, Seen, Tap};
pub use usage::{Usage, children};
