//! The values of a column as texts, and reading typed values out of them.

use std::{borrow::Cow, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, PrimitiveArray, StringArray,
    builder::{BinaryBuilder, StringBuilder},
    types::{
        ArrowPrimitiveType, Date32Type, Decimal128Type, Float64Type, Int64Type,
        TimestampMicrosecondType,
    },
};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, NullBuffer};
use model::FieldType;
use spec::{format::Format, text};

/// One value before it is read.
pub(crate) enum Cell<'a> {
    Null,
    Text(Cow<'a, str>),
    /// Something that no type but JSON can hold, in words: `a JSON object`, `malformed JSON`.
    Other(&'static str),
}

const MALFORMED: &str = "malformed JSON";

/// A value that could not be read: its row, and its shape in words without the value.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) row: usize,
    pub(crate) shape: String,
}

/// Typed values, null where a text could not be read.
pub(crate) struct Read {
    pub(crate) values: ArrayRef,
    pub(crate) unreadable: Vec<Unreadable>,
}

/// Returns the cell of a text array.
pub(crate) fn text_cell(texts: &StringArray, row: usize) -> Cell<'_> {
    if texts.is_null(row) { Cell::Null } else { Cell::Text(Cow::Borrowed(texts.value(row))) }
}

/// Returns the cell of an array of JSON texts: a JSON text without its quotes and escapes, a number
/// with all its digits.
pub(crate) fn json_cell(texts: &StringArray, row: usize) -> Cell<'_> {
    if texts.is_null(row) { Cell::Null } else { json_scalar(texts.value(row)) }
}

/// Takes a JSON value apart as far as it is a scalar.
pub(crate) fn json_scalar(json: &str) -> Cell<'_> {
    let json = json.trim_matches([' ', '\t', '\r', '\n']);
    match json.as_bytes().first() {
        Some(b'n') => Cell::Null,
        Some(b'{') => Cell::Other("a JSON object"),
        Some(b'[') => Cell::Other("a JSON array"),
        Some(b'"') => {
            let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            match inner {
                Some(inner) if !inner.contains('\\') => Cell::Text(Cow::Borrowed(inner)),
                _ => serde_json::from_str::<String>(json)
                    .map_or(Cell::Other(MALFORMED), |text| Cell::Text(Cow::Owned(text))),
            }
        }
        Some(_) => Cell::Text(Cow::Borrowed(json)),
        None => Cell::Other(MALFORMED),
    }
}

/// Reads `rows` cells as values of a type. `formats` are tried in order for dates and timestamps;
/// without any it is ISO 8601.
pub(crate) fn read<'a>(
    field_type: FieldType,
    formats: &[Format],
    rows: usize,
    cell: impl Fn(usize) -> Cell<'a>,
) -> Read {
    let mut unreadable = Vec::new();
    let values: ArrayRef = match field_type {
        FieldType::Boolean => Arc::new(booleans(rows, cell, text::boolean, &mut unreadable)),
        FieldType::Integer => {
            Arc::new(primitives::<Int64Type>(rows, cell, text::integer, &mut unreadable))
        }
        FieldType::Double => {
            Arc::new(primitives::<Float64Type>(rows, cell, text::double, &mut unreadable))
        }
        FieldType::Decimal { precision, scale } => Arc::new(
            primitives::<Decimal128Type>(
                rows,
                cell,
                |text| text::decimal(text, precision, scale),
                &mut unreadable,
            )
            .with_data_type(field_type.arrow()),
        ),
        FieldType::Date if formats.is_empty() => {
            Arc::new(primitives::<Date32Type>(rows, cell, text::date, &mut unreadable))
        }
        FieldType::Date => Arc::new(primitives::<Date32Type>(
            rows,
            cell,
            |text| formats.iter().find_map(|format| format.date(text)),
            &mut unreadable,
        )),
        FieldType::Timestamp => {
            let parse = |text: &str| {
                if formats.is_empty() {
                    text::timestamp(text)
                } else {
                    formats.iter().find_map(|format| format.timestamp(text))
                }
            };
            let array = primitives::<TimestampMicrosecondType>(rows, cell, parse, &mut unreadable);
            Arc::new(array.with_data_type(field_type.arrow()))
        }
        FieldType::Text => Arc::new(texts(rows, cell, |_| true, &mut unreadable)),
        FieldType::Json => Arc::new(texts(
            rows,
            cell,
            |text| text::is_value(text, FieldType::Json),
            &mut unreadable,
        )),
        FieldType::Bytes => Arc::new(bytes(rows, cell, &mut unreadable)),
    };
    Read { values, unreadable }
}

/// Hands each text to `take`, and notes what is unreadable. `take` returns whether it was a value.
fn each<'a>(
    rows: usize,
    cell: impl Fn(usize) -> Cell<'a>,
    unreadable: &mut Vec<Unreadable>,
    mut take: impl FnMut(usize, Option<&str>) -> bool,
) {
    for row in 0..rows {
        let shape = match cell(row) {
            Cell::Null => {
                take(row, None);
                continue;
            }
            Cell::Text(text) => {
                if take(row, Some(&text)) {
                    continue;
                }
                shape(&text)
            }
            Cell::Other(kind) => {
                take(row, None);
                kind.to_owned()
            }
        };
        unreadable.push(Unreadable { row, shape });
    }
}

/// Describes a text without showing it.
fn shape(text: &str) -> String {
    let characters = text.chars().count();
    let kind = if text.is_empty() {
        return "an empty text".to_owned();
    } else if text.bytes().all(|b| b.is_ascii_digit()) {
        "digits"
    } else if text.chars().all(char::is_alphabetic) {
        "letters"
    } else if text.chars().all(char::is_whitespace) {
        "spaces"
    } else if text.bytes().all(|b| b.is_ascii_digit() || b"+-.,:/ TZeE'".contains(&b)) {
        "digits and signs"
    } else {
        "characters"
    };
    let kind = if characters == 1 { kind.trim_end_matches('s') } else { kind };
    format!("a text of {characters} {kind}")
}

fn primitives<'a, T: ArrowPrimitiveType>(
    rows: usize,
    cell: impl Fn(usize) -> Cell<'a>,
    parse: impl Fn(&str) -> Option<T::Native>,
    unreadable: &mut Vec<Unreadable>,
) -> PrimitiveArray<T> {
    let mut values: Vec<T::Native> = Vec::with_capacity(rows);
    let mut valid = BooleanBufferBuilder::new(rows);
    each(rows, cell, unreadable, |_, text| {
        let value = text.and_then(&parse);
        valid.append(value.is_some());
        values.push(value.unwrap_or_default());
        value.is_some()
    });
    PrimitiveArray::new(values.into(), some_nulls(valid))
}

fn booleans<'a>(
    rows: usize,
    cell: impl Fn(usize) -> Cell<'a>,
    parse: impl Fn(&str) -> Option<bool>,
    unreadable: &mut Vec<Unreadable>,
) -> BooleanArray {
    let mut values = BooleanBufferBuilder::new(rows);
    let mut valid = BooleanBufferBuilder::new(rows);
    each(rows, cell, unreadable, |_, text| {
        let value = text.and_then(&parse);
        valid.append(value.is_some());
        values.append(value.unwrap_or_default());
        value.is_some()
    });
    BooleanArray::new(values.finish(), some_nulls(valid))
}

fn texts<'a>(
    rows: usize,
    cell: impl Fn(usize) -> Cell<'a>,
    is_value: impl Fn(&str) -> bool,
    unreadable: &mut Vec<Unreadable>,
) -> StringArray {
    let mut values = StringBuilder::with_capacity(rows, rows * 16);
    each(rows, cell, unreadable, |_, text| {
        let value = text.filter(|text| is_value(text));
        values.append_option(value);
        value.is_some()
    });
    values.finish()
}

fn bytes<'a>(
    rows: usize,
    cell: impl Fn(usize) -> Cell<'a>,
    unreadable: &mut Vec<Unreadable>,
) -> BinaryArray {
    let mut values = BinaryBuilder::new();
    each(rows, cell, unreadable, |_, text| {
        let value = text.and_then(text::bytes);
        values.append_option(value.as_deref());
        value.is_some()
    });
    values.finish()
}

fn some_nulls(mut valid: BooleanBufferBuilder) -> Option<NullBuffer> {
    let valid: BooleanBuffer = valid.finish();
    let nulls = NullBuffer::new(valid);
    (nulls.null_count() > 0).then_some(nulls)
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;

    use super::*;

    #[test]
    fn json_scalars_keep_their_digits() {
        let texts = StringArray::from(vec![
            Some("\"Anna\""),
            Some("12.50"),
            Some("null"),
            Some("true"),
            Some("{\"a\":1}"),
            Some("\"a\\u00e9\\\"\""),
            Some("\"\\x\""),
            None,
        ]);
        let read = read(FieldType::Text, &[], 8, |row| json_cell(&texts, row));
        let values: Vec<Option<&str>> = read.values.as_string::<i32>().iter().collect();
        let expected =
            [Some("Anna"), Some("12.50"), None, Some("true"), None, Some("aé\""), None, None];
        assert_eq!(values, expected);
        let shapes: Vec<_> = read.unreadable.iter().map(|u| (u.row, u.shape.as_str())).collect();
        assert_eq!(shapes, [(4, "a JSON object"), (6, "malformed JSON")]);
    }

    #[test]
    fn a_shape_shows_no_value() {
        let texts = StringArray::from(vec!["12.345", "Anna", "", "a1!"]);
        let kind = FieldType::Decimal { precision: 10, scale: 2 };
        let read = read(kind, &[], 4, |row| text_cell(&texts, row));
        let shapes: Vec<_> = read.unreadable.iter().map(|u| u.shape.as_str()).collect();
        assert_eq!(
            shapes,
            [
                "a text of 6 digits and signs",
                "a text of 4 letters",
                "an empty text",
                "a text of 3 characters"
            ]
        );
        assert_eq!(read.values.null_count(), 4);
    }
}
