//! Values of SQLite, which has a type per value, and the columns they become.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray};
use model::FieldType;
use sqlx::{Row, TypeInfo, ValueRef, sqlite::SqliteRow};

/// Integers up to here are doubles without loss.
const EXACT: i64 = 1 << 53;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    /// Takes a value of a row; `None` for text that is not UTF-8.
    pub(super) fn of(row: &SqliteRow, index: usize) -> Result<Option<Self>, sqlx::Error> {
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Some(Self::Null));
        }
        let kind = raw.type_info().name().to_owned();
        Ok(Some(match kind.as_str() {
            "INTEGER" => Self::Integer(row.try_get_unchecked(index)?),
            "REAL" => Self::Real(row.try_get_unchecked(index)?),
            "BLOB" => Self::Blob(row.try_get_unchecked(index)?),
            _ => match String::from_utf8(row.try_get_unchecked(index)?) {
                Ok(text) => Self::Text(text),
                Err(_) => return Ok(None),
            },
        }))
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
        }
    }

    /// Returns the value as text; bytes as hexadecimal digits.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Integer(value) => Some(value.to_string()),
            Self::Real(value) => Some(format!("{value:?}")),
            Self::Text(text) => Some(text.clone()),
            Self::Blob(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    /// Returns the value for a cursor, with its type: values of different types are never equal.
    pub(super) fn tagged(&self) -> Option<String> {
        let tag = match self {
            Self::Null => return None,
            Self::Integer(_) => 'i',
            Self::Real(_) => 'r',
            Self::Text(_) => 't',
            Self::Blob(_) => 'b',
        };
        self.text().map(|text| format!("{tag}:{text}"))
    }

    /// Reads what [`Value::tagged`] gave.
    pub(super) fn from_tagged(text: &str) -> Option<Self> {
        let (tag, text) = text.split_once(':')?;
        Some(match tag {
            "i" => Self::Integer(text.parse().ok()?),
            "r" => Self::Real(text.parse().ok()?),
            "t" => Self::Text(text.to_owned()),
            "b" => Self::Blob(
                (0..text.len() / 2)
                    .map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok())
                    .collect::<Option<_>>()?,
            ),
            _ => return None,
        })
    }
}

/// Makes an Arrow column of the declared type if every value has it, else of text, or of bytes
/// where there are any. What the text means is the schema's business.
pub(super) fn column(values: Vec<Value>, declared: FieldType) -> (FieldType, ArrayRef) {
    let typed: Option<ArrayRef> = match declared {
        FieldType::Integer => collect(&values, |value| match value {
            Value::Integer(value) => Some(*value),
            _ => None,
        })
        .map(|values| Arc::new(Int64Array::from(values)) as ArrayRef),
        FieldType::Boolean => collect(&values, |value| match value {
            Value::Integer(value @ (0 | 1)) => Some(*value == 1),
            _ => None,
        })
        .map(|values| Arc::new(BooleanArray::from(values)) as ArrayRef),
        FieldType::Double => {
            collect(&values, double).map(|values| Arc::new(Float64Array::from(values)) as ArrayRef)
        }
        FieldType::Json => collect(&values, |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .map(|values| Arc::new(StringArray::from(values)) as ArrayRef),
        _ => None,
    };
    if let Some(array) = typed {
        return (declared, array);
    }
    if declared == FieldType::Bytes || values.iter().any(|value| matches!(value, Value::Blob(_))) {
        let bytes: Vec<Option<Vec<u8>>> = values
            .into_iter()
            .map(|value| match value {
                Value::Blob(bytes) => Some(bytes),
                other => other.text().map(String::into_bytes),
            })
            .collect();
        let array: BinaryArray = bytes.iter().map(Option::as_deref).collect();
        return (FieldType::Bytes, Arc::new(array));
    }
    let texts: StringArray = values
        .into_iter()
        .map(|value| match value {
            Value::Text(text) => Some(text),
            other => other.text(),
        })
        .collect();
    (FieldType::Text, Arc::new(texts))
}

#[expect(clippy::cast_precision_loss, reason = "the range makes it exact")]
fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Real(value) => Some(*value),
        Value::Integer(value) if value.unsigned_abs() <= EXACT.unsigned_abs() => {
            Some(*value as f64)
        }
        _ => None,
    }
}

/// Converts all values that are not null, or gives up.
fn collect<'a, T>(
    values: &'a [Value],
    convert: impl Fn(&'a Value) -> Option<T>,
) -> Option<Vec<Option<T>>> {
    values
        .iter()
        .map(|value| match value {
            Value::Null => Some(None),
            value => convert(value).map(Some),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;

    use super::*;

    #[test]
    fn a_value_of_another_type_makes_the_column_text() {
        let values = vec![Value::Integer(7), Value::Text("n/a".to_owned()), Value::Null];
        let (field_type, array) = column(values, FieldType::Integer);
        assert_eq!(field_type, FieldType::Text);
        assert_eq!(array.as_string::<i32>().value(0), "7");
        assert_eq!(array.null_count(), 1);
    }

    #[test]
    fn a_tagged_value_is_read_back() {
        for value in [
            Value::Integer(-3),
            Value::Real(0.1),
            Value::Text("a:b".to_owned()),
            Value::Blob(vec![0, 255]),
        ] {
            assert_eq!(Value::from_tagged(&value.tagged().unwrap()), Some(value));
        }
        assert_eq!(Value::from_tagged("x"), None);
    }
}
