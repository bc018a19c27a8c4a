//! Exact decimal numbers in expressions.

use std::{any::Any, cmp::Ordering};

use cel::{
    ExecutionError,
    common::{
        traits::{Adder, Comparer, Divider, Multiplier, Negator, Subtractor},
        types::{CelDouble, CelInt, CelUInt, Type},
        value::{CowVal, StaticVal, Val},
    },
};
use spec::text::{fit, power_of_ten};

use crate::written::write_decimal;

/// Largest number of digits.
pub(super) const MAX_DIGITS: u8 = 38;

pub(super) static DECIMAL: Type = Type::new_unspecified_type("decimal");

/// A number of up to 38 digits, `scale` of them behind the point.
///
/// Sums have the larger scale of their parts, products the sum of both scales; nothing is rounded.
/// A double counts as the decimal that its shortest form shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal {
    pub(super) value: i128,
    pub(super) scale: u8,
}

fn error(message: &str) -> ExecutionError {
    ExecutionError::function_error("decimal", message)
}

fn too_large() -> ExecutionError {
    error("a number has more than 38 digits")
}

impl Decimal {
    /// Reads a number with as many places as it shows.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let places = text.rsplit_once('.').map_or("", |(_, places)| places);
        let exponent = text.contains(['e', 'E']);
        let places = if exponent { MAX_DIGITS } else { u8::try_from(places.len()).ok()? };
        if places > MAX_DIGITS {
            return None;
        }
        if !exponent {
            let value = spec::text::decimal(text, MAX_DIGITS, places)?;
            return Some(Self { value, scale: places });
        }
        // The smallest scale that shows every digit.
        (0..=MAX_DIGITS).find_map(|scale| {
            spec::text::decimal(text, MAX_DIGITS, scale).map(|value| Self { value, scale })
        })
    }

    /// Takes any number.
    pub(super) fn of(value: &dyn Val) -> Option<Self> {
        if let Some(decimal) = value.downcast_ref::<Self>() {
            return Some(*decimal);
        }
        if let Some(integer) = value.downcast_ref::<CelInt>() {
            return Some(Self { value: i128::from(*integer.inner()), scale: 0 });
        }
        if let Some(integer) = value.downcast_ref::<CelUInt>() {
            return Some(Self { value: i128::from(*integer.inner()), scale: 0 });
        }
        let double = value.downcast_ref::<CelDouble>()?;
        Self::parse(&double.inner().to_string())
    }

    /// Returns the value with `scale` places if none is lost.
    pub(super) fn exactly(self, scale: u8) -> Option<i128> {
        if scale >= self.scale {
            let value = self.value.checked_mul(power_of_ten(scale - self.scale)?)?;
            return fit(value, MAX_DIGITS);
        }
        let factor = power_of_ten(self.scale - scale)?;
        (self.value % factor == 0).then_some(self.value / factor)
    }

    /// Returns the number with `scale` places; halves are rounded away from zero.
    pub(super) fn round(self, scale: u8) -> Result<Self, ExecutionError> {
        if scale >= self.scale {
            return Ok(Self { value: self.exactly(scale).ok_or_else(too_large)?, scale });
        }
        let factor = power_of_ten(self.scale - scale).ok_or_else(too_large)?;
        Ok(Self { value: rounded_quotient(self.value, factor), scale })
    }

    /// Divides; the result has `scale` places, halves rounded away from zero.
    pub(super) fn divide(self, by: Self, scale: u8) -> Result<Self, ExecutionError> {
        if by.value == 0 {
            return Err(error("a number is divided by zero"));
        }
        // value / by * 10^(by.scale - self.scale + scale)
        let shift = i32::from(by.scale) - i32::from(self.scale) + i32::from(scale);
        let power = |exponent: i32| {
            u8::try_from(exponent).ok().and_then(power_of_ten).ok_or_else(too_large)
        };
        let (dividend, divisor) = if shift >= 0 {
            (self.value.checked_mul(power(shift)?), Some(by.value))
        } else {
            (Some(self.value), by.value.checked_mul(power(-shift)?))
        };
        let (dividend, divisor) = dividend.zip(divisor).ok_or_else(too_large)?;
        let value = fit(rounded_quotient(dividend, divisor), MAX_DIGITS).ok_or_else(too_large)?;
        Ok(Self { value, scale })
    }

    pub(super) fn write(self) -> String {
        let mut text = String::new();
        write_decimal(self.value, self.scale, &mut text);
        text
    }

    /// Brings two numbers to one scale.
    fn aligned(self, other: Self) -> Option<(i128, i128, u8)> {
        let scale = self.scale.max(other.scale);
        Some((self.exactly(scale)?, other.exactly(scale)?, scale))
    }

    pub(super) fn plus(self, other: Self) -> Result<Self, ExecutionError> {
        let (left, right, scale) = self.aligned(other).ok_or_else(too_large)?;
        let value = left.checked_add(right).and_then(|value| fit(value, MAX_DIGITS));
        Ok(Self { value: value.ok_or_else(too_large)?, scale })
    }

    pub(super) fn minus(self, other: Self) -> Result<Self, ExecutionError> {
        self.plus(Self { value: -other.value, ..other })
    }

    pub(super) fn times(self, other: Self) -> Result<Self, ExecutionError> {
        let value = self.value.checked_mul(other.value).and_then(|value| fit(value, MAX_DIGITS));
        let scale = self.scale + other.scale;
        if scale > MAX_DIGITS {
            return Err(error("a product has more than 38 decimal places; round its factors"));
        }
        Ok(Self { value: value.ok_or_else(too_large)?, scale })
    }

    pub(super) fn order(self, other: Self) -> Ordering {
        match self.aligned(other) {
            Some((left, right, _)) => left.cmp(&right),
            // One of them is so large that it cannot take the places of the other.
            None => {
                let whole = |number: Self| power_of_ten(number.scale).map(|p| number.value / p);
                whole(self).cmp(&whole(other))
            }
        }
    }
}

fn rounded_quotient(dividend: i128, divisor: i128) -> i128 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    // Twice the rest may be too large to be written.
    let half_or_more = rest.unsigned_abs() >= divisor.unsigned_abs() - rest.unsigned_abs();
    let away = if (dividend < 0) == (divisor < 0) { 1 } else { -1 };
    if rest != 0 && half_or_more { quotient + away } else { quotient }
}

impl Val for Decimal {
    fn get_type(&self) -> &Type {
        &DECIMAL
    }

    fn cel_type() -> &'static Type {
        &DECIMAL
    }

    fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_subtractor<'b, 'v>(&'b self) -> Option<&'b (dyn Subtractor + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_multiplier<'b, 'v>(&'b self) -> Option<&'b (dyn Multiplier + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_divider<'b, 'v>(&'b self) -> Option<&'b (dyn Divider + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_negator<'b, 'v>(&'b self) -> Option<&'b (dyn Negator + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        Self::of(other).is_some_and(|other| self.order(other) == Ordering::Equal)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Decimal {}

impl Adder for Decimal {
    fn add<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Ok(CowVal::owned(self.plus(any_number(other)?)?))
    }
}

impl Subtractor for Decimal {
    fn sub<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Ok(CowVal::owned(self.minus(any_number(other)?)?))
    }
}

impl Multiplier for Decimal {
    fn mul<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Ok(CowVal::owned(self.times(any_number(other)?)?))
    }
}

impl Divider for Decimal {
    fn div<'b, 'v>(&'b self, _other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Err(error("a quotient is not exact; write `divide(a, b, places)`"))
    }
}

impl Negator for Decimal {
    fn negate<'v>(&self) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Ok(Box::new(Self { value: -self.value, ..*self }))
    }
}

impl Comparer for Decimal {
    fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
        Ok(self.order(any_number(other)?))
    }
}

fn any_number<'v>(value: &(dyn Val + 'v)) -> Result<Decimal, ExecutionError> {
    Decimal::of(value).ok_or_else(|| {
        ExecutionError::no_such_overload(
            "decimal",
            vec!["decimal".to_owned(), value.get_type().name().to_owned()],
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn arithmetic_is_exact_or_an_error() {
        let sum = decimal("0.1").plus(decimal("0.25")).unwrap();
        assert_eq!(sum.write(), "0.35");
        assert_eq!(decimal("19.99").times(decimal("3")).unwrap().write(), "59.97");
        assert_eq!(decimal("1").divide(decimal("3"), 4).unwrap().write(), "0.3333");
        assert_eq!(decimal("-0.125").round(2).unwrap().write(), "-0.13");
        assert_eq!(decimal("2").divide(decimal("-3"), 0).unwrap().write(), "-1");
        assert_eq!(decimal("1.5e-3").write(), "0.0015");
        let large = decimal(&"9".repeat(38));
        assert!(large.plus(decimal("1")).is_err());
        assert!(large.times(decimal("2")).is_err());
        assert!(decimal("1").divide(decimal("0"), 2).is_err());
        assert_eq!(large.order(decimal("0.1")), Ordering::Greater);
    }
}
