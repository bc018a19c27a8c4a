//! Steps that evaluate an expression for every record.

use arrow_array::BooleanArray;
use model::FieldType;

use crate::{
    expression::{Evaluator, Failure},
    table::{Column, Refusal, Table, any_present},
};

/// Tells which records go on, and which ones have no answer.
pub(super) fn filter(table: &Table, evaluator: &Evaluator) -> (BooleanArray, Vec<Refusal>) {
    let mut refusals = Vec::new();
    let mut keep = Vec::with_capacity(table.len());
    evaluator.each(table, |row, result| {
        let result = result.and_then(|value| value.truth());
        keep.push(*result.as_ref().unwrap_or(&false));
        refusals.extend(result.err().map(|failure| refusal(row, failure, "")));
    });
    (BooleanArray::from(keep), refusals)
}

/// Computes a field. It is absent where every field that the expression refers to is absent.
pub(super) fn compute(
    table: &mut Table,
    field: &str,
    field_type: FieldType,
    evaluator: &Evaluator,
) -> Vec<Refusal> {
    let presence = any_present(
        evaluator
            .fields()
            .iter()
            .filter_map(|name| table.column(name))
            .map(|column| column.presence.as_ref()),
    );
    let is_present = |row: usize| presence.as_ref().is_none_or(|bits| bits.value(row));
    let mut refusals = Vec::new();
    let mut builder = crate::expression::Results::new(field_type, table.len());
    evaluator.each(table, |row, result| {
        let result = result.and_then(|value| builder.push(&value));
        if let Err(failure) = result {
            builder.push_null();
            // There is nothing to compute where all that it would be computed of is absent.
            if is_present(row) {
                refusals.push(refusal(row, failure, field));
            }
        }
    });
    let column = Column { name: field.to_owned(), field_type, values: builder.finish(), presence };
    crate::typing::refuse_nul(&column, &mut refusals);
    table.set(column);
    refusals
}

fn refusal(row: usize, Failure(message): Failure, field: &str) -> Refusal {
    Refusal { row, code: "expression", message, field: field.to_owned() }
}
