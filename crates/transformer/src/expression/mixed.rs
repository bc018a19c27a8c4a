//! Operators between decimals and other numbers.
//!
//! CEL asks the left operand what an operator does, and integers and doubles know nothing of
//! decimals. Where decimals may occur, operators become calls that look at both sides.

use std::cmp::Ordering;

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        ast::operators,
        types::{CelBool, CelList, DYN_TYPE},
        value::{CowVal, Val},
    },
};

use super::{decimal::Decimal, work};

type Arguments<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;
type Operator = for<'b, 'v> fn(Arguments<'b, 'v>) -> Outcome<'b, 'v>;

/// Operators of CEL, the calls that take their place, and what these do.
const OPERATORS: [(&str, &str, Operator); 10] = [
    (operators::ADD, "@plus", plus),
    (operators::SUBSTRACT, "@minus", minus),
    (operators::MULTIPLY, "@times", times),
    (operators::LESS, "@less", |a| order(&a, "@less", |o| o == Ordering::Less)),
    (operators::LESS_EQUALS, "@at_most", |a| order(&a, "@at_most", |o| o != Ordering::Greater)),
    (operators::GREATER, "@greater", |a| order(&a, "@greater", |o| o == Ordering::Greater)),
    (operators::GREATER_EQUALS, "@at_least", |a| order(&a, "@at_least", |o| o != Ordering::Less)),
    (operators::EQUALS, "@equal", |a| Ok(boolean(equal(&*a[0], &*a[1])))),
    (operators::NOT_EQUALS, "@unequal", |a| Ok(boolean(!equal(&*a[0], &*a[1])))),
    (operators::IN, "@within", within),
];

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    for (_, name, operator) in OPERATORS {
        env.add_overload(name, name, vec![DYN_TYPE, DYN_TYPE], operator)?;
    }
    Ok(())
}

/// Returns the call that takes the place of an operator.
pub(super) fn replacement(operator: &str) -> Option<&'static str> {
    OPERATORS.iter().find(|(name, ..)| *name == operator).map(|(_, call, _)| *call)
}

fn boolean<'b, 'v>(value: bool) -> CowVal<'b, 'v> {
    CowVal::owned(CelBool::from(value))
}

/// Returns both operands as decimals if one of them is one and the other any number.
fn decimals<'v>(left: &(dyn Val + 'v), right: &(dyn Val + 'v)) -> Option<(Decimal, Decimal)> {
    let any = left.downcast_ref::<Decimal>().is_some() || right.downcast_ref::<Decimal>().is_some();
    any.then(|| Decimal::of(left).zip(Decimal::of(right)))?
}

fn unfit<'v>(name: &str, left: &(dyn Val + 'v), right: &(dyn Val + 'v)) -> ExecutionError {
    let types = [left, right].map(|value| value.get_type().name().to_owned());
    ExecutionError::no_such_overload(name, types.to_vec())
}

fn plus<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (left, right) = (&*arguments[0], &*arguments[1]);
    if let Some((left, right)) = decimals(left, right) {
        return Ok(CowVal::owned(left.plus(right)?));
    }
    let adder = left.as_adder().ok_or_else(|| unfit("+", left, right))?;
    work::grown(CowVal::Owned(adder.add(right)?.into_owned()))
}

fn minus<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (left, right) = (&*arguments[0], &*arguments[1]);
    if let Some((left, right)) = decimals(left, right) {
        return Ok(CowVal::owned(left.minus(right)?));
    }
    let subtractor = left.as_subtractor().ok_or_else(|| unfit("-", left, right))?;
    Ok(CowVal::Owned(subtractor.sub(right)?.into_owned()))
}

fn times<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (left, right) = (&*arguments[0], &*arguments[1]);
    if let Some((left, right)) = decimals(left, right) {
        return Ok(CowVal::owned(left.times(right)?));
    }
    let multiplier = left.as_multiplier().ok_or_else(|| unfit("*", left, right))?;
    Ok(CowVal::Owned(multiplier.mul(right)?.into_owned()))
}

fn order<'b, 'v>(
    arguments: &Arguments<'b, 'v>,
    name: &str,
    is: impl Fn(Ordering) -> bool,
) -> Outcome<'b, 'v> {
    let (left, right) = (&*arguments[0], &*arguments[1]);
    let ordering = match decimals(left, right) {
        Some((left, right)) => left.order(right),
        None => left
            .as_comparer()
            .and_then(|comparer| comparer.compare(right).ok())
            .ok_or_else(|| unfit(name, left, right))?,
    };
    Ok(boolean(is(ordering)))
}

fn equal<'v>(left: &(dyn Val + 'v), right: &(dyn Val + 'v)) -> bool {
    match decimals(left, right) {
        Some((left, right)) => left.order(right) == Ordering::Equal,
        None => left.equals(right),
    }
}

fn within<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (value, container) = (&*arguments[0], &*arguments[1]);
    if let Some(list) = container.downcast_ref::<CelList<'v>>() {
        return Ok(boolean(list.inner().iter().any(|item| equal(value, &**item))));
    }
    let found =
        container.as_container().ok_or_else(|| unfit("in", value, container))?.contains(value)?;
    Ok(boolean(found))
}
