//! The transformer with a real broker.
#![allow(clippy::unwrap_used, reason = "a test may end where it does not find what it expects")]

mod stage;
mod transforming;
