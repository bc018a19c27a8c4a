//! Change capture against real PostgreSQL servers.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod crashes;
mod refusals;
mod rows;
mod support;
