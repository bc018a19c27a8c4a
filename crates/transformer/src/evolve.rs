//! New fields: which type they get.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, cast::AsArray};
use model::FieldType;

use crate::{
    cells::{self, Cell},
    convert::{Reading, convert},
};

/// Longest name that PostgreSQL keeps whole.
const MAX_NAME_BYTES: usize = 63;

/// Type of numbers with decimal places.
const DECIMAL: FieldType = FieldType::Decimal { precision: 38, scale: 9 };

/// Tells whether a column of a target can have this name.
pub(crate) fn can_be_named(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
}

/// Chooses the type of a new field by its values in this batch and reads them.
///
/// JSON scalars of one kind become boolean, integer, `decimal(38,9)` or text; mixed ones text; nested
/// values JSON. Everything else keeps its type.
pub(crate) fn infer(from: FieldType, source: &ArrayRef) -> (FieldType, ArrayRef) {
    if from != FieldType::Json {
        return (from, Arc::clone(source));
    }
    let texts = source.as_string::<i32>();
    let mut kinds = Kinds::default();
    for row in 0..texts.len() {
        match cells::json_cell(texts, row) {
            Cell::Null => {}
            Cell::Other(_) => kinds.nested = true,
            Cell::Text(_) => match texts.value(row).trim_start().as_bytes().first() {
                Some(b'"') => kinds.text = true,
                Some(b't' | b'f') => kinds.boolean = true,
                _ => kinds.number = true,
            },
        }
    }
    let candidates: &[FieldType] = match kinds {
        Kinds { nested: true, .. } => &[FieldType::Json],
        Kinds { number: true, text: false, boolean: false, .. } => {
            &[FieldType::Integer, DECIMAL, FieldType::Text]
        }
        Kinds { boolean: true, text: false, number: false, .. } => {
            &[FieldType::Boolean, FieldType::Text]
        }
        _ => &[FieldType::Text],
    };
    candidates
        .iter()
        .map(|to| (*to, convert(from, source, *to, &Reading::default())))
        .find(|(_, read)| read.unreadable.is_empty())
        .map_or_else(|| (from, Arc::clone(source)), |(to, read)| (to, read.values))
}

#[derive(Default)]
struct Kinds {
    nested: bool,
    text: bool,
    number: bool,
    boolean: bool,
}

#[cfg(test)]
mod tests {
    use arrow_array::StringArray;

    use super::*;

    fn inferred(values: &[&str]) -> String {
        let source: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        infer(FieldType::Json, &source).0.to_string()
    }

    #[test]
    fn a_new_field_gets_the_narrowest_type_that_loses_nothing() {
        assert_eq!(inferred(&["1", "null", "-7"]), "integer");
        assert_eq!(inferred(&["1", "2.5"]), "decimal(38,9)");
        assert_eq!(inferred(&["1", "0.1234567891"]), "text");
        assert_eq!(inferred(&["99999999999999999999"]), "decimal(38,9)");
        assert_eq!(inferred(&["\"1\"", "\"+44\""]), "text");
        assert_eq!(inferred(&["true", "false"]), "boolean");
        assert_eq!(inferred(&["true", "1"]), "text");
        assert_eq!(inferred(&["1", "{}"]), "json");
        assert_eq!(inferred(&["null"]), "text");
    }
}
