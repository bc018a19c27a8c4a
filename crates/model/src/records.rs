use arrow_array::{Array, BooleanArray, RecordBatch, StringArray};
use arrow_buffer::BooleanBuffer;
use arrow_schema::ArrowError;

use crate::FieldType;

/// What a record asks of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Operation {
    /// Insert or replace.
    #[default]
    Upsert,
    /// Change only the fields that are present.
    Patch,
    /// Remove.
    Delete,
}

/// How the records of a batch are named.
#[derive(Debug, Clone)]
pub enum Ids {
    /// The prefix followed by the record's position in decimal.
    Positions {
        /// Such as `orders-1997-01.csv#1f2e:`.
        prefix: String,
    },
    /// One id per record, never null.
    Explicit(StringArray),
}

/// Records of one stream, column by column, with what every record carries besides its values.
///
/// All parts have one entry per record and the records are in source order.
#[derive(Debug, Clone)]
pub struct Records {
    /// The values. Every column is of a type that [`FieldType::of`] knows; names are unique.
    pub columns: RecordBatch,
    /// Per column, which records carry the field at all; `None`: all do. An absent value is null in
    /// `columns`. Empty means `None` for every column.
    pub presence: Vec<Option<BooleanBuffer>>,
    /// The ids.
    pub ids: Ids,
    /// Ordinal in the source: the line of a file, the number of a row. Ascending.
    pub positions: Vec<u64>,
    /// Added to a position it gives the extraction time: nanoseconds since 1970-01-01 UTC.
    pub extraction_base: i64,
    /// Version of each record; `None`: the extraction time.
    pub versions: Option<Vec<i64>>,
    /// Operation of each record; `None`: every record is an upsert.
    pub operations: Option<Vec<Operation>>,
}

/// The parts of [`Records`] do not fit each other.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// A part has another length.
    #[error("{part} has {found} entries for {expected} records")]
    Length {
        /// Name of the part.
        part: &'static str,
        /// Its length.
        found: usize,
        /// Number of records.
        expected: usize,
    },
    /// A column has a type that no field can have.
    #[error("column `{0}` has a type that no field can have")]
    Type(String),
    /// Two columns have one name.
    #[error("column `{0}` appears twice")]
    Repeated(String),
}

impl Records {
    /// Tells whether any record may not carry all fields.
    #[must_use]
    pub fn are_partial(&self) -> bool {
        self.presence.iter().any(Option::is_some)
            || self.operations.iter().flatten().any(|operation| *operation == Operation::Patch)
    }

    /// Returns the number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.num_rows()
    }

    /// Tells whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the id of the record at `index`.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`Records::len`].
    #[must_use]
    pub fn id(&self, index: usize) -> String {
        match &self.ids {
            Ids::Positions { prefix } => format!("{prefix}{}", self.positions[index]),
            Ids::Explicit(ids) => ids.value(index).to_owned(),
        }
    }

    /// Returns the extraction time of the record at `index`: nanoseconds since 1970-01-01 UTC.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`Records::len`].
    #[must_use]
    pub fn extracted_at(&self, index: usize) -> i64 {
        self.extraction_base.saturating_add_unsigned(self.positions[index])
    }

    /// Returns what decides whether the record at `index` is newer than another one: its version
    /// and, where two versions are equal, its extraction time.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`Records::len`].
    #[must_use]
    pub fn version(&self, index: usize) -> (i64, i64) {
        let extracted_at = self.extracted_at(index);
        (self.versions.as_ref().map_or(extracted_at, |versions| versions[index]), extracted_at)
    }

    /// Returns the operation of the record at `index`.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`Records::len`].
    #[must_use]
    pub fn operation(&self, index: usize) -> Operation {
        self.operations.as_ref().map_or(Operation::Upsert, |operations| operations[index])
    }

    /// Tells whether the record at `index` carries the field in column `column`.
    #[must_use]
    pub fn is_present(&self, column: usize, index: usize) -> bool {
        self.presence(column).is_none_or(|presence| presence.value(index))
    }

    /// Returns which records carry the field in column `column`; `None`: all do.
    #[must_use]
    pub fn presence(&self, column: usize) -> Option<&BooleanBuffer> {
        self.presence.get(column).and_then(Option::as_ref)
    }

    /// Returns the records for which `keep` is true, in the same order.
    ///
    /// # Errors
    ///
    /// When `keep` has another length.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, ArrowError> {
        let columns = arrow_select::filter::filter_record_batch(&self.columns, keep)?;
        let filter_bits = |bits: &BooleanBuffer| {
            arrow_select::filter::filter(&BooleanArray::new(bits.clone(), None), keep).map(
                |array| {
                    array
                        .as_any()
                        .downcast_ref::<BooleanArray>()
                        .expect("filtering booleans gives booleans")
                        .values()
                        .clone()
                },
            )
        };
        let kept = |index: &usize| keep.is_valid(*index) && keep.value(*index);
        fn pick<T: Copy>(values: &[T], kept: impl Fn(&usize) -> bool) -> Vec<T> {
            (0..values.len()).filter(kept).map(|index| values[index]).collect()
        }
        Ok(Self {
            columns,
            presence: self
                .presence
                .iter()
                .map(|bits| bits.as_ref().map(filter_bits).transpose())
                .collect::<Result<_, _>>()?,
            ids: match &self.ids {
                Ids::Positions { prefix } => Ids::Positions { prefix: prefix.clone() },
                Ids::Explicit(ids) => Ids::Explicit(
                    arrow_select::filter::filter(ids, keep)?
                        .as_any()
                        .downcast_ref::<StringArray>()
                        .expect("filtering texts gives texts")
                        .clone(),
                ),
            },
            positions: pick(&self.positions, kept),
            extraction_base: self.extraction_base,
            versions: self.versions.as_ref().map(|versions| pick(versions, kept)),
            operations: self.operations.as_ref().map(|operations| pick(operations, kept)),
        })
    }

    /// Returns the records from `offset` on, `length` of them, in the same order.
    ///
    /// # Panics
    ///
    /// When the range ends after the last record.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        let range = offset..offset + length;
        Self {
            columns: self.columns.slice(offset, length),
            presence: self
                .presence
                .iter()
                .map(|bits| bits.as_ref().map(|bits| bits.slice(offset, length)))
                .collect(),
            ids: match &self.ids {
                Ids::Positions { prefix } => Ids::Positions { prefix: prefix.clone() },
                Ids::Explicit(ids) => Ids::Explicit(ids.slice(offset, length)),
            },
            positions: self.positions[range.clone()].to_vec(),
            extraction_base: self.extraction_base,
            versions: self.versions.as_ref().map(|versions| versions[range.clone()].to_vec()),
            operations: self.operations.as_ref().map(|operations| operations[range].to_vec()),
        }
    }

    /// Checks that all parts fit each other.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] names the first part that does not.
    pub fn validate(&self) -> Result<(), ShapeError> {
        let expected = self.len();
        let check = |part: &'static str, found: usize| {
            if found == expected {
                Ok(())
            } else {
                Err(ShapeError::Length { part, found, expected })
            }
        };
        check("positions", self.positions.len())?;
        if let Ids::Explicit(ids) = &self.ids {
            check("ids", ids.len())?;
        }
        if let Some(versions) = &self.versions {
            check("versions", versions.len())?;
        }
        if let Some(operations) = &self.operations {
            check("operations", operations.len())?;
        }
        for bits in self.presence.iter().flatten() {
            check("presence", bits.len())?;
        }
        let schema = self.columns.schema();
        let mut names = std::collections::HashSet::new();
        for field in schema.fields() {
            if FieldType::of(field).is_none() {
                return Err(ShapeError::Type(field.name().clone()));
            }
            if !names.insert(field.name()) {
                return Err(ShapeError::Repeated(field.name().clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    fn three() -> Records {
        let schema = arrow_schema::Schema::new(vec![FieldType::Integer.arrow_field("n")]);
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(10), None, Some(30)]));
        Records {
            columns: RecordBatch::try_new(Arc::new(schema), vec![values]).unwrap(),
            presence: vec![Some(BooleanBuffer::from(vec![true, false, true]))],
            ids: Ids::Positions { prefix: "f:".to_owned() },
            positions: vec![2, 3, 4],
            extraction_base: 1_000,
            versions: None,
            operations: Some(vec![Operation::Upsert, Operation::Patch, Operation::Delete]),
        }
    }

    #[test]
    fn filtering_keeps_what_belongs_to_a_record_together() {
        let kept = three().filter(&BooleanArray::from(vec![false, true, true])).unwrap();
        kept.validate().unwrap();
        assert_eq!((kept.id(0), kept.id(1)), ("f:3".to_owned(), "f:4".to_owned()));
        assert_eq!(kept.version(1), (1_004, 1_004));
        assert_eq!(kept.operation(0), Operation::Patch);
        assert!(!kept.is_present(0, 0));
        assert!(kept.is_present(0, 1));
    }

    #[test]
    fn slicing_keeps_what_belongs_to_a_record_together() {
        let last = three().slice(2, 1);
        last.validate().unwrap();
        assert_eq!(last.id(0), "f:4");
        assert_eq!(last.operation(0), Operation::Delete);
    }

    #[test]
    fn a_part_of_another_length_is_found() {
        let mut records = three();
        records.positions.pop();
        assert!(matches!(records.validate(), Err(ShapeError::Length { part: "positions", .. })));
    }
}
