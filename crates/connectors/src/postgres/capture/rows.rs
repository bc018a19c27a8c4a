//! Changes on their way to records.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, builder::StringBuilder,
};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use connect::{Error, Limits, RefusedRaw};
use model::{Ids, Operation, Records};
use sqlx::PgConnection;

use super::{
    super::{decode::Builder, error::whole},
    message::{Tuple, Value},
    value::{Cell, Column, Unfit},
};
use crate::sql::{
    quote::statement,
    reader::{Problem, raw},
};

/// The columns of the table at some place in the log.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) columns: Vec<Column>,
    /// Per column, whether the log tells its value of a deleted row.
    pub(super) identity: Vec<bool>,
    /// Indices of the key.
    pub(super) key: Vec<usize>,
}

/// A record to take.
pub(super) struct Change<'a> {
    pub(super) values: &'a Tuple<'a>,
    pub(super) deletes: bool,
    /// The values are those of the identity; all others are unknown.
    pub(super) only_identity: bool,
    pub(super) id: String,
    pub(super) position: u64,
}

/// Records in the making, all of one layout.
pub(super) struct Rows {
    pub(super) layout: Arc<Layout>,
    builders: Vec<Builder>,
    present: Vec<BooleanBufferBuilder>,
    ids: StringBuilder,
    positions: Vec<u64>,
    operations: Vec<Operation>,
    refused: Vec<RefusedRaw>,
    bytes: usize,
}

impl Rows {
    pub(super) fn new(layout: Arc<Layout>) -> Self {
        let columns = &layout.columns;
        Self {
            builders: columns.iter().map(|column| Builder::new(column.format)).collect(),
            present: columns.iter().map(|_| BooleanBufferBuilder::new(0)).collect(),
            layout,
            ids: StringBuilder::new(),
            positions: Vec::new(),
            operations: Vec::new(),
            refused: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.refused.is_empty()
    }

    pub(super) fn is_full(&self, limits: Limits) -> bool {
        self.bytes >= limits.chunk_bytes
            || self.positions.len() + self.refused.len() >= limits.chunk_records
    }

    /// Takes a change, or sets it aside.
    pub(super) fn take(&mut self, change: Change<'_>, limits: Limits) {
        let layout = Arc::clone(&self.layout);
        let size = size(change.values);
        let read = if size > limits.record_bytes {
            Err(Problem::size(limits.record_bytes))
        } else {
            read(&layout, &change)
        };
        match read {
            Ok(cells) => {
                self.bytes += size + 8 * cells.len() + change.id.len();
                let mut absent = false;
                for ((builder, present), cell) in
                    self.builders.iter_mut().zip(&mut self.present).zip(&cells)
                {
                    present.append(cell.is_some());
                    absent |= cell.is_none();
                    builder.append_cell(cell.as_ref().unwrap_or(&Cell::Null));
                }
                self.ids.append_value(change.id);
                self.positions.push(change.position);
                self.operations.push(match (change.deletes, absent) {
                    (true, _) => Operation::Delete,
                    (false, true) => Operation::Patch,
                    (false, false) => Operation::Upsert,
                });
            }
            Err(problem) => self.refuse(&change, problem, limits.record_bytes),
        }
    }

    fn refuse(&mut self, change: &Change<'_>, problem: Problem, most: usize) {
        let texts = self.layout.columns.iter().zip(change.values).map(|(column, value)| {
            let text = match value {
                Value::Text(bytes) => {
                    Some(String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned())
                }
                Value::Null | Value::Unchanged => None,
            };
            (column.name.as_str(), text)
        });
        let raw = raw(texts, most);
        self.bytes += raw.len();
        self.refused.push(RefusedRaw {
            id: change.id.clone(),
            position: change.position,
            code: problem.code,
            message: problem.message,
            field: problem.field,
            raw,
        });
    }

    /// Returns what was taken and begins anew.
    ///
    /// # Errors
    ///
    /// When the server cannot make values of their texts.
    pub(super) async fn finish(
        &mut self,
        extraction_base: i64,
        connection: Option<&mut PgConnection>,
        what: &str,
    ) -> Result<(Records, Vec<RefusedRaw>), Error> {
        let mut done = std::mem::replace(self, Self::new(Arc::clone(&self.layout)));
        let count = done.positions.len();
        let columns = &done.layout.columns;
        let mut values: Vec<ArrayRef> = done.builders.iter_mut().map(Builder::finish).collect();
        if let Some(connection) = connection.filter(|_| count > 0) {
            for (column, values) in columns.iter().zip(&mut values) {
                if let Some(expression) = &column.convert {
                    *values = convert(connection, expression, values)
                        .await
                        .map_err(|error| whole(what, error))?;
                }
            }
        }
        let fields: Vec<_> =
            columns.iter().map(|column| column.field_type().arrow_field(&column.name)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = Arc::new(arrow_schema::Schema::new(fields));
        let columns = RecordBatch::try_new_with_options(schema, values, &options)
            .map_err(|cause| Error::stop(what, "report this").because(cause))?;
        let upserts = done.operations.iter().all(|operation| *operation == Operation::Upsert);
        let records = Records {
            columns,
            presence: done.present.iter_mut().map(|bits| some_absent(bits.finish())).collect(),
            ids: Ids::Explicit(done.ids.finish()),
            positions: done.positions,
            extraction_base,
            versions: None,
            operations: (!upserts).then_some(done.operations),
        };
        Ok((records, done.refused))
    }
}

impl Layout {
    /// Tells whether the server is needed to make values of texts.
    pub(super) fn converts(&self) -> bool {
        self.columns.iter().any(|column| column.convert.is_some())
    }

    /// Returns the values of the key.
    pub(super) fn key_of<'a>(&self, values: &Tuple<'a>) -> Vec<Value<'a>> {
        self.key.iter().map(|index| values[*index]).collect()
    }
}

fn some_absent(bits: BooleanBuffer) -> Option<BooleanBuffer> {
    Some(bits).filter(|bits| bits.count_set_bits() < bits.len())
}

fn size(values: &Tuple<'_>) -> usize {
    let size = |value: &Value<'_>| match value {
        Value::Text(bytes) => bytes.len(),
        Value::Null | Value::Unchanged => 0,
    };
    values.iter().map(size).sum()
}

/// Reads the values that the log tells; `None` for the others.
fn read<'a>(layout: &Layout, change: &Change<'a>) -> Result<Vec<Option<Cell<'a>>>, Problem> {
    let mut cells = Vec::with_capacity(layout.columns.len());
    for (index, (column, value)) in layout.columns.iter().zip(change.values).enumerate() {
        cells.push(match value {
            _ if change.only_identity && !layout.identity[index] => None,
            Value::Unchanged => None,
            Value::Null if layout.key.contains(&index) => {
                let what = "is part of the key and has no value";
                return Err(Problem::of("key", &column.name, what));
            }
            Value::Null => Some(Cell::Null),
            Value::Text(bytes) => Some(column.read(bytes).map_err(|unfit| match unfit {
                Unfit::Range => Problem::of("range", &column.name, "is infinite or not a number"),
                Unfit::Unreadable => {
                    Problem::of("type", &column.name, "is not written as its type is")
                }
            })?),
        });
    }
    Ok(cells)
}

/// Lets the server make values of their texts.
async fn convert(
    connection: &mut PgConnection,
    expression: &str,
    values: &ArrayRef,
) -> Result<ArrayRef, sqlx::Error> {
    let texts: Vec<Option<String>> = values
        .as_any()
        .downcast_ref::<StringArray>()
        .map(|texts| texts.iter().map(|text| text.map(str::to_owned)).collect())
        .unwrap_or_default();
    let sql = format!(
        "select {expression} from unnest($1::text[]) with ordinality as u (v, n) order by n"
    );
    let converted: Vec<Option<String>> =
        sqlx::query_scalar(statement(sql)).bind(texts).fetch_all(connection).await?;
    Ok(Arc::new(StringArray::from(converted)))
}
