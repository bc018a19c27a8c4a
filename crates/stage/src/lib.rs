#![doc = include_str!("../README.md")]

mod failure;
mod pipelines;
mod quarantine;
pub mod retry;
mod turns;
mod unreadable;

pub use failure::{Failure, chain};
pub use pipelines::{Follower, Pipelines, Stored};
pub use quarantine::quarantine;
pub use turns::{Turn, Turns};
pub use unreadable::{Unreadable, read_batch};
