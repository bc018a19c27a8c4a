#![doc = include_str!("../README.md")]

mod expression;
mod fields;
pub mod format;
mod nearest;
mod parse;
mod pipeline;
mod places;
mod problem;
mod reader;
mod revision;
mod secret;
pub mod text;
mod yaml;

pub use expression::{Expression, FUNCTIONS, InvalidExpression};
pub use fields::{castable, fields_after, flattened_name};
pub use parse::parse;
pub use pipeline::{
    Cast, Compute, CsvSource, Deletes, Encoding, Flatten, JsonLayout, JsonSource, Mode, Pipeline,
    PostgresSource, Source, SqliteSource, Step, TableRead, Target, TargetSystem, Triggers,
};
pub use places::Places;
pub use problem::Problem;
pub use revision::Revision;
pub use secret::{ResolveError, SecretText};
