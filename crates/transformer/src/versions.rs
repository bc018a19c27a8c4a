use arrow_array::{
    Array, PrimitiveArray,
    cast::AsArray,
    types::{ArrowPrimitiveType, Date32Type, Int64Type, TimestampMicrosecondType},
};
use model::FieldType;

use crate::table::Column;

/// Returns the version of every record: integers as they are, dates in days, timestamps in
/// microseconds. Null is older than everything. Nothing where the type has no order in time.
pub(crate) fn of(column: &Column) -> Option<Vec<i64>> {
    fn all<T: ArrowPrimitiveType<Native: Into<i64>>>(values: &PrimitiveArray<T>) -> Vec<i64> {
        values.iter().map(|value| value.map_or(i64::MIN, Into::into)).collect()
    }
    let values: &dyn Array = &column.values;
    match column.field_type {
        FieldType::Integer => Some(all(values.as_primitive::<Int64Type>())),
        FieldType::Date => Some(all(values.as_primitive::<Date32Type>())),
        FieldType::Timestamp => Some(all(values.as_primitive::<TimestampMicrosecondType>())),
        FieldType::Boolean
        | FieldType::Double
        | FieldType::Decimal { .. }
        | FieldType::Text
        | FieldType::Bytes
        | FieldType::Json => None,
    }
}
