//! One suite, run on SQLite and on a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod access;
mod books;
mod forks;
mod pipelines;
mod replay;
mod runs;
mod schedules;
mod shared;
mod support;
