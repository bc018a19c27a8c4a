//! The binary as a user meets it.

mod client;
mod fake;
mod process;
mod up;
