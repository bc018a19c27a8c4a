//! CEL expressions over the fields of records.
//!
//! Everything that is known about the CEL library is in this module and in `spec::Expression`.

mod bind;
mod decimal;
mod functions;
mod mixed;
mod results;
mod rewrite;
mod work;

use std::sync::{Arc, OnceLock};

use cel::{Context, Env, ExecutionError, common::ast::IdedExpr, common::value::CowVal};
use model::FieldType;
use spec::{Expression, FUNCTIONS, InvalidExpression};

use crate::table::Table;
pub(crate) use results::Results;

/// An expression, ready for many batches.
pub(crate) struct Evaluator {
    expression: Expression,
    plain: IdedExpr,
    /// The same where decimals may meet other numbers.
    mixed: IdedExpr,
    makes_decimals: bool,
    env: Arc<Env>,
}

impl std::fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Evaluator").field(&self.expression.program()).finish()
    }
}

/// Why an expression has no result for a record, in one sentence without values.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// The result of an expression for one record.
pub(crate) struct Evaluated<'a>(CowVal<'a, 'a>);

impl Evaluator {
    pub(crate) fn new(source: &str) -> Result<Self, InvalidExpression> {
        let expression = Expression::parse(source)?;
        let program = expression.program();
        let references = program.references();
        let makes_decimals =
            ["decimal", "divide", "round"].iter().any(|name| references.has_function(name));
        let written = program.expression();
        let plain = rewrite::rewrite(written.clone(), false);
        let mixed = rewrite::rewrite(written.clone(), true);
        Ok(Self { plain, mixed, makes_decimals, expression, env: environment() })
    }

    /// Returns the names that the expression refers to.
    pub(crate) fn fields(&self) -> &[String] {
        self.expression.fields()
    }

    /// Evaluates the expression for every record in turn.
    pub(crate) fn each(
        &self,
        table: &Table,
        mut take: impl FnMut(usize, Result<Evaluated<'_>, Failure>),
    ) {
        let columns: Vec<_> = self.fields().iter().filter_map(|name| table.column(name)).collect();
        let mixes = self.makes_decimals
            || columns.iter().any(|column| {
                matches!(column.field_type, FieldType::Decimal { .. } | FieldType::Json)
            });
        let tree = if mixes { &self.mixed } else { &self.plain };
        for row in 0..table.len() {
            let record = bind::Record::new(&columns, row);
            let mut context = Context::with_env(Arc::clone(&self.env));
            context.set_variable_resolver(&record);
            work::begin(record.text_bytes());
            let result = cel::Value::resolve_val(tree, &context);
            let refusal = work::exhausted().then(too_much).or_else(|| record.unbindable());
            let result = match (refusal, result) {
                (Some(reason), _) => Err(Failure(reason)),
                (None, Ok(value)) => Ok(Evaluated(value)),
                (None, Err(error)) => Err(Failure(explain(&error))),
            };
            take(row, result);
        }
    }
}

impl Evaluated<'_> {
    /// Returns the result as a condition.
    pub(crate) fn truth(&self) -> Result<bool, Failure> {
        match self.0.downcast_ref::<cel::common::types::CelBool>() {
            Some(value) => Ok(*value.inner()),
            None => Err(Failure(format!(
                "the expression gives {}, not true or false",
                self.0.get_type().name()
            ))),
        }
    }
}

/// Returns the standard environment with the functions of Tributary.
fn environment() -> Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    Arc::clone(ENVIRONMENT.get_or_init(|| {
        let mut env = Env::stdlib();
        functions::register(&mut env).expect("every function is declared once");
        mixed::register(&mut env).expect("every operator is declared once");
        work::register(&mut env).expect("it is declared once");
        Arc::new(env)
    }))
}

fn too_much() -> String {
    format!(
        "the expression takes more than {} steps; give it shorter lists and texts, or fewer loops",
        work::MAX_STEPS
    )
}

/// Tells why an evaluation failed. Errors of the library may hold values, so only what comes from
/// the expression itself is repeated.
fn explain(error: &ExecutionError) -> String {
    let reason = match error {
        ExecutionError::NoSuchOverload(overload) => format!(
            "`{}` does not work on ({})",
            operator(overload.function()),
            overload.argument_types().join(", ")
        ),
        ExecutionError::UnsupportedBinaryOperator(name, left, right) => {
            format!("`{name}` does not work on ({}, {})", left.type_of(), right.type_of())
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} and {} cannot be compared", left.type_of(), right.type_of())
        }
        ExecutionError::UnexpectedType { .. } => "a value has the wrong type".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("there is no `{name}`"),
        ExecutionError::NoSuchKey(_) => "an object does not have the key".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "a number is divided by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number becomes too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "a list is too short".to_owned(),
        ExecutionError::FunctionError { function, message } => {
            if FUNCTIONS.contains(&function.as_str()) || function.starts_with('@') {
                format!("`{}` failed: {message}", function.trim_start_matches('@'))
            } else {
                format!("`{function}` failed")
            }
        }
        _ => "a value does not fit".to_owned(),
    };
    format!("the expression has no result: {reason}")
}

fn operator(function: &str) -> &str {
    function.trim_matches(['_', '@'])
}

#[cfg(test)]
mod tests;
