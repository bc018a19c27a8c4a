//! Records that are written by the same statements.

use std::ops::Range;

use arrow_array::RecordBatch;
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use connect::Error;
use model::{Batch, FieldType, Operation};

use super::plan::Incoming;

/// Records of consecutive batches that have the same fields.
pub(crate) struct Unit<'a> {
    pub(crate) columns: RecordBatch,
    pub(crate) fields: Vec<Incoming>,
    pub(super) presence: Vec<Option<BooleanBuffer>>,
    /// Version and extraction time of each record.
    pub(crate) versions: Vec<(i64, i64)>,
    /// Batch of each record and index in that batch.
    pub(crate) origins: Vec<(u32, u32)>,
    operations: Option<Vec<Operation>>,
    batches: &'a [Batch],
}

/// Cuts batches into units.
///
/// # Errors
///
/// Stops the run for fields that cannot be columns.
pub(crate) fn units(batches: &[Batch]) -> Result<Vec<Unit<'_>>, Error> {
    let mut units = Vec::new();
    let mut start = 0;
    while start < batches.len() {
        let schema = batches[start].records.columns.schema();
        let mut end = start + 1;
        while end < batches.len()
            && batches[end].records.columns.schema().fields() == schema.fields()
        {
            end += 1;
        }
        units.push(Unit::new(batches, start..end)?);
        start = end;
    }
    Ok(units)
}

/// Returns the fields of an Arrow schema.
///
/// # Errors
///
/// Stops the run for fields that cannot be columns.
pub(crate) fn incoming(schema: &arrow_schema::Schema) -> Result<Vec<Incoming>, Error> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let field_type = FieldType::of(field).ok_or_else(|| {
                Error::stop(
                    format!("field `{}` has a type that no column can have", field.name()),
                    "report this: the transformer should not have let it pass",
                )
            })?;
            Incoming::new(field.name(), field_type)
        })
        .collect()
}

impl<'a> Unit<'a> {
    fn new(batches: &'a [Batch], range: Range<usize>) -> Result<Self, Error> {
        let parts = &batches[range.clone()];
        let schema = parts[0].records.columns.schema();
        let fields = incoming(&schema)?;
        let columns = if let [only] = parts {
            only.records.columns.clone()
        } else {
            let all: Vec<_> = parts.iter().map(|batch| &batch.records.columns).collect();
            arrow_select::concat::concat_batches(&schema, all).map_err(|cause| {
                Error::stop("batches cannot be joined", "load fewer batches at once").because(cause)
            })?
        };
        let presence = (0..fields.len()).map(|column| join_presence(parts, column)).collect();
        let count = columns.num_rows();
        let mut versions = Vec::with_capacity(count);
        let mut origins = Vec::with_capacity(count);
        for (batch, number) in parts.iter().zip(range.start..) {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            for (index, index32) in (0..batch.records.len()).zip(0_u32..) {
                versions.push(batch.records.version(index));
                origins.push((number, index32));
            }
        }
        let special = parts.iter().any(|batch| {
            batch.records.operations.as_ref().is_some_and(|operations| {
                operations.iter().any(|operation| *operation != Operation::Upsert)
            })
        });
        let operations = special.then(|| {
            let of = |batch: &'a Batch| {
                (0..batch.records.len()).map(|index| batch.records.operation(index))
            };
            parts.iter().flat_map(of).collect()
        });
        Ok(Self { columns, fields, presence, versions, origins, operations, batches })
    }

    pub(crate) fn len(&self) -> usize {
        self.versions.len()
    }

    /// Returns the id of a record.
    pub(crate) fn id(&self, row: u32) -> String {
        let (batch, index) = self.origins[row as usize];
        self.batches[batch as usize].records.id(index as usize)
    }

    /// Returns the run of a record.
    pub(crate) fn run(&self, row: u32) -> String {
        let (batch, _) = self.origins[row as usize];
        self.batches[batch as usize].header.run.to_string()
    }

    /// Tells whether a record asks for a delete.
    pub(crate) fn has_deletes(&self) -> bool {
        self.operations.as_ref().is_some_and(|operations| operations.contains(&Operation::Delete))
    }

    /// Tells whether this record asks for a delete.
    pub(crate) fn deletes(&self, row: usize) -> bool {
        self.operations.as_ref().is_some_and(|operations| operations[row] == Operation::Delete)
    }

    /// Tells whether any record changes some of the fields only.
    pub(crate) fn has_patches(&self) -> bool {
        self.operations.as_ref().is_some_and(|operations| operations.contains(&Operation::Patch))
            && self.presence.iter().any(Option::is_some)
    }

    /// Tells whether this record speaks of some of the fields only.
    pub(super) fn patches(&self, row: usize) -> bool {
        self.operations.as_ref().is_some_and(|operations| operations[row] == Operation::Patch)
            && self.present(row).contains(&false)
    }

    /// Tells which fields the record carries.
    pub(super) fn present(&self, row: usize) -> Vec<bool> {
        self.presence.iter().map(|bits| bits.as_ref().is_none_or(|bits| bits.value(row))).collect()
    }

    /// All records carry all fields and are upserts.
    pub(super) fn is_uniform(&self) -> bool {
        !self.has_deletes() && self.presence.iter().all(Option::is_none)
    }
}

fn join_presence(parts: &[Batch], column: usize) -> Option<BooleanBuffer> {
    let whole = |bits: &BooleanBuffer| bits.count_set_bits() == bits.len();
    if parts.iter().all(|batch| batch.records.presence(column).is_none_or(whole)) {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(0);
    for batch in parts {
        match batch.records.presence(column) {
            Some(part) => bits.append_buffer(part),
            None => bits.append_n(batch.records.len(), true),
        }
    }
    Some(bits.finish())
}
