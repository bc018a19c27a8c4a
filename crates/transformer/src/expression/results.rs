//! Results of an expression as a column.

use std::sync::Arc;

use arrow_array::{
    ArrayRef,
    builder::{
        BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder,
        Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
    },
};
use cel::common::{
    types::{
        CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString,
        CelTimestamp, CelUInt,
    },
    value::Val,
};
use model::FieldType;

use super::{Evaluated, Failure, decimal::Decimal};
use crate::{typing::described, written};

const SECONDS_PER_DAY: i64 = 86_400;

/// Gathers results of one type.
pub(crate) struct Results {
    field_type: FieldType,
    values: Values,
}

enum Values {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Results {
    pub(crate) fn new(field_type: FieldType, capacity: usize) -> Self {
        let values = match field_type {
            FieldType::Boolean => Values::Boolean(BooleanBuilder::with_capacity(capacity)),
            FieldType::Integer => Values::Integer(Int64Builder::with_capacity(capacity)),
            FieldType::Double => Values::Double(Float64Builder::with_capacity(capacity)),
            FieldType::Decimal { .. } => Values::Decimal(
                Decimal128Builder::with_capacity(capacity).with_data_type(field_type.arrow()),
            ),
            FieldType::Text | FieldType::Json => Values::Text(StringBuilder::new()),
            FieldType::Bytes => Values::Bytes(BinaryBuilder::new()),
            FieldType::Date => Values::Date(Date32Builder::with_capacity(capacity)),
            FieldType::Timestamp => Values::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(capacity)
                    .with_data_type(field_type.arrow()),
            ),
        };
        Self { field_type, values }
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.append_null(),
            Values::Integer(values) => values.append_null(),
            Values::Double(values) => values.append_null(),
            Values::Decimal(values) => values.append_null(),
            Values::Text(values) => values.append_null(),
            Values::Bytes(values) => values.append_null(),
            Values::Date(values) => values.append_null(),
            Values::Timestamp(values) => values.append_null(),
        }
    }

    /// Takes a result that is of the type or exactly the same as a value of the type.
    ///
    /// Nothing is pushed where it is neither.
    pub(crate) fn push(&mut self, result: &Evaluated<'_>) -> Result<(), Failure> {
        let value = &*result.0;
        if value.downcast_ref::<CelNull>().is_some() {
            self.push_null();
            return Ok(());
        }
        self.push_value(value).ok_or_else(|| {
            Failure(format!(
                "the expression gives {}, which is not exactly {}",
                value.get_type().name(),
                described(self.field_type)
            ))
        })
    }

    fn push_value<'v>(&mut self, value: &(dyn Val + 'v)) -> Option<()> {
        match (&mut self.values, self.field_type) {
            (Values::Boolean(values), _) => {
                values.append_value(*value.downcast_ref::<CelBool>()?.inner());
            }
            (Values::Integer(values), _) => {
                values.append_value(i64::try_from(Decimal::of(value)?.exactly(0)?).ok()?);
            }
            (Values::Double(values), _) => values.append_value(double(value)?),
            (Values::Decimal(values), FieldType::Decimal { precision, scale }) => {
                let number = Decimal::of(value)?.exactly(scale)?;
                values.append_value(spec::text::fit(number, precision)?);
            }
            (Values::Text(values), FieldType::Json) => {
                let mut json = String::new();
                write_json(value, &mut json)?;
                values.append_value(json);
            }
            (Values::Text(values), _) => {
                values.append_value(value.downcast_ref::<CelString<'v>>()?.inner());
            }
            (Values::Bytes(values), _) => {
                values.append_value(value.downcast_ref::<CelBytes<'v>>()?.inner());
            }
            (Values::Date(values), _) => {
                let seconds = value.downcast_ref::<CelTimestamp>()?.inner().timestamp();
                if seconds.rem_euclid(SECONDS_PER_DAY) != 0 {
                    return None;
                }
                values.append_value(i32::try_from(seconds.div_euclid(SECONDS_PER_DAY)).ok()?);
            }
            (Values::Timestamp(values), _) => {
                values
                    .append_value(value.downcast_ref::<CelTimestamp>()?.inner().timestamp_micros());
            }
            (Values::Decimal(_), _) => return None,
        }
        Some(())
    }

    pub(crate) fn finish(self) -> ArrayRef {
        match self.values {
            Values::Boolean(mut values) => Arc::new(values.finish()),
            Values::Integer(mut values) => Arc::new(values.finish()),
            Values::Double(mut values) => Arc::new(values.finish()),
            Values::Decimal(mut values) => Arc::new(values.finish()),
            Values::Text(mut values) => Arc::new(values.finish()),
            Values::Bytes(mut values) => Arc::new(values.finish()),
            Values::Date(mut values) => Arc::new(values.finish()),
            Values::Timestamp(mut values) => Arc::new(values.finish()),
        }
    }
}

fn double<'v>(value: &(dyn Val + 'v)) -> Option<f64> {
    let double = match value.downcast_ref::<CelDouble>() {
        Some(double) => *double.inner(),
        None => spec::text::double(&Decimal::of(value)?.write())?,
    };
    double.is_finite().then_some(double)
}

fn write_json<'v>(value: &(dyn Val + 'v), out: &mut String) -> Option<()> {
    if let Some(text) = value.downcast_ref::<CelString<'v>>() {
        written::quote(text.inner(), out);
    } else if let Some(boolean) = value.downcast_ref::<CelBool>() {
        out.push_str(if *boolean.inner() { "true" } else { "false" });
    } else if value.downcast_ref::<CelNull>().is_some() {
        out.push_str("null");
    } else if let Some(integer) = value.downcast_ref::<CelUInt>() {
        out.push_str(&integer.inner().to_string());
    } else if let Some(integer) = value.downcast_ref::<CelInt>() {
        out.push_str(&integer.inner().to_string());
    } else if let Some(double) = value.downcast_ref::<CelDouble>() {
        double.inner().is_finite().then(|| out.push_str(&double.inner().to_string()))?;
    } else if let Some(decimal) = value.downcast_ref::<Decimal>() {
        out.push_str(&decimal.write());
    } else if let Some(time) = value.downcast_ref::<CelTimestamp>() {
        out.push('"');
        written::write_timestamp(time.inner().timestamp_micros(), out);
        out.push('"');
    } else if let Some(list) = value.downcast_ref::<CelList<'v>>() {
        out.push('[');
        for (index, item) in list.inner().iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            write_json(&**item, out)?;
        }
        out.push(']');
    } else {
        write_object(value.downcast_ref::<CelMap<'v>>()?, out)?;
    }
    Some(())
}

/// Writes the keys in their order, so that equal objects are written alike.
fn write_object(map: &CelMap<'_>, out: &mut String) -> Option<()> {
    let mut entries: Vec<(&CelMapKey<'_>, _)> = map.inner().iter().collect();
    entries.sort_by(|left, right| left.0.cmp(right.0));
    out.push('{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        match key {
            CelMapKey::String(text) => written::quote(text.inner(), out),
            CelMapKey::Int(number) => written::quote(&number.inner().to_string(), out),
            CelMapKey::UInt(number) => written::quote(&number.inner().to_string(), out),
            CelMapKey::Bool(value) => written::quote(&value.inner().to_string(), out),
        }
        out.push(':');
        write_json(&**value, out)?;
    }
    out.push('}');
    Some(())
}
