//! Records of one shape, in the order in which they are written.

use std::{collections::HashMap, ops::Range, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Date32Type, Float64Type, TimestampMicrosecondType},
};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use connect::{Error, Refused, Written};
use model::{Batch, FieldType, Operation};
use spec::Deletes;

use super::{merge::Layout, plan::Incoming, session::Dialect, settings::Settings, shape::Fit};

/// Records of consecutive batches that have the same fields.
pub(crate) struct Unit<'a> {
    pub(crate) columns: RecordBatch,
    pub(crate) fields: Vec<Incoming>,
    presence: Vec<Option<BooleanBuffer>>,
    /// Version and extraction time of each record.
    pub(crate) versions: Vec<(i64, i64)>,
    /// Batch of each record and index in that batch.
    pub(crate) origins: Vec<(u32, u32)>,
    operations: Option<Vec<Operation>>,
    batches: &'a [Batch],
}

/// Rows of a [`Unit`] that one statement writes: a range of [`Order::rows`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) rows: Range<usize>,
    pub(crate) delete: bool,
    /// Per column, whether the rows carry it.
    pub(crate) present: Arc<[bool]>,
}

/// In which order the rows of a [`Unit`] are written.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// The rows to write, older ones of a key first, each group by key.
    pub(crate) rows: Vec<u32>,
    pub(crate) groups: Vec<Group>,
    /// Rows that are refused but whose key has been seen.
    pub(crate) refused: Vec<u32>,
}

impl Order {
    /// Cuts the order in two, each with at least one row; `None` for fewer than two rows.
    pub(crate) fn split(mut self) -> Option<(Self, Self)> {
        let middle = self.rows.len() / 2;
        if middle == 0 {
            return None;
        }
        let mut second = Self {
            rows: self.rows.split_off(middle),
            groups: Vec::new(),
            refused: std::mem::take(&mut self.refused),
        };
        let groups = std::mem::take(&mut self.groups);
        for Group { rows, delete, present } in groups {
            let cut = |rows: Range<usize>| Group { rows, delete, present: Arc::clone(&present) };
            if rows.start < middle {
                self.groups.push(cut(rows.start..rows.end.min(middle)));
            }
            if rows.end > middle {
                let start = rows.start.max(middle) - middle;
                second.groups.push(cut(start..rows.end - middle));
            }
        }
        Some((self, second))
    }
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

    fn deletes(&self, row: usize) -> bool {
        self.operations.as_ref().is_some_and(|operations| operations[row] == Operation::Delete)
    }

    fn present(&self, row: usize) -> Vec<bool> {
        self.presence.iter().map(|bits| bits.as_ref().is_none_or(|bits| bits.value(row))).collect()
    }

    /// Puts the records in order, and reports those that need not or cannot be written.
    pub(crate) fn order(
        &self,
        settings: &Settings,
        layout: &Layout,
        dialect: &dyn Dialect,
        tally: &mut Tally,
    ) -> Order {
        let mut refused = Refusals { unit: self, tally, is_refused: vec![false; self.len()] };
        let mut without_key = vec![false; self.len()];
        for &column in &layout.key {
            let values = self.columns.column(column);
            let name = self.fields[column].name.name();
            for (row, without_key) in without_key.iter_mut().enumerate() {
                let absent = self.presence[column].as_ref().is_some_and(|bits| !bits.value(row));
                if absent || values.is_null(row) {
                    *without_key = true;
                    refused.add(
                        row,
                        "key",
                        format!("`{name}` is part of the key and has no value"),
                        name,
                    );
                }
            }
        }
        for (column, placed) in layout.columns.iter().enumerate() {
            self.check_column(
                column,
                placed.fit,
                &placed.declared,
                dialect,
                &mut |row, code, message| {
                    if !self.deletes(row) || layout.key.contains(&column) {
                        if layout.key.contains(&column) {
                            without_key[row] = true;
                        }
                        refused.add(row, code, message, self.fields[column].name.name());
                    }
                },
            );
        }
        let is_refused = refused.is_refused;
        let mut rows = Vec::with_capacity(self.len());
        let mut refused = Vec::new();
        for (row, number) in (0..self.len()).zip(0_u32..) {
            if is_refused[row] {
                if !without_key[row] {
                    refused.push(number);
                }
            } else if settings.deletes == Deletes::Ignore && self.deletes(row) {
                tally.unchanged(self.origins[row], 1);
            } else {
                rows.push(number);
            }
        }
        let keys = if settings.appends() {
            Keys::of_ids(self, &rows)
        } else {
            Keys::of_columns(self, &layout.key, &rows)
        };
        let mut order = if keys.ascend() && self.is_uniform() {
            Order {
                groups: vec![Group {
                    rows: 0..rows.len(),
                    delete: false,
                    present: vec![true; self.fields.len()].into(),
                }],
                rows,
                refused: Vec::new(),
            }
        } else {
            self.sort(&rows, &keys, tally)
        };
        order.groups.retain(|group| !group.rows.is_empty());
        order.refused = refused;
        order
    }

    /// All records carry all fields and are upserts.
    fn is_uniform(&self) -> bool {
        !self.has_deletes() && self.presence.iter().all(Option::is_none)
    }

    fn sort(&self, rows: &[u32], keys: &Keys, tally: &mut Tally) -> Order {
        let mut sorted: Vec<usize> = (0..rows.len()).collect();
        sorted.sort_by(|&a, &b| {
            let version = |at: usize| (self.versions[rows[at] as usize], rows[at]);
            keys.get(a).cmp(keys.get(b)).then_with(|| version(a).cmp(&version(b)))
        });
        let uniform = self.is_uniform();
        let full: Arc<[bool]> = vec![true; self.fields.len()].into();
        let mut patterns: HashMap<(bool, Arc<[bool]>), usize> = HashMap::new();
        let mut entries: Vec<(usize, usize, u32)> = Vec::with_capacity(rows.len());
        let mut start = 0;
        while start < sorted.len() {
            let mut end = start + 1;
            while end < sorted.len() && keys.get(sorted[end]) == keys.get(sorted[start]) {
                end += 1;
            }
            let mut kept: Vec<(u32, bool, Arc<[bool]>)> = Vec::new();
            let mut covered: Option<Vec<bool>> = None;
            for &at in sorted[start..end].iter().rev() {
                let row = rows[at];
                let delete = !uniform && self.deletes(row as usize);
                let present = if uniform || delete {
                    Arc::clone(&full)
                } else {
                    self.present(row as usize).into()
                };
                let superseded = covered.as_ref().is_some_and(|covered| {
                    present.iter().zip(covered).all(|(own, by)| !own || *by)
                });
                if superseded {
                    tally.unchanged(self.origins[row as usize], 1);
                    continue;
                }
                let covered = covered.get_or_insert_with(|| vec![false; full.len()]);
                for (by, own) in covered.iter_mut().zip(&*present) {
                    *by |= own;
                }
                kept.push((row, delete, present));
            }
            for (round, (row, delete, present)) in kept.into_iter().rev().enumerate() {
                let next = patterns.len();
                let pattern = *patterns.entry((delete, present)).or_insert(next);
                entries.push((round, pattern, row));
            }
            start = end;
        }
        // Stable, so that rows of a group stay in the order of their keys.
        entries.sort_by_key(|(round, pattern, _)| (*round, *pattern));
        let mut by_number: Vec<_> =
            patterns.into_iter().map(|(key, number)| (number, key)).collect();
        by_number.sort_by_key(|(number, _)| *number);
        let mut order = Order::default();
        for (at, (round, pattern, row)) in entries.iter().enumerate() {
            let same = at > 0 && (entries[at - 1].0, entries[at - 1].1) == (*round, *pattern);
            match order.groups.last_mut() {
                Some(group) if same => group.rows.end = at + 1,
                _ => {
                    let (delete, present) = &by_number[*pattern].1;
                    order.groups.push(Group {
                        rows: at..at + 1,
                        delete: *delete,
                        present: Arc::clone(present),
                    });
                }
            }
            order.rows.push(*row);
        }
        order
    }

    /// Reports values that the database cannot hold in that column.
    fn check_column(
        &self,
        column: usize,
        fit: Fit,
        declared: &str,
        dialect: &dyn Dialect,
        refuse: &mut dyn FnMut(usize, &'static str, String),
    ) {
        let values = self.columns.column(column);
        let name = self.fields[column].name.name();
        let field_type = self.fields[column].field_type;
        match fit {
            Fit::Misfit => {
                for row in (0..self.len()).filter(|row| values.is_valid(*row)) {
                    refuse(
                        row,
                        "type",
                        format!("`{name}` is {field_type}, but the column is {declared}"),
                    );
                }
                return;
            }
            Fit::Scale(kept) => {
                for row in rows_with_more_digits(values, field_type, kept) {
                    refuse(
                        row,
                        "type",
                        format!(
                            "`{name}` has more than {kept} digits behind the point, but the column is {declared}"
                        ),
                    );
                }
            }
            Fit::Same | Fit::Cast => {}
        }
        match field_type {
            FieldType::Text | FieldType::Json => {
                for row in rows_with_nul(values.as_string()) {
                    refuse(row, "nul", format!("`{name}` holds the character U+0000"));
                }
            }
            FieldType::Timestamp => {
                let values = values.as_primitive::<TimestampMicrosecondType>();
                for (row, value) in values.iter().enumerate() {
                    if value.is_some_and(|value| !dialect.in_range(field_type, value)) {
                        refuse(
                            row,
                            "range",
                            format!("`{name}` is a time that the database cannot hold"),
                        );
                    }
                }
            }
            FieldType::Date => {
                let values = values.as_primitive::<Date32Type>();
                for (row, value) in values.iter().enumerate() {
                    if value.is_some_and(|value| !dialect.in_range(field_type, i64::from(value))) {
                        refuse(
                            row,
                            "range",
                            format!("`{name}` is a date that the database cannot hold"),
                        );
                    }
                }
            }
            _ => {}
        }
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

fn rows_with_nul(values: &StringArray) -> Vec<usize> {
    let offsets = values.value_offsets();
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
        return Vec::new();
    };
    let bytes = |at: i32| usize::try_from(at).unwrap_or(0);
    if memchr::memchr(0, &values.value_data()[bytes(*first)..bytes(*last)]).is_none() {
        return Vec::new();
    }
    (0..values.len())
        .filter(|row| values.is_valid(*row) && values.value(*row).contains('\0'))
        .collect()
}

fn rows_with_more_digits(values: &ArrayRef, field_type: FieldType, kept: u8) -> Vec<usize> {
    let FieldType::Decimal { scale, .. } = field_type else {
        return Vec::new();
    };
    let unit = 10_i128.pow(u32::from(scale.saturating_sub(kept)));
    let values: &Decimal128Array = values.as_primitive();
    (0..values.len())
        .filter(|row| values.is_valid(*row) && values.value(*row) % unit != 0)
        .collect()
}

/// Marks records as refused, each for its first reason.
struct Refusals<'a, 'b> {
    unit: &'a Unit<'a>,
    tally: &'b mut Tally,
    is_refused: Vec<bool>,
}

impl Refusals<'_, '_> {
    fn add(&mut self, row: usize, code: &'static str, message: String, field: &str) {
        if !std::mem::replace(&mut self.is_refused[row], true) {
            self.tally.refuse(self.unit.origins[row], code, message, field.to_owned());
        }
    }
}

/// What became of the records of each batch.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    batches: Vec<Written>,
}

impl Tally {
    pub(crate) fn new(batches: usize) -> Self {
        Self { batches: vec![Written::default(); batches] }
    }

    pub(crate) fn loaded(&mut self, batch: u32, count: u32) {
        self.batches[batch as usize].loaded += count;
    }

    pub(crate) fn unchanged(&mut self, (batch, _): (u32, u32), count: u32) {
        self.batches[batch as usize].unchanged += count;
    }

    /// Takes some records of a batch, which were taken for unchanged, for loaded.
    pub(crate) fn changed(&mut self, batch: i64, count: i64) {
        let count = u32::try_from(count).unwrap_or(0);
        let batch = usize::try_from(batch).unwrap_or(usize::MAX);
        if let Some(written) = self.batches.get_mut(batch) {
            written.loaded += count;
            written.unchanged -= count;
        }
    }

    pub(crate) fn refuse(
        &mut self,
        (batch, index): (u32, u32),
        code: &'static str,
        message: String,
        field: String,
    ) {
        self.batches[batch as usize].refused.push(Refused {
            index: index as usize,
            code,
            message,
            field,
        });
    }

    pub(crate) fn finish(mut self) -> Vec<Written> {
        for written in &mut self.batches {
            written.refused.sort_by_key(|refused| refused.index);
        }
        self.batches
    }
}

/// The keys of some rows as bytes that sort as the numbers and texts do, as far as it is cheap.
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    fn of_ids(unit: &Unit<'_>, rows: &[u32]) -> Self {
        Self::collect(rows, |row, bytes| bytes.extend_from_slice(unit.id(row).as_bytes()))
    }

    fn of_columns(unit: &Unit<'_>, columns: &[usize], rows: &[u32]) -> Self {
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

    fn get(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[at]]
    }

    fn ascend(&self) -> bool {
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
