//! The extractor with scripted sources and a real broker.
#![allow(clippy::unwrap_used, reason = "a test may end where it does not find what it expects")]

mod ingest;
mod intake;
mod publishing;
mod reading;
mod stage;
mod tasks;
mod webhooks;
