//! What every SQL source and target has to do, against real databases.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod patches;
mod sources;
mod support;
mod targets;
mod types;
