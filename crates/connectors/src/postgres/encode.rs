//! Rows in PostgreSQL's binary COPY format.
//!
//! Source: PostgreSQL 15 documentation, COPY, "Binary Format", and the types' receive functions.

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
    Int64Array, StringArray, TimestampMicrosecondArray, cast::AsArray,
};
use arrow_schema::DataType;

use super::types::{EPOCH_DAYS, EPOCH_MICROS};

/// Begins every COPY: signature, no flags, no extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Ends every COPY.
pub(super) const TRAILER: &[u8] = b"\xff\xff";

/// Values of one column, ready to be written.
pub(super) enum Values<'a> {
    Boolean(&'a BooleanArray),
    Integer(&'a Int64Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8),
    Text(&'a StringArray),
    Jsonb(&'a StringArray),
    Bytes(&'a BinaryArray),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
}

impl<'a> Values<'a> {
    /// Takes a column; `jsonb` says that texts go into a column of that type.
    pub(super) fn new(values: &'a ArrayRef, jsonb: bool) -> Self {
        match values.data_type() {
            DataType::Boolean => Self::Boolean(values.as_boolean()),
            DataType::Int64 => Self::Integer(values.as_primitive()),
            DataType::Float64 => Self::Double(values.as_primitive()),
            DataType::Decimal128(_, scale) => {
                Self::Decimal(values.as_primitive(), u8::try_from(*scale).unwrap_or(0))
            }
            DataType::Utf8 if jsonb => Self::Jsonb(values.as_string()),
            DataType::Utf8 => Self::Text(values.as_string()),
            DataType::Binary => Self::Bytes(values.as_binary()),
            DataType::Date32 => Self::Date(values.as_primitive()),
            _ => Self::Timestamp(values.as_primitive()),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(values) => values.is_null(row),
            Self::Integer(values) => values.is_null(row),
            Self::Double(values) => values.is_null(row),
            Self::Decimal(values, _) => values.is_null(row),
            Self::Text(values) | Self::Jsonb(values) => values.is_null(row),
            Self::Bytes(values) => values.is_null(row),
            Self::Date(values) => values.is_null(row),
            Self::Timestamp(values) => values.is_null(row),
        }
    }

    /// Writes the value of a row with its length.
    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return null(out);
        }
        match self {
            Self::Boolean(values) => sized(&[u8::from(values.value(row))], out),
            Self::Integer(values) => integer(values.value(row), out),
            Self::Double(values) => sized(&values.value(row).to_be_bytes(), out),
            Self::Decimal(values, scale) => numeric(values.value(row), *scale, out),
            Self::Text(values) => sized(values.value(row).as_bytes(), out),
            Self::Jsonb(values) => {
                let text = values.value(row).as_bytes();
                length(text.len() + 1, out);
                // Version of the format.
                out.push(1);
                out.extend_from_slice(text);
            }
            Self::Bytes(values) => sized(values.value(row), out),
            Self::Date(values) => {
                let days = values.value(row).saturating_sub(EPOCH_DAYS);
                sized(&days.to_be_bytes(), out);
            }
            Self::Timestamp(values) => {
                integer(values.value(row).saturating_sub(EPOCH_MICROS), out);
            }
        }
    }
}

/// Begins a row of so many fields.
pub(super) fn begin_row(fields: usize, out: &mut Vec<u8>) {
    let fields = u16::try_from(fields).unwrap_or(u16::MAX);
    out.extend_from_slice(&fields.to_be_bytes());
}

/// Writes a null.
pub(super) fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1_i32).to_be_bytes());
}

/// Writes an integer of 64 bits.
pub(super) fn integer(value: i64, out: &mut Vec<u8>) {
    let mut bytes = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    out.extend_from_slice(&bytes);
}

/// Writes bytes or text.
pub(super) fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn length(length: usize, out: &mut Vec<u8>) {
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
}

/// Writes a numeric: groups of four decimal digits, the first one counted from the point.
fn numeric(value: i128, scale: u8, out: &mut Vec<u8>) {
    let mut groups = [0_u16; 12];
    let mut start = groups.len();
    let mut rest = value.unsigned_abs();
    let mut push = |group: u128| {
        start -= 1;
        groups[start] = u16::try_from(group).unwrap_or(0);
    };
    // The last group is filled up with zeros behind the digits of the scale.
    let loose = u32::from(scale % 4);
    let mut behind_point = i16::from(scale / 4);
    if loose > 0 {
        push(rest % 10_u128.pow(loose) * 10_u128.pow(4 - loose));
        rest /= 10_u128.pow(loose);
        behind_point += 1;
    }
    while rest > u128::from(u64::MAX) {
        push(rest % 10_000);
        rest /= 10_000;
    }
    let mut small = u64::try_from(rest).unwrap_or(0);
    while small > 0 {
        push(u128::from(small % 10_000));
        small /= 10_000;
    }
    let mut digits = &groups[start..];
    let mut weight = i16::try_from(digits.len()).unwrap_or(0) - behind_point - 1;
    while let [0, others @ ..] = digits {
        digits = others;
        weight -= 1;
    }
    while let [others @ .., 0] = digits {
        digits = others;
    }
    if digits.is_empty() {
        weight = 0;
    }
    let sign: u16 = if value < 0 { 0x4000 } else { 0 };
    length(8 + digits.len() * 2, out);
    out.extend_from_slice(&u16::try_from(digits.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&u16::from(scale).to_be_bytes());
    for digit in digits {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::decode::numeric as read;

    #[test]
    fn a_numeric_survives_writing_and_reading() {
        let most = 10_i128.pow(38) - 1;
        for value in [0, 1, -1, 9_999, 10_000, -12_345_678_901_234_567_890, most, -most] {
            for scale in [0, 1, 2, 4, 9, 37, 38] {
                let mut out = Vec::new();
                numeric(value, scale, &mut out);
                assert_eq!(read(&out[4..], scale), Some(value), "{value} / {scale}");
            }
        }
    }
}
