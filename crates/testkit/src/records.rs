//! Records of two text columns, `key` and `value`.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use model::{Ids, Records};

/// Makes records of `(position, key, value)`. Ids are `prefix` and the position.
///
/// # Panics
///
/// Never: the columns have the same length.
#[must_use]
pub fn records(prefix: &str, extraction_base: i64, rows: &[(u64, String, String)]) -> Records {
    let keys: StringArray = rows.iter().map(|(_, key, _)| Some(key.as_str())).collect();
    let values: StringArray = rows.iter().map(|(_, _, value)| Some(value.as_str())).collect();
    let columns = [("key", Arc::new(keys) as ArrayRef), ("value", Arc::new(values) as ArrayRef)];
    let columns = columns.map(|(name, column)| (name, column, true));
    Records {
        columns: RecordBatch::try_from_iter_with_nullable(columns).expect("the columns fit"),
        presence: Vec::new(),
        ids: Ids::Positions { prefix: prefix.to_owned() },
        positions: rows.iter().map(|(position, _, _)| *position).collect(),
        extraction_base,
        versions: None,
        operations: None,
    }
}

/// Returns one text of records.
///
/// # Panics
///
/// When there is no such text column or record.
#[must_use]
pub fn text(records: &Records, column: &str, index: usize) -> String {
    let column = records.columns.column_by_name(column).expect("the column exists");
    let column = column.as_any().downcast_ref::<StringArray>().expect("the column holds text");
    column.value(index).to_owned()
}
