//! Records of a CSV text as Arrow columns.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use memchr::memchr_iter;
use model::FieldType;

use super::scanner::{Kind, Span};
use crate::files::TextColumn;

/// Columns under construction. All columns are text and have one entry per record.
pub(super) struct Table {
    schema: Arc<arrow_schema::Schema>,
    columns: Vec<TextColumn>,
    quote: u8,
    null_values: Vec<Vec<u8>>,
    /// The length of no null value is above this.
    longest_null: usize,
}

impl Table {
    pub(super) fn new(names: &[String], quote: Option<u8>, null_values: &[String]) -> Self {
        let fields: Vec<_> = names.iter().map(|name| FieldType::Text.arrow_field(name)).collect();
        Self {
            columns: names.iter().map(|_| TextColumn::with_capacity(0, 0)).collect(),
            schema: Arc::new(arrow_schema::Schema::new(fields)),
            quote: quote.unwrap_or(0),
            longest_null: null_values.iter().map(String::len).max().unwrap_or(0),
            null_values: null_values.iter().map(|text| text.clone().into_bytes()).collect(),
        }
    }

    /// Returns the number of fields of a record.
    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Returns the names of all columns.
    pub(super) fn names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Returns the name of the column at `index`, or nothing behind the last one.
    pub(super) fn name(&self, index: usize) -> &str {
        self.schema.fields().get(index).map_or("", |field| field.name())
    }

    /// Appends the fields of a record, as many as there are columns. The text is UTF-8.
    pub(super) fn push(&mut self, record: &[u8], fields: &[Span]) {
        for (column, field) in self.columns.iter_mut().zip(fields) {
            let text = &record[field.start..field.end];
            match field.kind {
                Kind::Plain if text.is_empty() => column.push_null(),
                Kind::Plain
                    if text.len() <= self.longest_null
                        && self.null_values.iter().any(|null| null == text) =>
                {
                    column.push_null();
                }
                Kind::Plain | Kind::Quoted => {
                    column.extend(text);
                    column.end();
                }
                Kind::Escaped => {
                    unescape(text, self.quote, |piece| column.extend(piece));
                    column.end();
                }
            }
        }
    }

    /// Returns what was appended since the last call.
    pub(super) fn take(&mut self, records: usize) -> RecordBatch {
        let columns: Vec<ArrayRef> = self
            .columns
            .iter_mut()
            .map(|column| {
                let empty = TextColumn::with_capacity(records, column.bytes());
                Arc::new(std::mem::replace(column, empty).finish()) as ArrayRef
            })
            .collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .expect("every record appends to every column")
    }
}

/// Gives the pieces of a quoted text, of which every second quote of a pair is left out.
pub(super) fn unescape(text: &[u8], quote: u8, mut piece: impl FnMut(&[u8])) {
    let mut start = 0;
    for at in memchr_iter(quote, text) {
        if at >= start {
            piece(&text[start..=at]);
            start = at + 2;
        }
    }
    if start < text.len() {
        piece(&text[start..]);
    }
}
