//! What PostgreSQL and SQLite have in common.
//!
//! Writing: `settings` says what is wanted, `shape` what the table has, `plan` what has to change,
//! `unit` puts the records in order, `merge` writes the SQL, `load` and `sweep` run it over a
//! `session`, which each database implements. Reading: `columns` and `cursor`.

pub(crate) mod columns;
pub(crate) mod cursor;
pub(crate) mod failure;
pub(crate) mod load;
pub(crate) mod merge;
pub(crate) mod plan;
pub(crate) mod quote;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod shape;
pub(crate) mod sweep;
pub(crate) mod text;
pub(crate) mod unit;
