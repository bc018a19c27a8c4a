//! Records of a JSON text as Arrow columns.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use model::FieldType;

use super::object::Member;
use crate::files::TextColumn;

/// Columns under construction: one per field that a record had, in the order in which they came.
#[derive(Default)]
pub(super) struct Table {
    columns: Vec<Column>,
    index: HashMap<String, usize>,
    records: usize,
    bytes: usize,
}

struct Column {
    name: String,
    values: TextColumn,
    present: BooleanBufferBuilder,
    absent: usize,
}

impl Column {
    fn new(name: &str, absent: usize) -> Self {
        let mut column = Self {
            name: name.to_owned(),
            values: TextColumn::with_capacity(absent, 0),
            present: BooleanBufferBuilder::new(absent),
            absent: 0,
        };
        for _ in 0..absent {
            column.push_absent();
        }
        column
    }

    fn push_absent(&mut self) {
        self.values.push_null();
        self.present.append(false);
        self.absent += 1;
    }

    fn push(&mut self, value: &str) {
        if value == "null" {
            self.values.push_null();
        } else {
            self.values.extend(value.as_bytes());
            self.values.end();
        }
        self.present.append(true);
    }
}

impl Table {
    /// Returns the rough size that the table would have with one more record. Fields that only some
    /// records have count in all of them, for they take room in all of them.
    pub(super) fn bytes_with(&self, members: &[Member<'_>]) -> usize {
        let new = members
            .iter()
            .enumerate()
            .filter(|(place, member)| self.find(*place, &member.name).is_none())
            .count();
        let cells = (self.columns.len() + new) * (self.records + 1);
        let values: usize = members.iter().map(|member| member.value.len()).sum();
        self.bytes + values + cells
    }

    /// Appends a record.
    pub(super) fn push(&mut self, members: &[Member<'_>]) {
        for (place, Member { name, value }) in members.iter().enumerate() {
            let column = self.find(place, name).unwrap_or_else(|| self.add(name));
            self.columns[column].push(value);
            self.bytes += value.len();
        }
        self.records += 1;
        for column in &mut self.columns {
            if column.values.len() < self.records {
                column.push_absent();
            }
        }
    }

    /// Returns the number of columns.
    pub(super) fn fields(&self) -> usize {
        self.columns.len()
    }

    /// Returns the columns and which records carry them.
    pub(super) fn finish(self) -> (RecordBatch, Vec<Option<BooleanBuffer>>) {
        let mut fields = Vec::with_capacity(self.columns.len());
        let mut presence = Vec::with_capacity(self.columns.len());
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for mut column in self.columns {
            fields.push(FieldType::Json.arrow_field(&column.name));
            presence.push((column.absent > 0).then(|| column.present.finish()));
            arrays.push(Arc::new(column.values.finish()));
        }
        // Records may have no field at all.
        let options = RecordBatchOptions::new().with_row_count(Some(self.records));
        let schema = Arc::new(arrow_schema::Schema::new(fields));
        let columns = RecordBatch::try_new_with_options(schema, arrays, &options)
            .expect("every record appends to every column");
        (columns, presence)
    }

    /// Finds a column. Records mostly have the same fields at the same places.
    fn find(&self, place: usize, name: &str) -> Option<usize> {
        match self.columns.get(place) {
            Some(column) if column.name == name => Some(place),
            _ => self.index.get(name).copied(),
        }
    }

    fn add(&mut self, name: &str) -> usize {
        let index = self.columns.len();
        self.columns.push(Column::new(name, self.records));
        self.index.insert(name.to_owned(), index);
        index
    }
}
