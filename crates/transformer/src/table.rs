use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_buffer::BooleanBuffer;
use arrow_select::filter::{FilterBuilder, FilterPredicate};
use model::{FieldType, Operation};

use crate::outcome::Refused;

/// Why one record cannot go on, before its place is known.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) row: usize,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) field: String,
}

/// The values of one field.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) field_type: FieldType,
    pub(crate) values: ArrayRef,
    /// Which records carry the field; `None`: all do. An absent value is null in `values`.
    pub(crate) presence: Option<BooleanBuffer>,
}

/// The records of a batch on their way through the steps.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    /// Index in the batch of each record that is left.
    pub(crate) origins: Vec<usize>,
    /// Records that a step took out on purpose.
    pub(crate) filtered: usize,
    pub(crate) refused: Vec<Refused>,
    /// Operation of each record of the batch; empty: all are upserts. A delete needs no more than its
    /// key, so no step takes it out for values that it does not carry.
    operations: Vec<Operation>,
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>, rows: usize) -> Self {
        Self {
            columns,
            origins: (0..rows).collect(),
            filtered: 0,
            refused: Vec::new(),
            operations: Vec::new(),
        }
    }

    pub(crate) fn with_operations(mut self, operations: Option<&[Operation]>) -> Self {
        self.operations = operations.unwrap_or_default().to_vec();
        self
    }

    fn operation(&self, row: usize) -> Operation {
        self.operations.get(self.origins[row]).copied().unwrap_or_default()
    }

    fn is_delete(&self, row: usize) -> bool {
        self.operation(row) == Operation::Delete
    }

    /// Tells which records leave alone what they do not carry; `None`: none does.
    pub(crate) fn patches(&self) -> Option<BooleanBuffer> {
        let patches = |row| self.operation(row) == Operation::Patch;
        (0..self.len()).any(patches).then(|| (0..self.len()).map(patches).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.origins.len()
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Puts a column in the place of the one of its name, or at the end.
    pub(crate) fn set(&mut self, column: Column) {
        match self.position(&column.name) {
            Some(index) => self.columns[index] = column,
            None => self.columns.push(column),
        }
    }

    /// Takes out what a step has refused. The first reason of a record counts. What a step cannot make
    /// of a record that deletes stays null there.
    pub(crate) fn refuse(&mut self, mut refusals: Vec<Refusal>, step: &str) {
        if !step.is_empty() {
            refusals.retain(|refusal| !self.is_delete(refusal.row));
        }
        if refusals.is_empty() {
            return;
        }
        refusals.sort_by_key(|refusal| refusal.row);
        refusals.dedup_by_key(|refusal| refusal.row);
        let mut keep = vec![true; self.len()];
        for refusal in refusals {
            keep[refusal.row] = false;
            self.refused.push(Refused {
                index: self.origins[refusal.row],
                code: refusal.code,
                message: refusal.message,
                step: step.to_owned(),
                field: refusal.field,
            });
        }
        self.keep(&BooleanArray::from(keep));
    }

    /// Takes out the records for which `keep` is not true, on purpose.
    pub(crate) fn filter(&mut self, keep: &BooleanArray) {
        let before = self.len();
        if keep.null_count() > 0 || keep.has_false() {
            self.keep(keep);
        }
        self.filtered += before - self.len();
    }

    /// Takes out, on purpose, the records for which `keep` is not true, and what a step has refused.
    pub(crate) fn filter_and_refuse(
        &mut self,
        keep: BooleanArray,
        refusals: Vec<Refusal>,
        step: &str,
    ) {
        let mut keep: Vec<bool> = keep
            .values()
            .iter()
            .enumerate()
            .map(|(row, keep)| keep || self.is_delete(row))
            .collect();
        let mut refused = vec![false; self.len()];
        let refusals: Vec<_> =
            refusals.into_iter().filter(|refusal| !self.is_delete(refusal.row)).collect();
        for refusal in &refusals {
            refused[refusal.row] = true;
        }
        // Refusing first moves the records behind; the mask moves along.
        let mut row = 0;
        keep.retain(|_| {
            row += 1;
            !refused[row - 1]
        });
        self.refuse(refusals, step);
        self.filter(&BooleanArray::from(keep));
    }

    fn keep(&mut self, keep: &BooleanArray) {
        let predicate = FilterBuilder::new(keep).optimize().build();
        for column in &mut self.columns {
            column.values =
                predicate.filter(&column.values).expect("all columns have one value per record");
            if let Some(presence) = &column.presence {
                column.presence = Some(filter_bits(presence, &predicate));
            }
        }
        let mut row = 0;
        self.origins.retain(|_| {
            row += 1;
            keep.is_valid(row - 1) && keep.value(row - 1)
        });
    }
}

fn filter_bits(bits: &BooleanBuffer, predicate: &FilterPredicate) -> BooleanBuffer {
    let kept = predicate
        .filter(&BooleanArray::new(bits.clone(), None))
        .expect("presence has one bit per record");
    arrow_array::cast::AsArray::as_boolean(kept.as_ref()).values().clone()
}

/// Tells which records carry one of the fields; `None`: all do.
pub(crate) fn any_present<'a>(
    mut presences: impl Iterator<Item = Option<&'a BooleanBuffer>>,
) -> Option<BooleanBuffer> {
    let first = presences.next()??.clone();
    let mut any = first;
    for presence in presences {
        any = &any | presence?;
    }
    Some(any)
}
