//! Records as JSON, for people and for APIs.

use arrow_array::{
    Array,
    cast::AsArray,
    types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta};
use serde_json::{Map, Value};

use crate::{FieldType, Records};

/// Returns a record as a JSON object. Absent fields are left out; decimals keep their digits as
/// text; bytes are Base64; times are ISO 8601 in UTC.
///
/// # Panics
///
/// When `index` is not below [`Records::len`].
#[must_use]
pub fn to_json(records: &Records, index: usize) -> Map<String, Value> {
    let schema = records.columns.schema();
    let mut object = Map::new();
    for (column, field) in schema.fields().iter().enumerate() {
        if !records.is_present(column, index) {
            continue;
        }
        let array = records.columns.column(column);
        let value = match FieldType::of(field) {
            Some(field_type) if array.is_valid(index) => value(array.as_ref(), field_type, index),
            Some(_) | None => Value::Null,
        };
        object.insert(field.name().clone(), value);
    }
    object
}

fn value(array: &dyn Array, field_type: FieldType, index: usize) -> Value {
    match field_type {
        FieldType::Boolean => array.as_boolean().value(index).into(),
        FieldType::Integer => array.as_primitive::<Int64Type>().value(index).into(),
        // What JSON has no number for is text.
        FieldType::Double => {
            let number = array.as_primitive::<Float64Type>().value(index);
            serde_json::Number::from_f64(number)
                .map_or_else(|| number.to_string().into(), Value::Number)
        }
        FieldType::Decimal { .. } => {
            array.as_primitive::<Decimal128Type>().value_as_string(index).into()
        }
        FieldType::Text => array.as_string::<i32>().value(index).into(),
        FieldType::Bytes => BASE64_STANDARD.encode(array.as_binary::<i32>().value(index)).into(),
        FieldType::Date => {
            let days = array.as_primitive::<Date32Type>().value(index);
            NaiveDate::default()
                .checked_add_signed(TimeDelta::days(days.into()))
                .map_or_else(|| days.into(), |date| date.to_string().into())
        }
        FieldType::Timestamp => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(index);
            DateTime::from_timestamp_micros(micros).map_or_else(
                || micros.into(),
                |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into(),
            )
        }
        FieldType::Json => {
            let text = array.as_string::<i32>().value(index);
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Ids;
    use arrow_array::{
        ArrayRef, Date32Array, Decimal128Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    };

    #[test]
    fn every_value_keeps_what_it_says() {
        let fields = [
            FieldType::Decimal { precision: 20, scale: 2 }.arrow_field("total"),
            FieldType::Date.arrow_field("day"),
            FieldType::Timestamp.arrow_field("at"),
            FieldType::Json.arrow_field("tags"),
            FieldType::Text.arrow_field("gone"),
            FieldType::Text.arrow_field("nothing"),
        ];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(
                Decimal128Array::from(vec![123_456_789_012_345_678_i128])
                    .with_precision_and_scale(20, 2)
                    .unwrap(),
            ),
            Arc::new(Date32Array::from(vec![-1])),
            Arc::new(TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("UTC")),
            Arc::new(StringArray::from(vec![r#"{"a":1.10}"#])),
            Arc::new(StringArray::from(vec!["x"])),
            Arc::new(StringArray::from(vec![None::<&str>])),
        ];
        let schema = arrow_schema::Schema::new(fields.to_vec());
        let absent = arrow_buffer_of(false);
        let records = Records {
            columns: RecordBatch::try_new(Arc::new(schema), columns).unwrap(),
            presence: vec![None, None, None, None, Some(absent), None],
            ids: Ids::Positions { prefix: String::new() },
            positions: vec![0],
            extraction_base: 0,
            versions: None,
            operations: None,
        };
        assert_eq!(
            Value::Object(to_json(&records, 0)).to_string(),
            r#"{"total":"1234567890123456.78","day":"1969-12-31","at":"1970-01-01T00:00:01.500Z","tags":{"a":1.10},"nothing":null}"#
        );
    }

    fn arrow_buffer_of(bit: bool) -> arrow_buffer::BooleanBuffer {
        arrow_buffer::BooleanBuffer::from(vec![bit])
    }
}
