//! Rows of PostgreSQL's binary COPY format, straight into Arrow columns.
//!
//! Source: PostgreSQL 15 documentation, COPY, "Binary Format", and the types' send functions.

use std::{fmt::Write as _, ops::Range, sync::Arc};

use arrow_array::{
    ArrayRef,
    builder::{
        BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder,
        Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
    },
};
use model::FieldType;

use super::{
    catalog::CatalogColumn,
    encode::HEADER,
    types::{EPOCH_DAYS, EPOCH_MICROS, digits},
};
use crate::sql::{
    quote::Identifier,
    text::{self, Years},
};

/// How the bytes of a field are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Boolean,
    Int2,
    Int4,
    Int8,
    Double,
    Numeric { precision: u8, scale: u8 },
    Text,
    Json,
    Bytes,
    Date,
    Timestamp,
}

/// A column as it is selected.
#[derive(Debug, Clone)]
pub(super) struct Selected {
    pub(super) name: String,
    pub(super) expression: String,
    pub(super) format: Format,
    pub(super) required: bool,
    pub(super) toastable: bool,
    /// Type for comparing with a value that is given as text.
    pub(super) base: String,
}

impl Selected {
    /// Decides how to select a column.
    pub(super) fn new(column: &CatalogColumn) -> Self {
        let name = Identifier::known(column.name.clone());
        let as_it_is = |format| (name.to_string(), format);
        let (expression, format) = match column.type_name.as_str() {
            "bool" => as_it_is(Format::Boolean),
            "int2" => as_it_is(Format::Int2),
            "int4" => as_it_is(Format::Int4),
            "int8" => as_it_is(Format::Int8),
            "float8" => as_it_is(Format::Double),
            // By way of text 0.1 stays 0.1.
            "float4" => (format!("cast(cast({name} as text) as double precision)"), Format::Double),
            "text" | "varchar" => as_it_is(Format::Text),
            "bytea" => as_it_is(Format::Bytes),
            "date" => as_it_is(Format::Date),
            "timestamp" | "timestamptz" => as_it_is(Format::Timestamp),
            "json" => as_it_is(Format::Json),
            "jsonb" => (format!("cast({name} as text)"), Format::Json),
            "numeric" => match decimal(column.modifier) {
                Some(format) => as_it_is(format),
                None => (format!("cast({name} as text)"), Format::Text),
            },
            _ if column.category == "A" || column.category == "C" => {
                (format!("cast(to_jsonb({name}) as text)"), Format::Json)
            }
            _ => (format!("cast({name} as text)"), Format::Text),
        };
        Self {
            name: column.name.clone(),
            expression,
            format,
            required: column.required,
            toastable: column.toastable,
            base: column.base.clone(),
        }
    }

    pub(super) fn field_type(&self) -> FieldType {
        self.format.field_type()
    }
}

fn decimal(modifier: i32) -> Option<Format> {
    let (precision, scale) = digits(modifier)?;
    let (precision, scale) = (u8::try_from(precision).ok()?, u8::try_from(scale).ok()?);
    (precision <= 38 && scale <= precision).then_some(Format::Numeric { precision, scale })
}

impl Format {
    /// The type that the values get.
    pub(super) fn field_type(self) -> FieldType {
        match self {
            Self::Boolean => FieldType::Boolean,
            Self::Int2 | Self::Int4 | Self::Int8 => FieldType::Integer,
            Self::Double => FieldType::Double,
            Self::Numeric { precision, scale } => FieldType::Decimal { precision, scale },
            Self::Text => FieldType::Text,
            Self::Json => FieldType::Json,
            Self::Bytes => FieldType::Bytes,
            Self::Date => FieldType::Date,
            Self::Timestamp => FieldType::Timestamp,
        }
    }

    /// Tells whether a value has no place in the type of the column: an infinite time, not a number.
    pub(super) fn is_out_of_range(self, bytes: &[u8]) -> bool {
        match self {
            Self::Date => {
                let days = int(bytes);
                bytes.len() != 4 || days == i64::from(i32::MAX) || days == i64::from(i32::MIN)
            }
            Self::Timestamp => {
                let micros = int(bytes);
                micros == i64::MAX
                    || micros == i64::MIN
                    || micros.checked_add(EPOCH_MICROS).is_none()
            }
            Self::Numeric { scale, .. } => numeric(bytes, scale).is_none(),
            _ => false,
        }
    }

    /// Returns roughly what a value takes in a message.
    pub(super) fn encoded_size(self, bytes: Option<&[u8]>) -> usize {
        match self {
            Self::Boolean => 1,
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Double | Self::Timestamp => 8,
            Self::Numeric { precision: ..=18, .. } => 8,
            Self::Numeric { .. } => 16,
            Self::Date => 3,
            // The length takes one byte or two.
            Self::Text | Self::Json | Self::Bytes => bytes.map_or(1, |bytes| bytes.len() + 2),
        }
    }

    /// Writes a value as text that PostgreSQL reads back as the same value.
    pub(super) fn write_text(self, bytes: &[u8], out: &mut String) {
        let written = match self {
            Self::Boolean => out.write_str(if bytes == [0] { "false" } else { "true" }),
            Self::Int2 | Self::Int4 | Self::Int8 => write!(out, "{}", int(bytes)),
            Self::Double => write!(out, "{:?}", f64::from_bits(int(bytes).cast_unsigned())),
            Self::Numeric { scale, .. } => match numeric(bytes, scale) {
                Some(value) => out.write_str(&text::decimal(value, scale)),
                None => out.write_str("NaN"),
            },
            Self::Text | Self::Json => out.write_str(&String::from_utf8_lossy(bytes)),
            Self::Bytes => {
                out.push_str("\\x");
                bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
            }
            Self::Date | Self::Timestamp if self.is_out_of_range(bytes) => {
                out.write_str(if int(bytes) < 0 { "-infinity" } else { "infinity" })
            }
            Self::Date => {
                let days = int(bytes) + i64::from(EPOCH_DAYS);
                out.write_str(&text::date(days, Years::Eras))
            }
            Self::Timestamp => {
                let micros = int(bytes).saturating_add(EPOCH_MICROS);
                out.write_str(&text::timestamp(micros, Years::Eras))
            }
        };
        written.expect("writing to a string cannot fail");
    }
}

/// Reads a big-endian integer of two, four or eight bytes.
fn int(bytes: &[u8]) -> i64 {
    match *bytes {
        [a, b] => i64::from(i16::from_be_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

/// Reads a numeric as an integer of the given scale; `None` for what is none, such as NaN.
pub(super) fn numeric(bytes: &[u8], scale: u8) -> Option<i128> {
    let (head, digits) = bytes.split_at_checked(8)?;
    let weight = i16::from_be_bytes([head[2], head[3]]);
    let sign = u16::from_be_bytes([head[4], head[5]]);
    if sign != 0 && sign != 0x4000 {
        return None;
    }
    let mut value: i128 = 0;
    // Decimal places of the digits read so far; negative: zeros before the point are missing.
    let mut places: i32 = -4 * (i32::from(weight) + 1);
    for pair in digits.chunks_exact(2) {
        let group = i128::from(u16::from_be_bytes([pair[0], pair[1]]));
        let over = places + 4 - i32::from(scale);
        if over > 0 {
            // The last group is longer than the scale by zeros.
            let cut = 10_i128.checked_pow(u32::try_from(over).ok()?)?;
            if group % cut != 0 {
                return None;
            }
            let kept = 10_i128.checked_pow(4_u32.checked_sub(u32::try_from(over).ok()?)?)?;
            value = value.checked_mul(kept)?.checked_add(group / cut)?;
            places = i32::from(scale);
        } else {
            value = value.checked_mul(10_000)?.checked_add(group)?;
            places += 4;
        }
    }
    if value != 0 {
        let missing = u32::try_from(i32::from(scale) - places).ok()?;
        value = value.checked_mul(10_i128.checked_pow(missing)?)?;
    }
    Some(if sign == 0 { value } else { -value })
}

/// Values of one column in the making.
pub(super) enum Builder {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder, u8),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Builder {
    pub(super) fn new(format: Format) -> Self {
        match format {
            Format::Boolean => Self::Boolean(BooleanBuilder::new()),
            Format::Int2 | Format::Int4 | Format::Int8 => Self::Integer(Int64Builder::new()),
            Format::Double => Self::Double(Float64Builder::new()),
            Format::Numeric { precision, scale } => {
                let field_type = FieldType::Decimal { precision, scale };
                let builder = Decimal128Builder::new().with_data_type(field_type.arrow());
                Self::Decimal(builder, scale)
            }
            Format::Text | Format::Json => Self::Text(StringBuilder::new()),
            Format::Bytes => Self::Bytes(BinaryBuilder::new()),
            Format::Date => Self::Date(Date32Builder::new()),
            Format::Timestamp => Self::Timestamp(
                TimestampMicrosecondBuilder::new().with_data_type(FieldType::Timestamp.arrow()),
            ),
        }
    }

    /// Appends a value that is in range, or null.
    pub(super) fn append(&mut self, bytes: Option<&[u8]>) {
        match self {
            Self::Boolean(builder) => builder.append_option(bytes.map(|bytes| bytes != [0])),
            Self::Integer(builder) => builder.append_option(bytes.map(int)),
            Self::Double(builder) => {
                builder
                    .append_option(bytes.map(|bytes| f64::from_bits(int(bytes).cast_unsigned())));
            }
            Self::Decimal(builder, scale) => {
                builder.append_option(bytes.and_then(|bytes| numeric(bytes, *scale)));
            }
            Self::Text(builder) => match bytes {
                Some(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => builder.append_value(text),
                    Err(_) => builder.append_value(String::from_utf8_lossy(bytes)),
                },
                None => builder.append_null(),
            },
            Self::Bytes(builder) => builder.append_option(bytes),
            Self::Date(builder) => builder
                .append_option(bytes.map(|bytes| {
                    i32::try_from(int(bytes)).unwrap_or(0).saturating_add(EPOCH_DAYS)
                })),
            Self::Timestamp(builder) => {
                builder.append_option(bytes.map(|bytes| int(bytes).saturating_add(EPOCH_MICROS)));
            }
        }
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, _) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}

/// Finds the rows in the pieces of a COPY, however it is cut.
#[derive(Default)]
pub(super) struct CopyRows {
    buffer: Vec<u8>,
    start: usize,
    began: bool,
}

impl CopyRows {
    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..self.start);
        }
        self.start = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// Puts the next row's fields into `fields` and tells whether there is one; the fields are
    /// ranges of [`CopyRows::bytes`].
    pub(super) fn next(&mut self, fields: &mut Vec<Option<Range<usize>>>) -> bool {
        if !self.began {
            if self.buffer.len() < HEADER.len() {
                return false;
            }
            self.start = HEADER.len();
            self.began = true;
        }
        let number = |at: usize, size: usize| self.buffer.get(at..at + size).map(int);
        fields.clear();
        // The count is -1 at the end.
        let Some(count @ 0..) = number(self.start, 2) else {
            return false;
        };
        let mut at = self.start + 2;
        for _ in 0..count {
            let Some(length) = number(at, 4) else {
                return false;
            };
            at += 4;
            fields.push(match usize::try_from(length) {
                Ok(length) => {
                    if self.buffer.len() < at + length {
                        return false;
                    }
                    at += length;
                    Some(at - length..at)
                }
                Err(_) => None,
            });
        }
        self.start = at;
        true
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_has_no_value() {
        for sign in [0xc000_u16, 0xd000, 0xf000] {
            let mut bytes = vec![0; 8];
            bytes[4..6].copy_from_slice(&sign.to_be_bytes());
            assert_eq!(numeric(&bytes, 2), None);
        }
        assert_eq!(numeric(&[], 2), None);
    }

    #[test]
    fn a_date_of_another_size_is_none() {
        let mut text = String::new();
        for days in [i64::MAX - 5, i64::MIN + 5] {
            assert!(Format::Date.is_out_of_range(&days.to_be_bytes()));
            Format::Date.write_text(&days.to_be_bytes(), &mut text);
        }
        assert_eq!(text, "infinity-infinity");
    }

    #[test]
    fn rows_are_found_however_the_copy_is_cut() {
        let mut copy = HEADER.to_vec();
        copy.extend_from_slice(&[0, 2, 0, 0, 0, 1, b'a', 0xff, 0xff, 0xff, 0xff]);
        copy.extend_from_slice(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 2, b'b', b'c']);
        copy.extend_from_slice(&[0xff, 0xff]);
        for size in 1..copy.len() {
            let mut rows = CopyRows::default();
            let mut fields = Vec::new();
            let mut found = Vec::new();
            for piece in copy.chunks(size) {
                rows.push(piece);
                while rows.next(&mut fields) {
                    let texts = fields.iter().map(|field| {
                        let bytes = field.clone().map(|range| rows.bytes()[range].to_vec());
                        bytes.map(|bytes| String::from_utf8(bytes).unwrap())
                    });
                    found.push(texts.collect::<Vec<_>>());
                }
            }
            let text = |text: &str| Some(text.to_owned());
            assert_eq!(found, [vec![text("a"), None], vec![text(""), text("bc")]], "{size}");
        }
    }
}
