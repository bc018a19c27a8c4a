use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use model::FieldType;

use crate::{
    table::{Column, Table, any_present},
    written::{quote, write_json},
};

/// Puts fields into one JSON object and removes them.
///
/// The object holds the fields that are present; it is absent where none of them is.
pub(super) fn nest(table: &mut Table, fields: &[String], into: &str) {
    let columns: Vec<Column> =
        fields.iter().filter_map(|name| table.column(name).cloned()).collect();
    table.columns.retain(|column| !fields.contains(&column.name));
    let presence = any_present(columns.iter().map(|column| column.presence.as_ref()));
    let mut objects = StringBuilder::new();
    let mut object = String::new();
    for row in 0..table.len() {
        if presence.as_ref().is_some_and(|bits| !bits.value(row)) {
            objects.append_null();
            continue;
        }
        object.clear();
        object.push('{');
        for column in &columns {
            if column.presence.as_ref().is_some_and(|bits| !bits.value(row)) {
                continue;
            }
            if object.len() > 1 {
                object.push(',');
            }
            quote(&column.name, &mut object);
            object.push(':');
            write_json(column.field_type, &column.values, row, &mut object);
        }
        object.push('}');
        objects.append_value(&object);
    }
    table.set(Column {
        name: into.to_owned(),
        field_type: FieldType::Json,
        values: Arc::new(objects.finish()),
        presence,
    });
}
