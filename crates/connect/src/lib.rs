#![doc = include_str!("../README.md")]

mod error;
mod source;
mod target;

pub use error::Error;
pub use source::{Chunk, Limits, Part, PartCursor, Parts, Reader, RefusedRaw, Source, Stream};
pub use target::{Refused, Sweep, Target, Written};
