use std::collections::{HashMap, hash_map::Entry};

use arrow_array::{Array, BooleanArray};

use crate::{
    table::{Column, Table},
    versions,
    written::write,
};

/// Tells which records are the newest of those that agree in `fields`, where null agrees with null.
///
/// The newest has the greatest value of `newest_by` as far as that field exists here, and is the
/// last of the batch among equals.
pub(super) fn newest(table: &Table, fields: &[String], newest_by: Option<&str>) -> BooleanArray {
    let columns: Vec<&Column> = fields.iter().filter_map(|name| table.column(name)).collect();
    let versions = newest_by.and_then(|name| table.column(name)).and_then(versions::of);
    let version = |row: usize| versions.as_ref().map_or(0, |versions| versions[row]);
    let mut newest: HashMap<String, usize> = HashMap::with_capacity(table.len());
    let mut keep = vec![true; table.len()];
    for row in 0..table.len() {
        match newest.entry(key(&columns, row)) {
            Entry::Vacant(entry) => {
                entry.insert(row);
            }
            Entry::Occupied(mut entry) => {
                let other = *entry.get();
                if version(row) >= version(other) {
                    keep[other] = false;
                    entry.insert(row);
                } else {
                    keep[row] = false;
                }
            }
        }
    }
    BooleanArray::from(keep)
}

/// Writes the values of a record so that no two keys are written alike.
fn key(columns: &[&Column], row: usize) -> String {
    let mut key = String::new();
    let mut part = String::new();
    for column in columns {
        part.clear();
        write(column.field_type, &column.values, row, &mut part);
        key.push(if column.values.is_null(row) { 'n' } else { 'v' });
        key.push_str(&part.len().to_string());
        key.push(':');
        key.push_str(&part);
    }
    key
}
