#![doc = include_str!("../README.md")]

mod ages;
mod batch;
mod field_type;
mod id;
mod json;
mod quota;
mod records;
mod remedy;
mod schema;

pub use ages::Ages;
pub use batch::{Batch, BatchHeader, PushWindow};
pub use field_type::{FieldType, ParseFieldTypeError};
pub use id::{BatchId, InvalidId, PipelineName, RunId};
pub use json::to_json;
pub use quota::{Limit, Matching, Quota};
pub use records::{Ids, Operation, Records, ShapeError};
pub use remedy::Remedy;
pub use schema::{ColumnPolicy, Contract, Field, Schema, TablePolicy, TypePolicy};
