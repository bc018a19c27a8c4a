//! From the columns of a batch to the fields of the schema, under the contract.

use std::{collections::HashSet, sync::Arc};

use arrow_array::{Array, ArrayRef, StringArray, cast::AsArray, new_null_array};
use arrow_buffer::BooleanBuffer;
use model::{ColumnPolicy, Contract, Field, FieldType, Operation, Records, Schema, TypePolicy};
use regex::Regex;
use spec::format::Format;

use crate::{
    convert::{Reading, convert},
    evolve,
    outcome::Stop,
    table::{Column, Refusal},
    written,
};

/// The typing of one schema, ready for many batches.
#[derive(Debug)]
pub(crate) struct Typing {
    fields: Vec<TypedField>,
    columns: ColumnPolicy,
    types: TypePolicy,
}

#[derive(Debug)]
struct TypedField {
    field: Field,
    reading: Reading,
    allowed: HashSet<String>,
    pattern: Option<Regex>,
}

/// What typing made of a batch.
pub(crate) struct Typed {
    pub(crate) columns: Vec<Column>,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) notes: Vec<String>,
}

impl Typing {
    /// `strict` is the shape of the source: whether a new field is a mistake unless the contract
    /// says otherwise.
    pub(crate) fn new(schema: &Schema, contract: Contract, strict: bool) -> Self {
        let usual = if strict { ColumnPolicy::Freeze } else { ColumnPolicy::DiscardValue };
        Self {
            fields: schema.fields.iter().map(TypedField::new).collect(),
            columns: contract.columns.unwrap_or(usual),
            types: contract.types,
        }
    }

    pub(crate) fn apply(&self, records: &Records) -> Result<Typed, Stop> {
        let mut typed = Typed { columns: Vec::new(), refusals: Vec::new(), notes: Vec::new() };
        for field in &self.fields {
            self.field(field, records, &mut typed)?;
        }
        self.new_fields(records, &mut typed)?;
        Ok(typed)
    }

    fn field(
        &self,
        typed_field: &TypedField,
        records: &Records,
        out: &mut Typed,
    ) -> Result<(), Stop> {
        let TypedField { field, reading, .. } = typed_field;
        let Some(index) = records.columns.schema_ref().column_with_name(&field.name).map(|c| c.0)
        else {
            let column = Column {
                name: field.name.clone(),
                field_type: field.field_type,
                values: new_null_array(&field.field_type.arrow(), records.len()),
                presence: Some(BooleanBuffer::new_unset(records.len())),
            };
            typed_field.constrain(&column, records, &mut out.refusals);
            out.columns.push(column);
            return Ok(());
        };
        let source = records.columns.column(index);
        let from = type_of(records, index);
        let read = convert(from, source, field.field_type, reading);
        let mut column = Column {
            name: field.name.clone(),
            field_type: field.field_type,
            values: read.values,
            presence: records.presence(index).cloned(),
        };
        if let Some(first) = read.unreadable.first() {
            let what = format!("is not {}", described(field.field_type));
            match self.types {
                TypePolicy::Quarantine => {
                    out.refusals.extend(read.unreadable.iter().map(|unreadable| Refusal {
                        row: unreadable.row,
                        code: "type",
                        message: format!("`{}` {what} but {}", field.name, unreadable.shape),
                        field: field.name.clone(),
                    }));
                }
                TypePolicy::DiscardValue => out.notes.push(format!(
                    "values of `{}` that are not {} were left out",
                    field.name,
                    described(field.field_type)
                )),
                TypePolicy::Freeze => {
                    return Err(Stop {
                        reason: format!(
                            "`{}` {what} but {} in record {}",
                            field.name,
                            first.shape,
                            records.id(first.row)
                        ),
                        hint:
                            "correct the source or the type in `schema`, or set `contract.types` \
                               to quarantine, discard_value or evolve"
                                .to_owned(),
                    });
                }
                TypePolicy::Evolve => {
                    out.notes.push(format!(
                        "`{}` becomes text, because it holds values that are not {}",
                        field.name,
                        described(field.field_type)
                    ));
                    column.field_type = FieldType::Text;
                    column.values = as_text(from, source);
                }
            }
        }
        refuse_nul(&column, &mut out.refusals);
        typed_field.constrain(&column, records, &mut out.refusals);
        out.columns.push(column);
        Ok(())
    }

    fn new_fields(&self, records: &Records, out: &mut Typed) -> Result<(), Stop> {
        for (index, field) in records.columns.schema_ref().fields().iter().enumerate() {
            let name = field.name();
            if self.fields.iter().any(|known| known.field.name == *name) {
                continue;
            }
            let presence = records.presence(index);
            let Some(first) = (0..records.len()).find(|row| records.is_present(index, *row)) else {
                continue;
            };
            match self.columns {
                ColumnPolicy::DiscardValue => {
                    out.notes.push(format!("field `{name}` is new; it is left out"));
                }
                ColumnPolicy::Freeze => {
                    return Err(Stop {
                        reason: format!(
                            "the source has a field `{name}` that the schema does not know, first \
                             in record {}",
                            records.id(first)
                        ),
                        hint:
                            "add it to `schema`, or set `contract.columns` to evolve, quarantine \
                               or discard_value"
                                .to_owned(),
                    });
                }
                ColumnPolicy::Quarantine => {
                    let carriers = (0..records.len()).filter(|row| records.is_present(index, *row));
                    out.refusals.extend(carriers.map(|row| Refusal {
                        row,
                        code: "column",
                        message: format!("the schema does not know the field `{name}`"),
                        field: name.clone(),
                    }));
                }
                ColumnPolicy::Evolve if !evolve::can_be_named(name) => {
                    out.notes.push(format!(
                        "field `{name}` is new; it is left out, because no column can have its name"
                    ));
                }
                ColumnPolicy::Evolve => {
                    let source = records.columns.column(index);
                    let (field_type, values) = evolve::infer(type_of(records, index), source);
                    out.notes.push(format!(
                        "field `{name}` is new; it becomes a column of type {field_type}"
                    ));
                    let column = Column {
                        name: name.clone(),
                        field_type,
                        values,
                        presence: presence.cloned(),
                    };
                    refuse_nul(&column, &mut out.refusals);
                    out.columns.push(column);
                }
            }
        }
        Ok(())
    }
}

impl TypedField {
    fn new(field: &Field) -> Self {
        Self {
            reading: Reading {
                formats: field.formats.iter().flat_map(|format| Format::parse(format)).collect(),
                decimal_point: None,
            },
            allowed: field.allowed.iter().cloned().collect(),
            pattern: field.pattern.as_deref().and_then(|text| spec::format::whole_text(text).ok()),
            field: field.clone(),
        }
    }

    /// Checks the constraints of the schema. A delete needs no more than its key.
    fn constrain(&self, column: &Column, records: &Records, refusals: &mut Vec<Refusal>) {
        let field = &self.field;
        let mut refuse = |row, message: &str| {
            if records.operation(row) != Operation::Delete {
                refusals.push(Refusal {
                    row,
                    code: "constraint",
                    message: format!("`{}` {message}", field.name),
                    field: field.name.clone(),
                });
            }
        };
        if field.required && column.values.null_count() > 0 {
            // A patch leaves alone what it does not carry.
            let lacks = |row: &usize| {
                let carried = column.presence.as_ref().is_none_or(|bits| bits.value(*row));
                column.values.is_null(*row)
                    && (carried || records.operation(*row) != Operation::Patch)
            };
            for row in (0..records.len()).filter(lacks) {
                refuse(row, "is required and has no value");
            }
        }
        let constrained = !self.allowed.is_empty()
            || self.pattern.is_some()
            || field.min_length.is_some()
            || field.max_length.is_some();
        if !constrained || column.field_type != FieldType::Text {
            return;
        }
        for (row, text) in column.values.as_string::<i32>().iter().enumerate() {
            let Some(text) = text else { continue };
            if !self.allowed.is_empty() && !self.allowed.contains(text) {
                refuse(row, "is not one of the allowed values");
            } else if self.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
                refuse(row, "does not match its pattern");
            } else if field.min_length.is_some() || field.max_length.is_some() {
                let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
                if field.min_length.is_some_and(|min| length < min) {
                    refuse(row, &format!("is shorter than allowed: {length} characters"));
                } else if field.max_length.is_some_and(|max| length > max) {
                    refuse(row, &format!("is longer than allowed: {length} characters"));
                }
            }
        }
    }
}

/// Returns the type of a column of a batch.
pub(crate) fn type_of(records: &Records, index: usize) -> FieldType {
    FieldType::of(records.columns.schema_ref().field(index))
        .expect("a decoded batch has only known types")
}

/// Returns what a value of the type is called, with an article.
pub(crate) fn described(field_type: FieldType) -> String {
    match field_type {
        FieldType::Integer => "an integer".to_owned(),
        FieldType::Bytes => "base64".to_owned(),
        FieldType::Text => "text".to_owned(),
        FieldType::Json => "JSON".to_owned(),
        other => format!("a {other}"),
    }
}

/// Turns any column into text, whatever is in it.
fn as_text(from: FieldType, source: &ArrayRef) -> ArrayRef {
    let converted = convert(from, source, FieldType::Text, &Reading::default());
    if converted.unreadable.is_empty() {
        converted.values
    } else {
        // Nested JSON stays as it is written.
        let (source, texts) = (source.as_string::<i32>(), converted.values.as_string::<i32>());
        let merged: StringArray = (0..texts.len())
            .map(|row| {
                let nested = converted.unreadable.binary_search_by_key(&row, |u| u.row).is_ok();
                let from = if nested { source } else { texts };
                from.is_valid(row).then(|| from.value(row))
            })
            .collect();
        Arc::new(merged)
    }
}

/// Refuses texts with U+0000, which PostgreSQL cannot hold.
pub(crate) fn refuse_nul(column: &Column, refusals: &mut Vec<Refusal>) {
    let is_nul: fn(&str) -> bool = match column.field_type {
        FieldType::Text => |text| memchr::memchr(0, text.as_bytes()).is_some(),
        FieldType::Json => written::has_escaped_nul,
        _ => return,
    };
    let texts = column.values.as_string::<i32>();
    if column.field_type == FieldType::Text && memchr::memchr(0, texts.value_data()).is_none() {
        return;
    }
    for (row, text) in texts.iter().enumerate() {
        if text.is_some_and(is_nul) {
            refusals.push(Refusal {
                row,
                code: "nul",
                message: format!("`{}` has the character U+0000", column.name),
                field: column.name.clone(),
            });
        }
    }
}
