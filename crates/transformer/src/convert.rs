//! From any type to any other, exactly or not at all.

use std::{borrow::Cow, sync::Arc};

use arrow_array::{
    Array, ArrayRef, StringArray,
    cast::AsArray,
    types::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType},
};
use model::FieldType;
use spec::format::Format;

use crate::{
    cells::{self, Cell, Read, Unreadable},
    written,
};

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Whole numbers up to here are the same as doubles.
const MAX_EXACT: u64 = 1 << 53;

/// How texts are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// Formats of dates and timestamps; empty: ISO 8601.
    pub(crate) formats: Vec<Format>,
    /// Character before the places of a number, where thousands may be separated; `None`: a plain
    /// number with a point.
    pub(crate) decimal_point: Option<char>,
}

/// Converts a column. Values that do not fit are null and listed.
pub(crate) fn convert(
    from: FieldType,
    values: &ArrayRef,
    to: FieldType,
    reading: &Reading,
) -> Read {
    match (from, to) {
        (FieldType::Json, FieldType::Json) => {
            let texts = values.as_string::<i32>();
            if !texts.iter().flatten().any(|text| text == "null") {
                return all(Arc::clone(values));
            }
            let texts: StringArray =
                texts.iter().map(|text| text.filter(|text| *text != "null")).collect();
            all(Arc::new(texts))
        }
        _ if from == to => Read { values: Arc::clone(values), unreadable: Vec::new() },
        (FieldType::Text, _) => read_text(values.as_string::<i32>(), to, reading),
        (FieldType::Json, _) => {
            let texts = values.as_string::<i32>();
            cells::read(to, &reading.formats, texts.len(), |row| {
                normal(cells::json_cell(texts, row), to, reading.decimal_point)
            })
        }
        (_, FieldType::Json) => all(Arc::new(written::to_json(from, values))),
        (_, FieldType::Text) => all(Arc::new(written::to_text(from, values))),
        (FieldType::Integer, FieldType::Double) => integers_to_doubles(values),
        (FieldType::Timestamp, FieldType::Date) => {
            let times = values.as_primitive::<TimestampMicrosecondType>();
            let days = times.unary::<_, Date32Type>(|micros| {
                i32::try_from(micros.div_euclid(MICROS_PER_DAY)).unwrap_or(i32::MAX)
            });
            all(Arc::new(days))
        }
        (FieldType::Boolean, FieldType::Integer) => {
            let booleans = values.as_boolean();
            let numbers: arrow_array::Int64Array =
                booleans.iter().map(|value| value.map(i64::from)).collect();
            all(Arc::new(numbers))
        }
        // Through text, which is exact: what does not fit is not read.
        _ => {
            let texts = written::to_text(from, values);
            cells::read(to, &[], texts.len(), |row| cells::text_cell(&texts, row))
        }
    }
}

fn all(values: ArrayRef) -> Read {
    Read { values, unreadable: Vec::new() }
}

fn read_text(texts: &StringArray, to: FieldType, reading: &Reading) -> Read {
    match reading.decimal_point {
        None => cells::read(to, &reading.formats, texts.len(), |row| cells::text_cell(texts, row)),
        point => cells::read(to, &reading.formats, texts.len(), |row| {
            normal(cells::text_cell(texts, row), to, point)
        }),
    }
}

fn integers_to_doubles(values: &ArrayRef) -> Read {
    let numbers = values.as_primitive::<Int64Type>();
    let mut unreadable = Vec::new();
    let doubles: arrow_array::Float64Array = numbers
        .iter()
        .enumerate()
        .map(|(row, value)| {
            let value = value?;
            if value.unsigned_abs() > MAX_EXACT {
                let shape = "an integer beyond 2 to the 53".to_owned();
                unreadable.push(Unreadable { row, shape });
                return None;
            }
            #[expect(clippy::cast_precision_loss, reason = "it was just checked")]
            Some(value as f64)
        })
        .collect();
    let doubles: arrow_array::PrimitiveArray<Float64Type> = doubles;
    Read { values: Arc::new(doubles), unreadable }
}

/// Brings a number with a decimal comma or separated thousands into the plain form.
fn normal(cell: Cell<'_>, to: FieldType, point: Option<char>) -> Cell<'_> {
    let numeric = matches!(to, FieldType::Integer | FieldType::Double | FieldType::Decimal { .. });
    match (cell, point) {
        (Cell::Text(text), Some(point)) if numeric => match plain_number(&text, point) {
            None => Cell::Text(text),
            Some(Some(plain)) => Cell::Text(Cow::Owned(plain)),
            Some(None) => Cell::Other("a number with misplaced separators"),
        },
        (cell, _) => cell,
    }
}

/// Returns nothing where the text is plain already, and `Some(None)` where it is no number.
///
/// Thousands are separated everywhere or nowhere, by one kind of separator, in groups of three:
/// anything else would turn `1.5` into fifteen.
fn plain_number(text: &str, point: char) -> Option<Option<String>> {
    let is_separator =
        |c: char| matches!(c, ' ' | '\'' | '’' | '\u{a0}' | '\u{202f}' | '.' | ',') && c != point;
    let trimmed = text.trim_matches([' ', '\t']);
    if !trimmed.contains(|c| is_separator(c) || (c == point && c != '.')) {
        return None;
    }
    Some(group(trimmed, point, is_separator))
}

fn group(text: &str, point: char, is_separator: impl Fn(char) -> bool) -> Option<String> {
    let (sign, unsigned) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (&text[..1], rest),
        None => ("", text),
    };
    let (whole, places) = match unsigned.split_once(point) {
        Some((whole, places)) => (whole, Some(places)),
        None => (unsigned, None),
    };
    if places.is_some_and(|places| places.is_empty() || !digits(places)) {
        return None;
    }
    let separator = whole.chars().find(|c| is_separator(*c));
    let mut plain = sign.to_owned();
    match separator {
        None if digits(whole) => plain.push_str(whole),
        None => return None,
        Some(separator) => {
            for (index, group) in whole.split(separator).enumerate() {
                let sound =
                    if index == 0 { (1..=3).contains(&group.len()) } else { group.len() == 3 };
                if !sound || !digits(group) {
                    return None;
                }
                plain.push_str(group);
            }
        }
    }
    if let Some(places) = places {
        plain.push('.');
        plain.push_str(places);
    }
    Some(plain)
}

fn digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int64Array, types::Decimal128Type};

    use super::*;

    const MONEY: FieldType = FieldType::Decimal { precision: 12, scale: 2 };

    fn money(texts: Vec<&str>, point: char) -> Vec<Option<i128>> {
        let values: ArrayRef = Arc::new(StringArray::from(texts));
        let reading = Reading { decimal_point: Some(point), ..Reading::default() };
        let read = convert(FieldType::Text, &values, MONEY, &reading);
        read.values.as_primitive::<Decimal128Type>().iter().collect()
    }

    #[test]
    fn separated_thousands_are_groups_of_three() {
        assert_eq!(
            money(vec!["1.234,56", "-1 234,5", "1'234'567,00", "12", "0,5", " 7,25 "], ','),
            [Some(123_456), Some(-123_450), Some(123_456_700), Some(1200), Some(50), Some(725)]
        );
        let wrong = vec!["1.5", "1.23,4", "1.234.56", "1 234.567,0", "1,234,5", "12.34", ",", "1,"];
        assert_eq!(money(wrong, ','), [None; 8]);
        assert_eq!(
            money(vec!["1,234.56", "1,5", "1.5", "1,234,567", "12,345"], '.'),
            [Some(123_456), None, Some(150), Some(123_456_700), Some(1_234_500)]
        );
    }

    #[test]
    fn a_double_becomes_what_it_shows_or_nothing() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![0.1, 2.0, 0.125, 1e20]));
        let read = convert(FieldType::Double, &values, MONEY, &Reading::default());
        let found: Vec<_> = read.values.as_primitive::<Decimal128Type>().iter().collect();
        assert_eq!(found, [Some(10), Some(200), None, None]);
        let read = convert(FieldType::Double, &values, FieldType::Integer, &Reading::default());
        assert_eq!(read.unreadable.len(), 3);
    }

    #[test]
    fn an_integer_that_no_double_holds_is_refused() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1 << 53, (1 << 53) + 1, -3]));
        let read = convert(FieldType::Integer, &values, FieldType::Double, &Reading::default());
        assert_eq!(read.unreadable.len(), 1);
        assert_eq!(read.unreadable[0].row, 1);
    }
}
