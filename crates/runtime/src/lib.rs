#![doc = include_str!("../README.md")]

pub mod certificate;
pub mod clock;
pub mod config;
pub mod fault;
pub mod grpc;
pub mod http;
pub mod readiness;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod tls;

pub use readiness::Readiness;
