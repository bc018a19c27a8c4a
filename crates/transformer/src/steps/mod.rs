//! The steps of a pipeline, ready for many batches.

mod compute;
mod dedupe;
mod flatten;
mod nest;
mod shape;
mod texts;

use model::FieldType;
use spec::{Pipeline, Step, format::Format};
pub(crate) use texts::hexadecimal;

use crate::{
    CompileError,
    convert::{Reading, convert},
    expression::Evaluator,
    table::{Column, Refusal, Table},
    typing::described,
};

/// A step with everything it needs.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Place and name, such as `2 (cast)`.
    pub(crate) name: String,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Rename(Vec<(String, String)>),
    Keep(Vec<String>),
    Drop(Vec<String>),
    Cast(Vec<(String, FieldType, Reading)>),
    Default(Vec<(String, String)>),
    Texts(Vec<String>, texts::Change),
    Flatten(spec::Flatten),
    Nest { fields: Vec<String>, into: String },
    Split { field: String, separator: String, into: Vec<String> },
    Join { fields: Vec<String>, separator: String, into: String },
    Filter(Evaluator),
    Dedupe { fields: Vec<String>, newest_by: Option<String> },
    Compute(Vec<(String, FieldType, Evaluator)>),
}

impl Prepared {
    pub(crate) fn new(
        index: usize,
        step: &Step,
        pipeline: &Pipeline,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, CompileError> {
        let name = format!("{} ({})", index + 1, step.kind());
        let evaluator = |source: &str| {
            Evaluator::new(source).map_err(|error| CompileError::Expression {
                step: name.clone(),
                reason: error.to_string(),
            })
        };
        let work = match step {
            Step::Rename(pairs) => Work::Rename(pairs.clone()),
            Step::Keep(names) => Work::Keep(names.clone()),
            Step::Drop(names) => Work::Drop(names.clone()),
            Step::Cast(casts) => Work::Cast(
                casts
                    .iter()
                    .map(|cast| {
                        let formats =
                            cast.formats.iter().flat_map(|format| Format::parse(format)).collect();
                        let reading = Reading { formats, decimal_point: Some(cast.decimal_point) };
                        (cast.field.clone(), cast.to, reading)
                    })
                    .collect(),
            ),
            Step::Default(pairs) => Work::Default(pairs.clone()),
            Step::Trim(names) => Work::Texts(names.clone(), texts::Change::Trim),
            Step::Lower(names) => Work::Texts(names.clone(), texts::Change::Lower),
            Step::Upper(names) => Work::Texts(names.clone(), texts::Change::Upper),
            Step::Flatten(flatten) => Work::Flatten(flatten.clone()),
            Step::Nest { fields, into } => {
                Work::Nest { fields: fields.clone(), into: into.clone() }
            }
            Step::Split { field, separator, into } => Work::Split {
                field: field.clone(),
                separator: separator.clone(),
                into: into.clone(),
            },
            Step::Join { fields, separator, into } => Work::Join {
                fields: fields.clone(),
                separator: separator.clone(),
                into: into.clone(),
            },
            Step::Hash { fields, key } => {
                let key = key
                    .resolve(variables)
                    .map_err(|source| CompileError::Secret { step: name.clone(), source })?;
                Work::Texts(fields.clone(), texts::Change::hash(&key))
            }
            Step::Mask { fields, keep_last } => {
                Work::Texts(fields.clone(), texts::Change::Mask(*keep_last))
            }
            Step::Filter(source) => Work::Filter(evaluator(source)?),
            Step::Dedupe(fields) => {
                Work::Dedupe { fields: fields.clone(), newest_by: pipeline.newest_by.clone() }
            }
            Step::Compute(computes) => Work::Compute(
                computes
                    .iter()
                    .map(|compute| {
                        let evaluator = evaluator(&compute.expression)?;
                        Ok((compute.field.clone(), compute.field_type, evaluator))
                    })
                    .collect::<Result<_, CompileError>>()?,
            ),
        };
        Ok(Self { name, work })
    }

    pub(crate) fn apply(&self, table: &mut Table) {
        match &self.work {
            Work::Rename(pairs) => shape::rename(table, pairs),
            Work::Keep(names) => shape::keep(table, names),
            Work::Drop(names) => table.columns.retain(|column| !names.contains(&column.name)),
            Work::Cast(casts) => {
                for (field, to, reading) in casts {
                    let refusals = cast(table, field, *to, reading);
                    table.refuse(refusals, &self.name);
                }
            }
            Work::Default(pairs) => {
                for (field, value) in pairs {
                    shape::default(table, field, value);
                }
            }
            Work::Texts(fields, change) => {
                for field in fields {
                    let refusals = texts::change(table, field, change);
                    table.refuse(refusals, &self.name);
                }
            }
            Work::Flatten(flatten) => {
                let refusals = flatten::flatten(table, flatten);
                table.refuse(refusals, &self.name);
            }
            Work::Nest { fields, into } => nest::nest(table, fields, into),
            Work::Split { field, separator, into } => {
                let refusals = texts::split(table, field, separator, into);
                table.refuse(refusals, &self.name);
            }
            Work::Join { fields, separator, into } => {
                texts::join(table, fields, separator, into);
            }
            Work::Filter(evaluator) => {
                let (keep, refusals) = compute::filter(table, evaluator);
                table.filter_and_refuse(keep, refusals, &self.name);
            }
            Work::Dedupe { fields, newest_by } => {
                let keep = dedupe::newest(table, fields, newest_by.as_deref());
                table.filter(&keep);
            }
            Work::Compute(computes) => {
                for (field, field_type, evaluator) in computes {
                    let refusals = compute::compute(table, field, *field_type, evaluator);
                    table.refuse(refusals, &self.name);
                }
            }
        }
    }
}

fn cast(table: &mut Table, field: &str, to: FieldType, reading: &Reading) -> Vec<Refusal> {
    let Some(index) = table.position(field) else { return Vec::new() };
    let column = &mut table.columns[index];
    let read = convert(column.field_type, &column.values, to, reading);
    column.field_type = to;
    column.values = read.values;
    let mut refusals: Vec<Refusal> = read
        .unreadable
        .into_iter()
        .map(|unreadable| Refusal {
            row: unreadable.row,
            code: "type",
            message: format!("`{field}` is not {} but {}", described(to), unreadable.shape),
            field: field.to_owned(),
        })
        .collect();
    crate::typing::refuse_nul(column, &mut refusals);
    refusals
}

/// Refuses every record, because a field is not what the step works on.
///
/// Only a field that the contract has turned into another type can be so.
fn refuse_all(column: &Column, expected: &str) -> Vec<Refusal> {
    (0..column.values.len())
        .map(|row| Refusal {
            row,
            code: "type",
            message: format!("`{}` is {}, not {expected}", column.name, column.field_type),
            field: column.name.clone(),
        })
        .collect()
}
