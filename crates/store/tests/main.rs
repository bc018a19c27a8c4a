//! One suite, run on SQLite and on a real PostgreSQL.

mod books;
mod forks;
mod pipelines;
mod replay;
mod runs;
mod support;
