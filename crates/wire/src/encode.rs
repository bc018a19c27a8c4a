use arrow_array::{
    Array, BooleanArray, Date32Array, Decimal128Array, Float64Array, GenericByteArray, Int64Array,
    StringArray, TimestampMicrosecondArray, cast::AsArray, types::ByteArrayType,
};
use arrow_buffer::{BooleanBuffer, ScalarBuffer};
use bytes::Bytes;
use model::{Batch, BatchHeader, FieldType, Ids, Operation, Records};
use prost::Message;

use crate::{
    header,
    protobuf::{Writer, little_endian},
    record,
};

/// Records in their wire form, without the header of the batch.
#[derive(Debug, Clone)]
pub struct EncodedRecords {
    bytes: Vec<u8>,
}

impl EncodedRecords {
    /// Returns the xxh3 hash of the content: the same records give the same hash.
    #[must_use]
    pub fn content_hash(&self) -> u64 {
        twox_hash::XxHash3_64::oneshot(&self.bytes)
    }

    /// Returns the size of the wire form in bytes, without the header.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Tells whether the wire form is empty, which is so for no columns and no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the message of a batch with this header and these records.
    #[must_use]
    pub fn into_message(self, header: &BatchHeader) -> Bytes {
        let header = header::to_wire(header).encode_to_vec();
        // Two keys and two lengths take at most 12 bytes.
        let mut message = Writer::with_capacity(header.len() + self.bytes.len() + 12);
        message.bytes(1, &header);
        message.bytes(2, &self.bytes);
        message.finish().into()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

/// Encodes records. They must be [valid](Records::validate).
#[must_use]
pub fn encode_records(records: &Records) -> EncodedRecords {
    let count = records.len();
    let mut out = Writer::with_capacity(records.columns.get_array_memory_size() + 8 * count);
    out.unsigned(1, count as u64);
    for (index, field) in records.columns.schema_ref().fields().iter().enumerate() {
        let values = records.columns.column(index).as_ref();
        out.nested(2, |out| column(out, field, values, records.presence(index)));
    }
    match &records.ids {
        Ids::Positions { prefix } => out.text(3, prefix),
        Ids::Explicit(_) => {}
    }
    out.packed(4, &records.positions, |position| *position);
    if let Ids::Explicit(ids) = &records.ids {
        out.nested(5, |out| texts(out, ids));
    }
    out.fixed64(6, records.extraction_base);
    if let Some(versions) = &records.versions {
        out.packed_fixed64(7, versions.len(), |bytes| {
            for version in versions {
                bytes.extend_from_slice(&version.to_le_bytes());
            }
        });
    }
    if let Some(operations) = &records.operations {
        out.packed(8, operations, |operation| match operation {
            Operation::Upsert => record::Operation::Upsert as u64,
            Operation::Patch => record::Operation::Patch as u64,
            Operation::Delete => record::Operation::Delete as u64,
        });
    }
    EncodedRecords { bytes: out.finish() }
}

/// Encodes a batch whose header is known already.
#[must_use]
pub fn encode(batch: &Batch) -> Bytes {
    encode_records(&batch.records).into_message(&batch.header)
}

fn column(
    out: &mut Writer,
    field: &arrow_schema::Field,
    values: &dyn Array,
    presence: Option<&BooleanBuffer>,
) {
    let field_type = FieldType::of(field).expect("the columns of valid records have field types");
    out.text(1, field.name());
    out.unsigned(2, wire_type(field_type) as u64);
    if let FieldType::Decimal { scale, .. } = field_type {
        out.unsigned(3, u64::from(scale));
    }
    if let Some(nulls) = values.nulls().filter(|nulls| nulls.null_count() > 0) {
        bits(out, 4, nulls.inner());
    }
    if let Some(presence) = presence.filter(|bits| bits.count_set_bits() < bits.len()) {
        bits(out, 5, presence);
    }
    match field_type {
        FieldType::Boolean => {
            let values: &BooleanArray = values.as_boolean();
            out.nested(6, |out| bits(out, 1, values.values()));
        }
        FieldType::Integer => {
            let values: &Int64Array = values.as_primitive();
            out.nested(7, |out| longs(out, values.values()));
        }
        FieldType::Timestamp => {
            let values: &TimestampMicrosecondArray = values.as_primitive();
            out.nested(7, |out| longs(out, values.values()));
        }
        FieldType::Double => {
            let values: &Float64Array = values.as_primitive();
            out.nested(8, |out| longs(out, values.values()));
        }
        FieldType::Decimal { .. } => {
            let values: &Decimal128Array = values.as_primitive();
            out.nested(9, |out| decimals(out, values.values()));
        }
        FieldType::Text | FieldType::Json => {
            let values: &StringArray = values.as_string();
            out.nested(10, |out| texts(out, values));
        }
        FieldType::Bytes => out.nested(10, |out| texts(out, values.as_binary::<i32>())),
        FieldType::Date => {
            let values: &Date32Array = values.as_primitive();
            out.nested(11, |out| out.packed(1, values.values(), |day| zigzag((*day).into())));
        }
    }
    if let FieldType::Decimal { precision, .. } = field_type {
        out.unsigned(12, u64::from(precision));
    }
}

fn wire_type(field_type: FieldType) -> record::FieldType {
    match field_type {
        FieldType::Boolean => record::FieldType::Boolean,
        FieldType::Integer => record::FieldType::Integer,
        FieldType::Double => record::FieldType::Double,
        FieldType::Decimal { .. } => record::FieldType::Decimal,
        FieldType::Text => record::FieldType::Text,
        FieldType::Bytes => record::FieldType::Bytes,
        FieldType::Date => record::FieldType::Date,
        FieldType::Timestamp => record::FieldType::Timestamp,
        FieldType::Json => record::FieldType::Json,
    }
}

fn bits(out: &mut Writer, tag: u32, bits: &BooleanBuffer) {
    let sliced = bits.sliced();
    let length = bits.len().div_ceil(8);
    let Some((last, whole)) = sliced.as_slice()[..length].split_last() else { return };
    // The bits behind the last record are whatever memory held; equal records must be equal bytes.
    let used = (bits.len() - 1) % 8 + 1;
    out.two_bytes(tag, whole, &[last & (0xff >> (8 - used))]);
}

/// Writes 64-bit values as they lie in memory.
fn longs<T: arrow_buffer::ArrowNativeType>(out: &mut Writer, values: &ScalarBuffer<T>) {
    out.packed_fixed64(1, values.len(), |bytes| {
        bytes.extend_from_slice(&little_endian(values.inner().as_slice()));
    });
}

fn decimals(out: &mut Writer, values: &[i128]) {
    out.packed_fixed64(1, values.len(), |bytes| {
        for value in values {
            bytes.extend_from_slice(&value.to_le_bytes()[..8]);
        }
    });
    if values.iter().any(|value| i64::try_from(*value).is_err()) {
        out.packed(2, values, |value| {
            zigzag(i64::try_from(value >> 64).expect("the upper half has 64 bits"))
        });
    }
}

fn texts<T: ByteArrayType<Offset = i32>>(out: &mut Writer, values: &GenericByteArray<T>) {
    let offsets = values.value_offsets();
    let length = |pair: &[i32]| u64::try_from(pair[1] - pair[0]).expect("offsets never go back");
    out.packed_pairs(1, offsets, length);
    let end = |offset: Option<&i32>| {
        offset.map_or(0, |offset| usize::try_from(*offset).expect("offsets are not negative"))
    };
    out.optional_bytes(2, &values.value_data()[end(offsets.first())..end(offsets.last())]);
}

/// Maps small negative numbers to small positive ones, as protobuf's `sint` types do.
#[expect(clippy::cast_sign_loss, reason = "the bits are what is wanted")]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}
