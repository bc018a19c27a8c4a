//! The loader with scripted targets and a real broker.
#![allow(clippy::unwrap_used, reason = "a test may end where it does not find what it expects")]

mod failing;
mod loading;
mod stage;
mod sweeping;
