//! Tables of SQLite files.

mod catalog;
mod error;
mod reader;
mod session;
mod source;
mod target;
mod types;
mod value;

pub(crate) use source::Source;
pub(crate) use target::Target;
