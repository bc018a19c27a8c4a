#![doc = include_str!("../README.md")]

mod batch;
mod field_type;
mod id;
mod records;
mod remedy;
mod schema;

pub use batch::{Batch, BatchHeader};
pub use field_type::{FieldType, ParseFieldTypeError};
pub use id::{BatchId, InvalidId, PipelineName, RunId};
pub use records::{Ids, Operation, Records, ShapeError};
pub use remedy::Remedy;
pub use schema::{ColumnPolicy, Contract, Field, Schema, TablePolicy, TypePolicy};
