use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use bytes::Bytes;
use model::FieldType;

use crate::{
    DecodeError,
    protobuf::{Fields, Found, Malformed},
    record,
};

/// A column that fits its type and the number of records.
pub(crate) struct Column {
    pub(crate) field: arrow_schema::Field,
    pub(crate) values: ArrayRef,
    pub(crate) presence: Option<BooleanBuffer>,
}

/// Texts or bytes, one behind the other.
pub(crate) struct Texts {
    pub(crate) offsets: OffsetBuffer<i32>,
    pub(crate) data: Buffer,
}

/// The fields of a column before they are checked against each other.
#[derive(Default)]
struct Parts<'a> {
    name: &'a [u8],
    field_type: u64,
    scale: u64,
    precision: u64,
    validity: &'a [u8],
    presence: &'a [u8],
    /// The tag tells the kind of the values.
    values: Option<(u32, &'a [u8])>,
}

/// Decodes `column`, which is a part of `records`. `place` is its path, for errors.
pub(crate) fn decode(
    records: &Bytes,
    column: &[u8],
    count: usize,
    place: &str,
) -> Result<Column, DecodeError> {
    let invalid =
        |field: &str, reason: &str| DecodeError::invalid(format!("{place}{field}"), reason);
    let parts = Parts::of(column, place)?;
    let name = std::str::from_utf8(parts.name).map_err(|_| invalid(".name", "it is not UTF-8"))?;
    if name.is_empty() {
        return Err(invalid(".name", "it is empty"));
    }
    let field_type = parts.field_type(place)?;
    let presence = parts.bits(records, parts.presence, count, place, "presence")?;
    let validity = parts.bits(records, parts.validity, count, place, "validity")?;
    let nulls = match (validity, &presence) {
        // An absent value is null, whatever the validity says.
        (Some(validity), Some(presence)) => Some(&validity & presence),
        (None, Some(presence)) => Some(presence.clone()),
        (validity, None) => validity,
    };
    let (tag, values) = parts.values.ok_or_else(|| invalid("", "it has no values"))?;
    if tag != values_tag(field_type) {
        return Err(invalid("", "its values are of another type"));
    }
    let values = array(records, values, field_type, nulls.map(NullBuffer::new), count, place)?;
    Ok(Column { field: field_type.arrow_field(name), values, presence })
}

impl<'a> Parts<'a> {
    fn of(column: &'a [u8], place: &str) -> Result<Self, DecodeError> {
        let mut parts = Self::default();
        for field in Fields::of(column) {
            let (tag, found) = field.map_err(|Malformed| DecodeError::malformed(place))?;
            let (name, taken) = match tag {
                1 => ("name", found.bytes().map(|name| parts.name = name)),
                2 => ("type", found.varint().map(|number| parts.field_type = number)),
                3 => ("scale", found.varint().map(|scale| parts.scale = scale)),
                4 => ("validity", found.bytes().map(|bits| parts.validity = bits)),
                5 => ("presence", found.bytes().map(|bits| parts.presence = bits)),
                6..=11 => ("values", found.bytes().map(|bytes| parts.values = Some((tag, bytes)))),
                12 => ("precision", found.varint().map(|digits| parts.precision = digits)),
                _ => continue,
            };
            taken.map_err(|Malformed| DecodeError::malformed(format!("{place}.{name}")))?;
        }
        Ok(parts)
    }

    fn field_type(&self, place: &str) -> Result<FieldType, DecodeError> {
        let invalid =
            |field: &str, reason: &str| DecodeError::invalid(format!("{place}.{field}"), reason);
        let known = i32::try_from(self.field_type)
            .ok()
            .and_then(|number| record::FieldType::try_from(number).ok());
        Ok(match known {
            Some(record::FieldType::Boolean) => FieldType::Boolean,
            Some(record::FieldType::Integer) => FieldType::Integer,
            Some(record::FieldType::Double) => FieldType::Double,
            Some(record::FieldType::Decimal) => {
                let precision = u8::try_from(self.precision)
                    .ok()
                    .filter(|digits| (1..=38).contains(digits))
                    .ok_or_else(|| invalid("precision", "it is not 1 to 38"))?;
                let scale = u8::try_from(self.scale)
                    .ok()
                    .filter(|scale| *scale <= precision)
                    .ok_or_else(|| invalid("scale", "it is above the precision"))?;
                FieldType::Decimal { precision, scale }
            }
            Some(record::FieldType::Text) => FieldType::Text,
            Some(record::FieldType::Bytes) => FieldType::Bytes,
            Some(record::FieldType::Date) => FieldType::Date,
            Some(record::FieldType::Timestamp) => FieldType::Timestamp,
            Some(record::FieldType::Json) => FieldType::Json,
            Some(record::FieldType::Unspecified) | None => {
                return Err(invalid("type", "it is not known"));
            }
        })
    }

    fn bits(
        &self,
        records: &Bytes,
        bits: &[u8],
        count: usize,
        place: &str,
        name: &str,
    ) -> Result<Option<BooleanBuffer>, DecodeError> {
        if bits.is_empty() {
            return Ok(None);
        }
        bit_buffer(records, bits, count).map(Some).ok_or_else(|| {
            DecodeError::invalid(format!("{place}.{name}"), wrong_length(bits.len() * 8, count))
        })
    }
}

impl Texts {
    /// Decodes `texts`, which is a part of `records`; the data stays where it is.
    pub(crate) fn decode(
        records: &Bytes,
        texts: &[u8],
        count: usize,
        place: &str,
    ) -> Result<Self, DecodeError> {
        let mut lengths: Vec<u32> = Vec::new();
        let mut data: &[u8] = &[];
        for field in Fields::of(texts) {
            let (tag, found) = field.map_err(|Malformed| DecodeError::malformed(place))?;
            let (name, taken) = match tag {
                1 => ("lengths", found.varints(&mut lengths, |length| u32::try_from(length).ok())),
                2 => ("data", found.bytes().map(|bytes| data = bytes)),
                _ => continue,
            };
            taken.map_err(|Malformed| DecodeError::malformed(format!("{place}.{name}")))?;
        }
        if lengths.len() != count {
            let reason = wrong_length(lengths.len(), count);
            return Err(DecodeError::invalid(format!("{place}.lengths"), reason));
        }
        let mut end = 0_u64;
        let mut offsets = Vec::with_capacity(count + 1);
        offsets.push(0_i32);
        for length in lengths {
            end += u64::from(length);
            // What is cut here differs from the length of the data, which is compared below.
            offsets.push(i32::try_from(end).unwrap_or(i32::MAX));
        }
        if end != data.len() as u64 || i32::try_from(end).is_err() {
            let reason = "they do not add up to the size of the data";
            return Err(DecodeError::invalid(format!("{place}.lengths"), reason));
        }
        Ok(Self {
            offsets: OffsetBuffer::new(ScalarBuffer::from(offsets)),
            data: buffer(records, data),
        })
    }
}

/// Tag of the values in the `oneof` of a column.
fn values_tag(field_type: FieldType) -> u32 {
    match field_type {
        FieldType::Boolean => 6,
        FieldType::Integer | FieldType::Timestamp => 7,
        FieldType::Double => 8,
        FieldType::Decimal { .. } => 9,
        FieldType::Text | FieldType::Bytes | FieldType::Json => 10,
        FieldType::Date => 11,
    }
}

fn array(
    records: &Bytes,
    values: &[u8],
    field_type: FieldType,
    nulls: Option<NullBuffer>,
    count: usize,
    place: &str,
) -> Result<ArrayRef, DecodeError> {
    let place = format!("{place}.values");
    Ok(match field_type {
        FieldType::Boolean => {
            let bits = only_bytes(values, &place)?;
            let bits = bit_buffer(records, bits, count)
                .ok_or_else(|| DecodeError::invalid(&place, wrong_length(bits.len() * 8, count)))?;
            Arc::new(BooleanArray::new(bits, nulls))
        }
        FieldType::Integer => {
            let values = longs(values, count, &place, i64::from_le_bytes)?;
            Arc::new(Int64Array::new(values.into(), nulls))
        }
        FieldType::Timestamp => {
            let values = longs(values, count, &place, i64::from_le_bytes)?;
            Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone("UTC"))
        }
        FieldType::Double => {
            let values = longs(values, count, &place, f64::from_le_bytes)?;
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        FieldType::Decimal { precision, scale } => {
            Arc::new(decimals(values, (precision, scale), nulls, count, &place)?)
        }
        FieldType::Text | FieldType::Json => {
            let texts = Texts::decode(records, values, count, &place)?;
            let array = StringArray::try_new(texts.offsets, texts.data, nulls);
            Arc::new(array.map_err(|_| DecodeError::invalid(place, "they are not UTF-8"))?)
        }
        FieldType::Bytes => {
            let texts = Texts::decode(records, values, count, &place)?;
            let array = BinaryArray::try_new(texts.offsets, texts.data, nulls);
            Arc::new(array.map_err(|_| DecodeError::invalid(place, "they do not fit"))?)
        }
        FieldType::Date => {
            let mut days = Vec::new();
            each(values, &place, |found| found.varints(&mut days, day))?;
            Arc::new(Date32Array::new(exactly(days, count, &place)?.into(), nulls))
        }
    })
}

fn decimals(
    values: &[u8],
    (precision, scale): (u8, u8),
    nulls: Option<NullBuffer>,
    count: usize,
    place: &str,
) -> Result<Decimal128Array, DecodeError> {
    let (mut lows, mut highs) = (Vec::new(), Vec::new());
    for field in Fields::of(values) {
        let (tag, found) = field.map_err(|Malformed| DecodeError::malformed(place))?;
        let taken = match tag {
            1 => found.fixed64s(&mut lows, |low| i128::from(i64::from_le_bytes(low))),
            2 => found.varints(&mut highs, |high| Some(unzigzag(high))),
            _ => continue,
        };
        taken.map_err(|Malformed| DecodeError::malformed(place))?;
    }
    let mut lows = exactly(lows, count, place)?;
    if !highs.is_empty() {
        let highs = exactly(highs, count, place)?;
        for (value, high) in lows.iter_mut().zip(highs) {
            *value = i128::from(high) << 64 | (*value & i128::from(u64::MAX));
        }
    }
    let scale = i8::try_from(scale).expect("the scale is at most 38");
    let array = Decimal128Array::new(lows.into(), nulls)
        .with_precision_and_scale(precision, scale)
        .map_err(|_| DecodeError::invalid(place, "their type is not possible"))?;
    array
        .validate_decimal_precision(precision)
        .map_err(|_| DecodeError::invalid(place, "one has more digits than the precision"))?;
    Ok(array)
}

fn longs<T>(
    values: &[u8],
    count: usize,
    place: &str,
    convert: impl Fn([u8; 8]) -> T,
) -> Result<Vec<T>, DecodeError> {
    let mut numbers = Vec::new();
    each(values, place, |found| found.fixed64s(&mut numbers, &convert))?;
    exactly(numbers, count, place)
}

fn only_bytes<'a>(values: &'a [u8], place: &str) -> Result<&'a [u8], DecodeError> {
    let mut bytes: &[u8] = &[];
    each(values, place, |found| found.bytes().map(|found| bytes = found))?;
    Ok(bytes)
}

/// Takes field 1 of a message of values.
fn each<'a>(
    values: &'a [u8],
    place: &str,
    mut take: impl FnMut(Found<'a>) -> Result<(), Malformed>,
) -> Result<(), DecodeError> {
    for field in Fields::of(values) {
        let taken = match field {
            Ok((1, found)) => take(found),
            Ok(_) => Ok(()),
            Err(Malformed) => Err(Malformed),
        };
        taken.map_err(|Malformed| DecodeError::malformed(place))?;
    }
    Ok(())
}

fn exactly<T>(values: Vec<T>, count: usize, place: &str) -> Result<Vec<T>, DecodeError> {
    if values.len() == count {
        Ok(values)
    } else {
        Err(DecodeError::invalid(place, wrong_length(values.len(), count)))
    }
}

fn wrong_length(found: usize, count: usize) -> String {
    format!("{found} entries do not fit {count} records")
}

/// Takes one bit per record; `None` if there are not as many bytes as that needs.
fn bit_buffer(records: &Bytes, bits: &[u8], count: usize) -> Option<BooleanBuffer> {
    (bits.len() == count.div_ceil(8)).then(|| BooleanBuffer::new(buffer(records, bits), 0, count))
}

/// Refers to a part of the message without copying it.
fn buffer(records: &Bytes, part: &[u8]) -> Buffer {
    if part.is_empty() { Buffer::default() } else { Buffer::from(records.slice_ref(part)) }
}

fn day(number: u64) -> Option<i32> {
    i32::try_from(unzigzag(number)).ok()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}
