//! PostgreSQL tables.

mod arrays;
mod capture;
mod catalog;
mod decode;
mod encode;
mod error;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod pool;
mod reader;
mod session;
mod source;
mod target;
mod types;

pub(crate) use capture::Source as Capture;
#[cfg(feature = "fuzz")]
pub use capture::fuzz::read_log;
pub(crate) use source::Source;
pub(crate) use target::Target;
