//! Steps that change which fields there are, not what is in them.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, StringArray, UInt32Array};
use arrow_select::{take::take, zip::zip};
use model::FieldType;

use crate::{
    cells, convert,
    table::{Column, Table},
};

/// Gives fields new names, all at once. A field that the contract has added gives way.
pub(super) fn rename(table: &mut Table, pairs: &[(String, String)]) {
    let renamed: Vec<usize> = pairs.iter().filter_map(|(old, _)| table.position(old)).collect();
    let taken = |index: usize, column: &Column| {
        !renamed.contains(&index) && pairs.iter().any(|(_, new)| *new == column.name)
    };
    let mut columns = Vec::with_capacity(table.columns.len());
    for (index, mut column) in std::mem::take(&mut table.columns).into_iter().enumerate() {
        if taken(index, &column) {
            continue;
        }
        if let Some((_, new)) = pairs.iter().find(|(old, _)| *old == column.name) {
            column.name.clone_from(new);
        }
        columns.push(column);
    }
    table.columns = columns;
}

pub(super) fn keep(table: &mut Table, names: &[String]) {
    table.columns = names.iter().filter_map(|name| table.column(name).cloned()).collect();
}

/// Fills null and absent; the field is present in every record then, but for patches without it.
pub(super) fn default(table: &mut Table, field: &str, value: &str) {
    let Some(index) = table.position(field) else { return };
    let patches = table.patches();
    let column = &mut table.columns[index];
    column.presence = match (column.presence.take(), patches) {
        (Some(present), Some(patches)) => Some(&present | &!&patches),
        _ => None,
    };
    if column.values.null_count() == 0 {
        return;
    }
    let text = StringArray::from(vec![value]);
    let read = cells::read(column.field_type, &[], 1, |row| cells::text_cell(&text, row));
    let fill: ArrayRef = if read.unreadable.is_empty() {
        read.values
    } else {
        // The contract has turned the field into text.
        let values: ArrayRef = Arc::new(text);
        convert::convert(FieldType::Text, &values, column.field_type, &convert::Reading::default())
            .values
    };
    let fill = take(&fill, &UInt32Array::from(vec![0; column.values.len()]), None)
        .expect("the only index is in range");
    let is_null =
        BooleanArray::new(!column.values.nulls().expect("it was just counted").inner(), None);
    column.values =
        zip(&is_null, &fill, &column.values).expect("both have one type and one length");
}
