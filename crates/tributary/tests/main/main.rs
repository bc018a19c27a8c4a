//! The binary as a user meets it.
#![allow(clippy::unwrap_used, reason = "what a test does not expect ends it")]

mod client;
mod doctor;
mod fake;
mod process;
mod up;
