#![doc = include_str!("../README.md")]

mod error;
mod memory;
mod source;
mod target;
mod throttle;

pub use error::Error;
pub use memory::{LocalMemory, Memory, Put, Remembered};
pub use source::{
    Chunk, Limits, Part, PartCursor, Parts, Reader, RefusedRaw, RunOptions, Source, Stream, Usage,
};
pub use target::{Refused, Sweep, Target, Written};
pub use throttle::{Call, Feedback, Permit, Throttle, Unlimited};
