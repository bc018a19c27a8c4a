//! How much an expression may do for one record.
//!
//! Counted in steps, not in time, so that a record that is transformed again has the same outcome.

use std::cell::Cell;

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue},
        types::{CelInt, CelList, CelMap, CelString, DYN_TYPE, INT_TYPE},
        value::{CowVal, Val},
    },
};

use super::bind::MAX_LIST;

/// A step is a part of the expression that is evaluated once, over texts of up to [`TEXT_OF_A_STEP`].
/// So many take a good part of a second.
pub(super) const MAX_STEPS: u64 = 1_000_000;
const TEXT_OF_A_STEP: usize = 16 << 10;

/// Largest text that a function makes.
pub(super) const MAX_TEXT: usize = 1 << 20;

/// Takes the place of what a loop walks through.
const WALK: &str = "@walk";

#[derive(Clone, Copy)]
struct Work {
    left: u64,
    /// Steps that a part costs where the texts are long.
    factor: u64,
}

thread_local! {
    static WORK: Cell<Work> = const { Cell::new(Work { left: 0, factor: 1 }) };
}

/// Begins the work for a record whose fields have `bytes`.
pub(super) fn begin(bytes: usize) {
    WORK.set(Work { left: MAX_STEPS, factor: factor(bytes) });
}

/// Tells whether the record has taken more than its steps, whatever became of the error.
pub(super) fn exhausted() -> bool {
    WORK.get().left == 0
}

/// Returns the result of an operator if it is not too long to go on with.
pub(super) fn grown<'b, 'v>(value: CowVal<'b, 'v>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let failed = |message| Err(ExecutionError::function_error("@+", message));
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        let bytes = text.inner().len();
        if bytes > MAX_TEXT {
            return failed("the result is too long".to_owned());
        }
        let work = WORK.get();
        WORK.set(Work { factor: work.factor.max(factor(bytes)), ..work });
    } else if value.downcast_ref::<CelList<'v>>().is_some_and(|list| list.len() > MAX_LIST) {
        return failed(format!("the list has more than {MAX_LIST} items"));
    }
    Ok(value)
}

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(WALK, WALK, vec![DYN_TYPE, INT_TYPE], |mut arguments| {
        let body = arguments.pop().and_then(|steps| {
            let steps = steps.downcast_ref::<CelInt>().map(|steps| *steps.inner());
            steps.and_then(|steps| u64::try_from(steps).ok())
        });
        let walked = arguments.pop().zip(body);
        let (walked, body) = walked
            .ok_or_else(|| ExecutionError::function_error(WALK, "it takes a list and a number"))?;
        spend(turns(&*walked).saturating_mul(body), values(&*walked))?;
        Ok(walked)
    })
}

/// Has a loop count its turns before it takes them.
pub(super) fn count_turns(range: &mut IdedExpr, body: u64) {
    let id = range.id;
    let walked = std::mem::replace(range, IdedExpr { id, expr: Expr::Unspecified });
    let body = CelInt::from(i64::try_from(body).unwrap_or(i64::MAX));
    let body = IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(body)) };
    let args = vec![walked, body];
    range.expr = Expr::Call(CallExpr { func_name: WALK.to_owned(), target: None, args });
}

/// Counts the parts of an expression that are evaluated once when it is. The bodies of its loops
/// are not: they count when they run.
pub(super) fn steps(expression: &IdedExpr) -> u64 {
    1 + match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => 0,
        Expr::Call(call) => {
            call.target.iter().map(AsRef::as_ref).chain(&call.args).map(steps).sum()
        }
        Expr::Select(select) => steps(&select.operand),
        Expr::List(list) => list.elements.iter().map(steps).sum(),
        Expr::Map(map) => map.entries.iter().map(|entry| steps_of_entry(&entry.expr)).sum(),
        Expr::Struct(object) => {
            object.entries.iter().map(|entry| steps_of_entry(&entry.expr)).sum()
        }
        Expr::Comprehension(comprehension) => {
            steps(&comprehension.iter_range)
                + steps(&comprehension.accu_init)
                + steps(&comprehension.result)
        }
    }
}

fn steps_of_entry(entry: &EntryExpr) -> u64 {
    match entry {
        EntryExpr::StructField(field) => steps(&field.value),
        EntryExpr::MapEntry(pair) => steps(&pair.key) + steps(&pair.value),
    }
}

fn factor(bytes: usize) -> u64 {
    1 + (bytes / TEXT_OF_A_STEP) as u64
}

fn spend(steps: u64, values: u64) -> Result<(), ExecutionError> {
    let work = WORK.get();
    let left = work.left.saturating_sub(steps.saturating_mul(work.factor).saturating_add(values));
    WORK.set(Work { left, ..work });
    if left == 0 {
        return Err(ExecutionError::function_error(WALK, "it takes too many steps"));
    }
    Ok(())
}

fn turns<'v>(walked: &(dyn Val + 'v)) -> u64 {
    walked.as_sizer().map_or(0, |sizer| u64::try_from(*sizer.size().inner()).unwrap_or(0))
}

/// Counts the values in what a loop walks through: each turn copies its own.
fn values<'v>(value: &(dyn Val + 'v)) -> u64 {
    1 + if let Some(list) = value.downcast_ref::<CelList<'v>>() {
        list.inner().iter().map(|item| values(&**item)).sum()
    } else if let Some(map) = value.downcast_ref::<CelMap<'v>>() {
        map.inner().values().map(|item| values(&**item)).sum()
    } else {
        0
    }
}
