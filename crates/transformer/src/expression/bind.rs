//! Fields of a record as CEL values.

use std::{collections::HashMap, sync::OnceLock};

use arrow_array::{
    Array,
    cast::AsArray,
    types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType},
};
use cel::{
    common::{
        types::{
            CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString,
            CelTimestamp,
        },
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use model::FieldType;

use super::decimal::Decimal;
use crate::table::Column;

/// Longest list that an expression may walk through, which bounds its work together with the depth
/// of its loops.
pub(super) const MAX_LIST: usize = 1_000;

const SECONDS_PER_DAY: i64 = 86_400;

/// One record. Only the fields that an expression asks for become values, each once.
pub(super) struct Record<'a> {
    columns: &'a [&'a Column],
    row: usize,
    values: Vec<OnceLock<Bound<'a>>>,
}

type Bound<'a> = Result<Box<dyn Val + 'a>, &'static str>;

impl<'a> Record<'a> {
    pub(super) fn new(columns: &'a [&'a Column], row: usize) -> Self {
        Self { columns, row, values: columns.iter().map(|_| OnceLock::new()).collect() }
    }

    /// Returns how many bytes the texts of the record have.
    pub(super) fn text_bytes(&self) -> usize {
        let texts = self.columns.iter().filter(|column| {
            matches!(column.field_type, FieldType::Text | FieldType::Json)
                && column.values.is_valid(self.row)
        });
        texts.map(|column| column.values.as_string::<i32>().value(self.row).len()).sum()
    }

    /// Returns why a field could not become a value.
    pub(super) fn unbindable(&self) -> Option<String> {
        self.columns.iter().zip(&self.values).find_map(|(column, value)| {
            let reason = value.get()?.as_ref().err()?;
            Some(format!("`{}` {reason}", column.name))
        })
    }
}

impl VariableResolver for Record<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let index = self.columns.iter().position(|column| column.name == variable)?;
        let bound = self.values[index].get_or_init(|| value(self.columns[index], self.row));
        Some(match bound {
            Ok(value) => CowVal::Borrowed(&**value),
            Err(_) => CowVal::owned(CelNull),
        })
    }
}

fn value(column: &Column, row: usize) -> Result<Box<dyn Val + '_>, &'static str> {
    let values = &column.values;
    if values.is_null(row) {
        return Ok(Box::new(CelNull));
    }
    Ok(match column.field_type {
        FieldType::Boolean => Box::new(CelBool::from(values.as_boolean().value(row))),
        FieldType::Integer => Box::new(CelInt::from(values.as_primitive::<Int64Type>().value(row))),
        FieldType::Double => {
            Box::new(CelDouble::from(values.as_primitive::<Float64Type>().value(row)))
        }
        FieldType::Decimal { scale, .. } => {
            let value = values.as_primitive::<Decimal128Type>().value(row);
            Box::new(Decimal { value, scale })
        }
        FieldType::Text => Box::new(CelString::from(values.as_string::<i32>().value(row))),
        FieldType::Bytes => Box::new(CelBytes::from(values.as_binary::<i32>().value(row))),
        FieldType::Date => {
            let days = values.as_primitive::<Date32Type>().value(row);
            time(i64::from(days) * SECONDS_PER_DAY * 1_000_000)?
        }
        FieldType::Timestamp => time(values.as_primitive::<TimestampMicrosecondType>().value(row))?,
        FieldType::Json => json(values.as_string::<i32>().value(row))?,
    })
}

fn time<'v>(micros: i64) -> Result<Box<dyn Val + 'v>, &'static str> {
    let time = chrono::DateTime::from_timestamp_micros(micros)
        .ok_or("is too far from our time for an expression")?;
    Ok(Box::new(CelTimestamp::from(time.fixed_offset())))
}

fn json<'v>(text: &str) -> Result<Box<dyn Val + 'v>, &'static str> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|_| "is malformed JSON")?;
    json_value(value)
}

fn json_value<'v>(value: serde_json::Value) -> Result<Box<dyn Val + 'v>, &'static str> {
    use serde_json::Value;
    Ok(match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(value)),
        Value::Number(number) => number_value(&number.to_string())?,
        Value::String(text) => Box::new(CelString::from(text)),
        Value::Array(items) => {
            if items.len() > MAX_LIST {
                return Err("has a list that is too long for an expression");
            }
            let items: Result<Vec<_>, _> = items.into_iter().map(json_value).collect();
            Box::new(CelList::from(items?))
        }
        Value::Object(entries) => {
            if entries.len() > MAX_LIST {
                return Err("has an object that is too long for an expression");
            }
            let mut map: HashMap<CelMapKey<'v>, Box<dyn Val + 'v>> = HashMap::new();
            for (key, value) in entries {
                map.insert(CelMapKey::from(key), json_value(value)?);
            }
            Box::new(CelMap::from(map))
        }
    })
}

/// Whole numbers become integers, others decimals, and what is too long for either a double.
fn number_value<'v>(text: &str) -> Result<Box<dyn Val + 'v>, &'static str> {
    if let Ok(integer) = text.parse::<i64>() {
        return Ok(Box::new(CelInt::from(integer)));
    }
    if let Some(decimal) = Decimal::parse(text) {
        return Ok(Box::new(decimal));
    }
    let double = spec::text::double(text).ok_or("has a number that is too large")?;
    Ok(Box::new(CelDouble::from(double)))
}
