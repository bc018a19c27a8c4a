use arrow_array::{Array, builder::StringBuilder, cast::AsArray};
use arrow_buffer::BooleanBufferBuilder;
use model::FieldType;
use spec::{Flatten, flattened_name};

use super::refuse_all;
use crate::{
    cells,
    json::Object,
    table::{Column, Refusal, Table},
    typing::described,
};

/// What stands under a key of an object.
enum Found<'a> {
    /// The object, or a part of the way to the key, is not there.
    Absent,
    /// A part of the way is null.
    Null,
    Value(&'a str),
    /// A part of the way is no object.
    NoObject,
}

/// Takes fields out of a JSON object.
///
/// A new field is absent where the object or the key is, and null where the object is null.
pub(super) fn flatten(table: &mut Table, flatten: &Flatten) -> Vec<Refusal> {
    let Some(index) = table.position(&flatten.field) else { return Vec::new() };
    if table.columns[index].field_type != FieldType::Json {
        return refuse_all(&table.columns[index], "json");
    }
    let source = table.columns.remove(index);
    let objects = source.values.as_string::<i32>();
    let mut refusals = Vec::new();
    for (key, field_type) in &flatten.fields {
        let name = flattened_name(flatten, key);
        let mut values = StringBuilder::new();
        let mut present = BooleanBufferBuilder::new(objects.len());
        for row in 0..objects.len() {
            let is_present = source.presence.as_ref().is_none_or(|bits| bits.value(row));
            let found = match (is_present, objects.is_valid(row)) {
                (false, _) => Found::Absent,
                (true, false) => Found::Null,
                (true, true) => find(objects.value(row), key),
            };
            present.append(!matches!(found, Found::Absent));
            values.append_option(match found {
                Found::Value(value) => Some(value),
                Found::Absent | Found::Null => None,
                Found::NoObject => {
                    refusals.push(Refusal {
                        row,
                        code: "type",
                        message: format!(
                            "`{}` is no JSON object on the way to `{key}`",
                            source.name
                        ),
                        field: source.name.clone(),
                    });
                    None
                }
            });
        }
        let values = values.finish();
        let present = present.finish();
        let presence = (present.count_set_bits() < present.len()).then_some(present);
        table.set(read(name, *field_type, &values, presence, &mut refusals));
    }
    refusals
}

fn read(
    name: String,
    field_type: FieldType,
    values: &arrow_array::StringArray,
    presence: Option<arrow_buffer::BooleanBuffer>,
    refusals: &mut Vec<Refusal>,
) -> Column {
    let source: arrow_array::ArrayRef = std::sync::Arc::new(values.clone());
    let read = crate::convert::convert(
        FieldType::Json,
        &source,
        field_type,
        &crate::convert::Reading::default(),
    );
    refusals.extend(read.unreadable.into_iter().map(|unreadable| Refusal {
        row: unreadable.row,
        code: "type",
        message: format!("`{name}` is not {} but {}", described(field_type), unreadable.shape),
        field: name.clone(),
    }));
    let column = Column { name, field_type, values: read.values, presence };
    crate::typing::refuse_nul(&column, refusals);
    column
}

fn find<'a>(json: &'a str, key: &str) -> Found<'a> {
    let mut json = json;
    for part in key.split('.') {
        if matches!(cells::json_scalar(json), cells::Cell::Null) {
            return Found::Null;
        }
        let Some(object) = Object::parse(json) else { return Found::NoObject };
        match object.get(part) {
            Some(value) => json = value,
            None => return Found::Absent,
        }
    }
    Found::Value(json)
}
