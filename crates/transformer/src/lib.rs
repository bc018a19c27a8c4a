#![doc = include_str!("../README.md")]

mod cells;
mod convert;
mod error;
mod evolve;
mod expression;
mod json;
mod outcome;
mod program;
mod service;
mod steps;
mod table;
mod typing;
mod versions;
mod written;

pub use error::CompileError;
pub use outcome::{Outcome, Refused, Stop};
pub use program::Program;
pub use service::{Config, InvalidConfig, run};
