use arrow_array::{
    ArrayRef, Decimal128Array, Int64Array,
    cast::AsArray,
    types::{Date32Type, Float64Type, TimestampMicrosecondType},
};
use model::FieldType;

use super::unit::Unit;

/// The keys of some rows as bytes that sort as the numbers and texts do, as far as it is cheap.
pub(super) struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    pub(super) fn of_ids(unit: &Unit<'_>, rows: &[u32]) -> Self {
        Self::collect(rows, |row, bytes| bytes.extend_from_slice(unit.id(row).as_bytes()))
    }

    pub(super) fn of_columns(unit: &Unit<'_>, columns: &[usize], rows: &[u32]) -> Self {
        let parts: Vec<_> = columns
            .iter()
            .map(|column| (unit.columns.column(*column), unit.fields[*column].field_type))
            .collect();
        let single = parts.len() == 1;
        Self::collect(rows, |row, bytes| {
            for (values, field_type) in &parts {
                append_key(values, *field_type, row as usize, single, bytes);
            }
        })
    }

    fn collect(rows: &[u32], mut append: impl FnMut(u32, &mut Vec<u8>)) -> Self {
        let mut bytes = Vec::with_capacity(rows.len() * 9);
        let mut ends = Vec::with_capacity(rows.len());
        for row in rows {
            append(*row, &mut bytes);
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[at]]
    }

    pub(super) fn ascend(&self) -> bool {
        (1..self.ends.len()).all(|at| self.get(at - 1) < self.get(at))
    }
}

fn append_key(
    values: &ArrayRef,
    field_type: FieldType,
    row: usize,
    single: bool,
    bytes: &mut Vec<u8>,
) {
    let ordered = |value: i64| (value ^ i64::MIN).to_be_bytes();
    let mut sized = |value: &[u8]| {
        bytes.extend_from_slice(value);
        if !single {
            // No text holds a NUL here; binary keys of several columns only have to differ.
            bytes.push(0);
            bytes.extend_from_slice(&value.len().to_be_bytes());
        }
    };
    match field_type {
        FieldType::Text | FieldType::Json => sized(values.as_string::<i32>().value(row).as_bytes()),
        FieldType::Bytes => sized(values.as_binary::<i32>().value(row)),
        FieldType::Boolean => bytes.push(u8::from(values.as_boolean().value(row))),
        FieldType::Integer => {
            let values: &Int64Array = values.as_primitive();
            bytes.extend_from_slice(&ordered(values.value(row)));
        }
        FieldType::Double => {
            let value = values.as_primitive::<Float64Type>().value(row);
            // The two zeros are equal for a database.
            let value = if value == 0.0 { 0.0 } else { value };
            bytes.extend_from_slice(&value.to_bits().to_be_bytes());
        }
        FieldType::Decimal { .. } => {
            let values: &Decimal128Array = values.as_primitive();
            bytes.extend_from_slice(&(values.value(row) ^ i128::MIN).to_be_bytes());
        }
        FieldType::Date => {
            let value = values.as_primitive::<Date32Type>().value(row);
            bytes.extend_from_slice(&ordered(i64::from(value)));
        }
        FieldType::Timestamp => {
            let value = values.as_primitive::<TimestampMicrosecondType>().value(row);
            bytes.extend_from_slice(&ordered(value));
        }
    }
}
