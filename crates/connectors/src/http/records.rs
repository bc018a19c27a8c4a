//! Names for records, and chunks without any.

use std::{hash::Hasher, sync::Arc};

use arrow_array::{Array, StringArray};
use connect::RefusedRaw;
use model::{Ids, Records};
use spec::{JsonPath, text_of};
use twox_hash::XxHash3_64;

use super::answer;
use crate::files::{Cut, RefusedText};

/// Returns no records.
pub(super) fn empty(extraction_base: i64) -> Records {
    Records {
        columns: arrow_array::RecordBatch::new_empty(Arc::new(arrow_schema::Schema::empty())),
        presence: Vec::new(),
        ids: Ids::Positions { prefix: String::new() },
        positions: Vec::new(),
        extraction_base,
        versions: None,
        operations: None,
    }
}

/// Names records by their key and their content, or by their content and their place.
pub(super) fn ids(cut: &Cut, label: &str, key: &[String], request: u64) -> StringArray {
    let schema = cut.columns.schema();
    let mut contents = vec![0_u64; cut.positions.len()];
    for (index, (field, column)) in schema.fields().iter().zip(cut.columns.columns()).enumerate() {
        let Some(texts) = column.as_any().downcast_ref::<StringArray>() else { continue };
        let name = XxHash3_64::oneshot(field.name().as_bytes());
        let presence = cut.presence.get(index).and_then(Option::as_ref);
        for (row, content) in contents.iter_mut().enumerate() {
            if presence.is_some_and(|presence| !presence.value(row)) {
                continue;
            }
            let value: &[u8] = if texts.is_null(row) { b"" } else { texts.value(row).as_bytes() };
            let mut hash = XxHash3_64::with_seed(name);
            hash.write_u8(u8::from(texts.is_null(row)));
            hash.write(value);
            // The order of the fields means nothing.
            *content = content.wrapping_add(hash.finish());
        }
    }
    let key: Vec<JsonPath> = key.iter().map(|name| JsonPath::of_keys(&[name])).collect();
    let id = |row: usize| {
        let values: Option<Vec<String>> = key
            .iter()
            .map(|path| Some(text_of(&answer::value_in(cut, row, path)?).into_owned()))
            .collect();
        let content = contents[row];
        match values.filter(|values| !values.is_empty()) {
            Some(values) => format!("{label}/{}#{content:016x}", values.join(",")),
            None => format!("{label}@{request:016x}:{}#{content:016x}", cut.positions[row]),
        }
    };
    (0..cut.positions.len()).map(|row| Some(id(row))).collect()
}

/// Names records that could not be read.
pub(super) fn refused(
    refused: Vec<RefusedText>,
    label: &str,
    request: u64,
    before: u64,
) -> Vec<RefusedRaw> {
    refused
        .into_iter()
        .map(|refused| RefusedRaw {
            id: format!(
                "{label}@{request:016x}:{}#{:016x}",
                refused.position,
                XxHash3_64::oneshot(&refused.raw)
            ),
            position: before + refused.position,
            code: refused.code,
            message: format!("record {}: {}", refused.position, refused.message),
            field: refused.field,
            raw: refused.raw,
        })
        .collect()
}
