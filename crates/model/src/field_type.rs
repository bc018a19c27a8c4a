use std::{collections::HashMap, fmt, sync::Arc};

use arrow_schema::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

/// Largest number of digits of a decimal.
const MAX_DIGITS: u8 = 38;

/// Key of the Arrow field metadata that tells JSON from text.
const LOGICAL_TYPE: &str = "tributary.type";

/// Type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FieldType {
    /// True or false.
    Boolean,
    /// Signed, 64 bits.
    Integer,
    /// IEEE 754, 64 bits.
    Double,
    /// Signed decimal with `precision` digits, 1 to 38, of which `scale` are behind the point.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// UTF-8.
    Text,
    /// Any bytes.
    Bytes,
    /// Day in the proleptic Gregorian calendar.
    Date,
    /// Microseconds since 1970-01-01 00:00 UTC.
    Timestamp,
    /// JSON text of any shape.
    Json,
}

impl FieldType {
    /// Returns the type of the Arrow arrays that hold such values.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Integer => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Decimal { precision, scale } => {
                DataType::Decimal128(precision, i8::try_from(scale).unwrap_or(i8::MAX))
            }
            Self::Text | Self::Json => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
        }
    }

    /// Returns a nullable Arrow field of this type, from which [`FieldType::of`] finds it again.
    #[must_use]
    pub fn arrow_field(self, name: &str) -> arrow_schema::Field {
        let field = arrow_schema::Field::new(name, self.arrow(), true);
        if self == Self::Json {
            field.with_metadata(HashMap::from([(LOGICAL_TYPE.to_owned(), "json".to_owned())]))
        } else {
            field
        }
    }

    /// Returns the type of an Arrow field, or nothing for a type that no [`FieldType`] maps to.
    #[must_use]
    pub fn of(field: &arrow_schema::Field) -> Option<Self> {
        Some(match field.data_type() {
            DataType::Boolean => Self::Boolean,
            DataType::Int64 => Self::Integer,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(precision, scale) => {
                Self::Decimal { precision: *precision, scale: u8::try_from(*scale).ok()? }
            }
            DataType::Utf8 if field.metadata().contains_key(LOGICAL_TYPE) => Self::Json,
            DataType::Utf8 => Self::Text,
            DataType::Binary => Self::Bytes,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Self::Timestamp,
            _ => return None,
        })
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Integer => f.write_str("integer"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Text => f.write_str("text"),
            Self::Bytes => f.write_str("bytes"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Json => f.write_str("json"),
        }
    }
}

impl From<FieldType> for String {
    fn from(field_type: FieldType) -> Self {
        field_type.to_string()
    }
}

/// A text names no type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a type; use boolean, integer, double, decimal(digits,scale) with at most 38 \
     digits, text, bytes, date, timestamp or json"
)]
pub struct ParseFieldTypeError(String);

impl std::str::FromStr for FieldType {
    type Err = ParseFieldTypeError;

    fn from_str(text: &str) -> Result<Self, ParseFieldTypeError> {
        let decimal = |inner: &str| {
            let (precision, scale) = inner.split_once(',')?;
            let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
            (1..=MAX_DIGITS).contains(&precision).then_some(())?;
            (scale <= precision).then_some(Self::Decimal { precision, scale })
        };
        Ok(match text {
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "double" => Self::Double,
            "text" => Self::Text,
            "bytes" => Self::Bytes,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            "json" => Self::Json,
            _ => text
                .strip_prefix("decimal(")
                .and_then(|rest| rest.strip_suffix(')'))
                .and_then(decimal)
                .ok_or_else(|| ParseFieldTypeError(text.to_owned()))?,
        })
    }
}

impl TryFrom<String> for FieldType {
    type Error = ParseFieldTypeError;

    fn try_from(text: String) -> Result<Self, ParseFieldTypeError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_survives_text_and_arrow() {
        for text in [
            "boolean",
            "integer",
            "double",
            "decimal(38,9)",
            "decimal(5,0)",
            "text",
            "bytes",
            "date",
            "timestamp",
            "json",
        ] {
            let parsed: FieldType = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
            assert_eq!(FieldType::of(&parsed.arrow_field("f")), Some(parsed));
        }
    }

    #[test]
    fn a_decimal_out_of_range_is_refused() {
        for text in ["decimal(39,2)", "decimal(0,0)", "decimal(4,5)", "decimal", "int"] {
            assert!(text.parse::<FieldType>().is_err(), "{text}");
        }
    }
}
