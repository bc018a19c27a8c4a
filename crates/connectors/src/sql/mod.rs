//! What PostgreSQL and SQLite have in common.
//!
//! Writing: `settings` says what is wanted, `shape` what the table has, `plan` what has to change,
//! `unit` takes the records, `check` finds those that do not fit, `order` puts them in order,
//! `merge` and `patches` write the SQL, `load` and `sweep` run it over a `session`, which each database
//! implements. Reading: `columns` compares the table with the schema, `reader` makes chunks of the
//! rows that each database gives, `cursor` says where it stands.

mod check;
pub(crate) mod columns;
pub(crate) mod cursor;
pub(crate) mod failure;
mod keys;
pub(crate) mod load;
pub(crate) mod merge;
mod order;
mod patches;
pub(crate) mod plan;
pub(crate) mod quote;
pub(crate) mod reader;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod shape;
pub(crate) mod sweep;
mod tally;
pub(crate) mod text;
pub(crate) mod unit;
