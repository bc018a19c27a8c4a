//! Typed values as text and as JSON.

use arrow_array::{
    Array, StringArray,
    builder::StringBuilder,
    cast::AsArray,
    types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType},
};
use base64::Engine as _;
use model::FieldType;

/// Writes a value so that reading it gives the same value again. Nothing is written for null.
pub(crate) fn write(field_type: FieldType, values: &dyn Array, row: usize, out: &mut String) {
    use std::fmt::Write;
    if values.is_null(row) {
        return;
    }
    let written = match field_type {
        FieldType::Boolean => write!(out, "{}", values.as_boolean().value(row)),
        FieldType::Integer => write!(out, "{}", values.as_primitive::<Int64Type>().value(row)),
        FieldType::Double => write!(out, "{}", values.as_primitive::<Float64Type>().value(row)),
        FieldType::Decimal { scale, .. } => {
            write_decimal(values.as_primitive::<Decimal128Type>().value(row), scale, out);
            Ok(())
        }
        FieldType::Text | FieldType::Json => out.write_str(values.as_string::<i32>().value(row)),
        FieldType::Bytes => {
            base64::engine::general_purpose::STANDARD
                .encode_string(values.as_binary::<i32>().value(row), out);
            Ok(())
        }
        FieldType::Date => {
            let days = values.as_primitive::<Date32Type>().value(row);
            match arrow_array::temporal_conversions::date32_to_datetime(days) {
                Some(time) => write!(out, "{}", time.date()),
                None => Ok(()),
            }
        }
        FieldType::Timestamp => {
            let micros = values.as_primitive::<TimestampMicrosecondType>().value(row);
            write_timestamp(micros, out);
            Ok(())
        }
    };
    written.expect("writing to a text does not fail");
}

/// Writes a value as JSON; null where there is none.
pub(crate) fn write_json(field_type: FieldType, values: &dyn Array, row: usize, out: &mut String) {
    if values.is_null(row) {
        out.push_str("null");
        return;
    }
    match field_type {
        FieldType::Boolean
        | FieldType::Integer
        | FieldType::Double
        | FieldType::Decimal { .. }
        | FieldType::Json => write(field_type, values, row, out),
        FieldType::Text => quote(values.as_string::<i32>().value(row), out),
        FieldType::Bytes | FieldType::Date | FieldType::Timestamp => {
            out.push('"');
            write(field_type, values, row, out);
            out.push('"');
        }
    }
}

/// Writes a text as JSON, in quotes.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// Tells whether a JSON text holds the character U+0000, which only an escape can write.
pub(crate) fn has_escaped_nul(json: &str) -> bool {
    let bytes = json.as_bytes();
    memchr::memmem::find_iter(bytes, b"\\u0000").any(|at| {
        // An escaped backslash before it makes it an ordinary text.
        let backslashes = bytes[..at].iter().rev().take_while(|b| **b == b'\\').count();
        backslashes % 2 == 0
    })
}

/// Writes a decimal with all its places.
pub(crate) fn write_decimal(value: i128, scale: u8, out: &mut String) {
    let scale = usize::from(scale);
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.push('-');
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, places) = digits.split_at(digits.len() - scale);
    out.push_str(whole);
    if scale > 0 {
        out.push('.');
        out.push_str(places);
    }
}

/// Writes microseconds since 1970-01-01 UTC in ISO 8601, with a fraction only where there is one.
pub(crate) fn write_timestamp(micros: i64, out: &mut String) {
    use std::fmt::Write;
    if let Some(time) = chrono::DateTime::from_timestamp_micros(micros) {
        let format =
            if micros % 1_000_000 == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%.6fZ" };
        write!(out, "{}", time.format(format)).expect("writing to a text does not fail");
    }
}

/// Writes a whole column as text.
pub(crate) fn to_text(field_type: FieldType, values: &dyn Array) -> StringArray {
    column(values, |row, text| write(field_type, values, row, text))
}

/// Writes a whole column as JSON; what is null stays null.
pub(crate) fn to_json(field_type: FieldType, values: &dyn Array) -> StringArray {
    column(values, |row, text| write_json(field_type, values, row, text))
}

fn column(values: &dyn Array, write: impl Fn(usize, &mut String)) -> StringArray {
    let mut texts = StringBuilder::with_capacity(values.len(), values.len() * 12);
    let mut text = String::new();
    for row in 0..values.len() {
        if values.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        write(row, &mut text);
        texts.append_value(&text);
    }
    texts.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_nul_is_found() {
        assert!(has_escaped_nul(r#""a\u0000""#));
        assert!(has_escaped_nul(r#""a\\\u0000""#));
        assert!(!has_escaped_nul(r#""a\\u0000""#));
    }

    #[test]
    fn decimals_and_times_are_written_in_full() {
        let mut text = String::new();
        for (value, scale) in [(-5, 2), (12_345, 0), (0, 3), (12_345, 2)] {
            write_decimal(value, scale, &mut text);
            text.push(' ');
        }
        assert_eq!(text, "-0.05 12345 0.000 123.45 ");
        text.clear();
        write_timestamp(-1, &mut text);
        write_timestamp(60_000_000, &mut text);
        assert_eq!(text, "1969-12-31T23:59:59.999999Z1970-01-01T00:01:00Z");
    }
}
