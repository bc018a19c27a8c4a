//! PostgreSQL tables.

mod arrays;
mod capture;
mod catalog;
mod decode;
mod encode;
mod error;
mod pool;
mod reader;
mod session;
mod source;
mod target;
mod types;

pub(crate) use capture::Source as Capture;
pub(crate) use source::Source;
pub(crate) use target::Target;
