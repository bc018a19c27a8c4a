use std::sync::Arc;

use arrow_array::{Array, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_buffer::BooleanBuffer;
use arrow_schema::Schema as ArrowSchema;
use model::{Field, Records, Schema};
use spec::{Pipeline, Source};

use crate::{
    CompileError,
    outcome::{Outcome, Stop},
    steps::Prepared,
    table::{Refusal, Table},
    typing::Typing,
    versions,
};

/// A pipeline's typing and steps, ready for many batches.
#[derive(Debug)]
pub struct Program {
    typing: Typing,
    steps: Vec<Prepared>,
    key: Vec<String>,
    newest_by: Option<String>,
    fields: Vec<Field>,
}

impl Program {
    /// Prepares a pipeline for records that `schema` describes. `variables` looks up the environment
    /// variables of secrets.
    ///
    /// # Errors
    ///
    /// When steps and schema do not fit each other, or a secret cannot be resolved.
    pub fn compile(
        pipeline: &Pipeline,
        schema: &Schema,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, CompileError> {
        let fields = spec::fields_after(pipeline, schema).map_err(CompileError::Problems)?;
        let strict = match pipeline.source {
            // The extractor looks at files; what is pushed has any fields.
            Source::Csv(_) => pipeline.triggers.push.is_none(),
            Source::Http(_)
            | Source::Json(_)
            | Source::Postgres(_)
            | Source::Push
            | Source::Sqlite(_) => false,
        };
        let steps = pipeline
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| Prepared::new(index, step, pipeline, variables))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            typing: Typing::new(schema, pipeline.contract, strict),
            steps,
            key: pipeline.key.clone(),
            newest_by: pipeline.newest_by.clone(),
            fields,
        })
    }

    /// Returns the fields after all steps, as far as the contract adds none.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Types the records and runs all steps.
    ///
    /// Whether a record speaks of a field at all goes with the field through every step: rename,
    /// cast and the steps on texts keep it; `default` makes the field present; a field that is made
    /// of others is present where one of them is. `columns` names are unique in what comes out.
    #[must_use]
    pub fn apply(&self, records: &Records) -> Outcome {
        let typed = match self.typing.apply(records) {
            Ok(typed) => typed,
            Err(stop) => return stopped(records, stop),
        };
        let mut table =
            Table::new(typed.columns, records.len()).with_operations(records.operations.as_deref());
        table.refuse(typed.refusals, "");
        for step in &self.steps {
            step.apply(&mut table);
        }
        self.check_key(&mut table);
        self.finish(records, table, typed.notes)
    }

    fn check_key(&self, table: &mut Table) {
        let mut refusals = Vec::new();
        for name in &self.key {
            let nulls = table.column(name).and_then(|column| column.values.nulls());
            let Some(nulls) = nulls else { continue };
            refusals.extend((0..nulls.len()).filter(|row| nulls.is_null(*row)).map(|row| {
                Refusal {
                    row,
                    code: "key",
                    message: format!("`{name}` is part of the key and has no value"),
                    field: name.clone(),
                }
            }));
        }
        table.refuse(refusals, "");
    }

    fn finish(&self, records: &Records, table: Table, notes: Vec<String>) -> Outcome {
        let versions =
            self.newest_by.as_ref().and_then(|name| table.column(name)).and_then(versions::of);
        let kept = if table.len() == records.len() {
            without_columns(records)
        } else {
            let mut keep = vec![false; records.len()];
            for origin in &table.origins {
                keep[*origin] = true;
            }
            without_columns(records)
                .filter(&BooleanArray::from(keep))
                .expect("there is one bit per record")
        };
        let mut refused = table.refused;
        refused.sort_by_key(|refused| refused.index);
        let fields: Vec<_> = table
            .columns
            .iter()
            .map(|column| column.field_type.arrow_field(&column.name))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(table.origins.len()));
        let (presence, values) = table
            .columns
            .into_iter()
            .map(|column| (some_absent(column.presence), column.values))
            .unzip();
        let columns =
            RecordBatch::try_new_with_options(Arc::new(ArrowSchema::new(fields)), values, &options)
                .expect("every column has one value per record and the type of its field");
        Outcome {
            records: Records { columns, presence, versions: versions.or(kept.versions), ..kept },
            filtered: u32::try_from(table.filtered).unwrap_or(u32::MAX),
            refused,
            notes,
            stop: None,
        }
    }
}

/// Returns the presence of a field as far as a record is left that does not carry it.
fn some_absent(presence: Option<BooleanBuffer>) -> Option<BooleanBuffer> {
    presence.filter(|bits| bits.count_set_bits() < bits.len())
}

/// Returns everything but the values.
fn without_columns(records: &Records) -> Records {
    let options = RecordBatchOptions::new().with_row_count(Some(records.len()));
    let columns =
        RecordBatch::try_new_with_options(Arc::new(ArrowSchema::empty()), Vec::new(), &options)
            .expect("no columns fit any number of records");
    Records {
        columns,
        presence: Vec::new(),
        ids: records.ids.clone(),
        positions: records.positions.clone(),
        extraction_base: records.extraction_base,
        versions: records.versions.clone(),
        operations: records.operations.clone(),
    }
}

fn stopped(records: &Records, stop: Stop) -> Outcome {
    Outcome {
        records: without_columns(&records.slice(0, 0)),
        filtered: 0,
        refused: Vec::new(),
        notes: Vec::new(),
        stop: Some(stop),
    }
}

#[cfg(test)]
mod tests;
