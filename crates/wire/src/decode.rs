use std::collections::HashSet;

use arrow_array::{RecordBatch, RecordBatchOptions, StringArray};
use arrow_buffer::BooleanBuffer;
use arrow_schema::Schema;
use bytes::Bytes;
use model::{Batch, BatchHeader, Ids, Operation, Records};

use crate::{
    DecodeError,
    column::{self, Texts},
    header,
    protobuf::{Fields, Malformed},
    record,
};

/// Decodes the message of a batch. The batch keeps `message` alive.
///
/// # Errors
///
/// [`DecodeError`] names the first field that is not as it should be.
pub fn decode(message: Bytes) -> Result<Batch, DecodeError> {
    let (header, records) = split(&message)?;
    let records = records.ok_or_else(|| DecodeError::invalid("records", "it is missing"))?;
    Ok(Batch { header: header::decode(header)?, records: decode_records(&records)? })
}

/// Decodes only the header of a batch, which may be readable where the records are not.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_header(message: &Bytes) -> Result<BatchHeader, DecodeError> {
    header::decode(split(message)?.0)
}

/// Finds header and records. Fields of a later release are skipped.
fn split(message: &Bytes) -> Result<(Bytes, Option<Bytes>), DecodeError> {
    let (mut header, mut records) = (None, None);
    for field in Fields::of(message) {
        let (tag, found) = field.map_err(|Malformed| DecodeError::malformed("batch"))?;
        let (place, name) = match tag {
            1 => (&mut header, "header"),
            2 => (&mut records, "records"),
            _ => continue,
        };
        let bytes = found.bytes().map_err(|Malformed| DecodeError::malformed(name))?;
        if place.replace(message.slice_ref(bytes)).is_some() {
            return Err(DecodeError::invalid(name, "it appears twice"));
        }
    }
    let header = header.ok_or_else(|| DecodeError::invalid("header", "it is missing"))?;
    Ok((header, records))
}

/// The fields of `Records` before they are checked against each other.
#[derive(Default)]
struct Parts<'a> {
    count: u64,
    columns: Vec<&'a [u8]>,
    id_prefix: &'a [u8],
    positions: Vec<u64>,
    ids: Option<&'a [u8]>,
    extraction_base: i64,
    versions: Vec<i64>,
    operations: Vec<u64>,
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut parts = Self::default();
        for field in Fields::of(bytes) {
            let (tag, found) = field.map_err(|Malformed| DecodeError::malformed("records"))?;
            let (name, taken) = match tag {
                1 => ("count", found.varint().map(|count| parts.count = count)),
                2 => ("columns", found.bytes().map(|column| parts.columns.push(column))),
                3 => ("id_prefix", found.bytes().map(|prefix| parts.id_prefix = prefix)),
                4 => ("positions", found.varints(&mut parts.positions, Some)),
                5 => ("ids", found.bytes().map(|ids| parts.ids = Some(ids))),
                6 => (
                    "extraction_base",
                    found.fixed64().map(|base| parts.extraction_base = base.cast_signed()),
                ),
                7 => ("versions", found.fixed64s(&mut parts.versions, i64::from_le_bytes)),
                8 => ("operations", found.varints(&mut parts.operations, Some)),
                _ => continue,
            };
            taken.map_err(|Malformed| DecodeError::malformed(format!("records.{name}")))?;
        }
        Ok(parts)
    }

    /// Checks that a part has one entry per record, so that nothing is larger than the message.
    fn count(&self) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let lengths = [
            ("positions", self.positions.len(), false),
            ("versions", self.versions.len(), true),
            ("operations", self.operations.len(), true),
        ];
        for (name, found, optional) in lengths {
            if found != count && !(optional && found == 0) {
                return Err(DecodeError::invalid(
                    format!("records.{name}"),
                    format!("it has {found} entries for {count} records"),
                ));
            }
        }
        Ok(count)
    }
}

pub(crate) fn decode_records(bytes: &Bytes) -> Result<Records, DecodeError> {
    let parts = Parts::of(bytes)?;
    let count = parts.count()?;
    let ids = match parts.ids {
        Some(ids) => Ids::Explicit(explicit_ids(bytes, ids, count)?),
        None => Ids::Positions {
            prefix: std::str::from_utf8(parts.id_prefix)
                .map_err(|_| DecodeError::invalid("records.id_prefix", "it is not UTF-8"))?
                .to_owned(),
        },
    };
    if !parts.positions.is_sorted() {
        return Err(DecodeError::invalid("records.positions", "they are not ascending"));
    }
    let operations =
        parts.operations.iter().copied().map(operation).collect::<Result<Vec<_>, _>>()?;
    let (columns, presence) = columns(bytes, &parts.columns, count)?;
    Ok(Records {
        columns,
        presence,
        ids,
        positions: parts.positions,
        extraction_base: parts.extraction_base,
        versions: (!parts.versions.is_empty()).then_some(parts.versions),
        operations: (!operations.is_empty()).then_some(operations),
    })
}

type Presence = Vec<Option<BooleanBuffer>>;

fn columns(
    records: &Bytes,
    columns: &[&[u8]],
    count: usize,
) -> Result<(RecordBatch, Presence), DecodeError> {
    let mut names = HashSet::with_capacity(columns.len());
    let (mut fields, mut arrays, mut presence) = (Vec::new(), Vec::new(), Vec::new());
    for (index, column) in columns.iter().enumerate() {
        let place = format!("records.columns[{index}]");
        let column = column::decode(records, column, count, &place)?;
        if !names.insert(column.field.name().clone()) {
            return Err(DecodeError::invalid(format!("{place}.name"), "it appears twice"));
        }
        fields.push(column.field);
        arrays.push(column.values);
        presence.push(column.presence);
    }
    if presence.iter().all(Option::is_none) {
        presence.clear();
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let batch = RecordBatch::try_new_with_options(Schema::new(fields).into(), arrays, &options)
        .map_err(|_| DecodeError::invalid("records.columns", "they do not fit each other"))?;
    Ok((batch, presence))
}

fn explicit_ids(records: &Bytes, ids: &[u8], count: usize) -> Result<StringArray, DecodeError> {
    let texts = Texts::decode(records, ids, count, "records.ids")?;
    StringArray::try_new(texts.offsets, texts.data, None)
        .map_err(|_| DecodeError::invalid("records.ids", "they are not UTF-8"))
}

fn operation(number: u64) -> Result<Operation, DecodeError> {
    let known = i32::try_from(number).ok().and_then(|n| record::Operation::try_from(n).ok());
    match known {
        Some(record::Operation::Upsert) => Ok(Operation::Upsert),
        Some(record::Operation::Patch) => Ok(Operation::Patch),
        Some(record::Operation::Delete) => Ok(Operation::Delete),
        Some(record::Operation::Unspecified) | None => {
            Err(DecodeError::invalid("records.operations", "an operation is not known"))
        }
    }
}
