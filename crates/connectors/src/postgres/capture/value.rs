//! Values as the types' output functions write them, with the settings that a session of ours has.

use model::FieldType;

use super::super::{
    catalog::CatalogColumn,
    decode::{Builder, Format, Selected},
};
use crate::sql::text;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Types whose text is the same whether they are cast to it or written out.
const PLAIN: [&str; 14] = [
    "uuid", "interval", "time", "timetz", "xml", "oid", "name", "citext", "macaddr", "money",
    "bit", "varbit", "tsvector", "bpchar",
];

/// How a column of the log becomes a column of records: of the same type and with the same values
/// that reading the table gives.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) format: Format,
    /// SQL over `v` by which the server makes the value of its text.
    pub(super) convert: Option<String>,
    /// Type for comparing with a value that is given as text.
    pub(super) base: String,
    padded: bool,
}

impl Column {
    pub(super) fn new(column: &CatalogColumn) -> Self {
        let format = Selected::new(column).format;
        let structured = matches!(column.category.as_str(), "A" | "C");
        let own = format != Format::Text
            || matches!(column.type_name.as_str(), "text" | "varchar" | "numeric")
            || PLAIN.contains(&column.type_name.as_str())
            || matches!(column.category.as_str(), "E" | "R");
        let convert = if structured {
            Some(format!("cast(to_jsonb(cast(v as {})) as text)", column.declared))
        } else if own {
            None
        } else {
            Some(format!("cast(cast(v as {}) as text)", column.base))
        };
        Self {
            name: column.name.clone(),
            format,
            convert,
            base: column.base.clone(),
            padded: column.type_name == "bpchar",
        }
    }

    pub(super) fn field_type(&self) -> FieldType {
        self.format.field_type()
    }

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// When it has no place in the type of the column, or is not written as expected.
    pub(super) fn read<'a>(&self, bytes: &'a [u8]) -> Result<Cell<'a>, Unfit> {
        if self.convert.is_some() {
            return Ok(Cell::Text(text_of(bytes)?));
        }
        Ok(match self.format {
            Format::Boolean => Cell::Boolean(bytes == b"t"),
            Format::Int2 | Format::Int4 | Format::Int8 => {
                Cell::Integer(text_of(bytes)?.parse().map_err(|_| Unfit::Unreadable)?)
            }
            Format::Double => Cell::Double(text_of(bytes)?.parse().map_err(|_| Unfit::Unreadable)?),
            Format::Numeric { scale, .. } => Cell::Decimal(decimal(bytes, scale)?),
            Format::Text if self.padded => Cell::Text(text_of(bytes)?.trim_end_matches(' ')),
            Format::Text | Format::Json => Cell::Text(text_of(bytes)?),
            Format::Bytes => Cell::Bytes(hex(bytes)?),
            Format::Date => {
                let (day, rest) = day(bytes)?;
                if !rest.is_empty() {
                    return Err(Unfit::Unreadable);
                }
                Cell::Date(i32::try_from(day).map_err(|_| Unfit::Range)?)
            }
            Format::Timestamp => Cell::Timestamp(timestamp(bytes)?),
        })
    }
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Decimal(i128),
    Text(&'a str),
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01 UTC.
    Timestamp(i64),
}

/// Why a value cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// An infinite time, not a number.
    Range,
    /// Not written as the type is.
    Unreadable,
}

impl Builder {
    /// Appends a value that was read for a column of this format.
    pub(super) fn append_cell(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Self::Boolean(builder), Cell::Boolean(value)) => builder.append_value(*value),
            (Self::Integer(builder), Cell::Integer(value)) => builder.append_value(*value),
            (Self::Double(builder), Cell::Double(value)) => builder.append_value(*value),
            (Self::Decimal(builder, _), Cell::Decimal(value)) => builder.append_value(*value),
            (Self::Text(builder), Cell::Text(value)) => builder.append_value(value),
            (Self::Bytes(builder), Cell::Bytes(value)) => builder.append_value(value),
            (Self::Date(builder), Cell::Date(value)) => builder.append_value(*value),
            (Self::Timestamp(builder), Cell::Timestamp(value)) => builder.append_value(*value),
            (builder, _) => builder.append(None),
        }
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, Unfit> {
    std::str::from_utf8(bytes).map_err(|_| Unfit::Unreadable)
}

/// Reads a decimal as an integer of the given scale.
fn decimal(bytes: &[u8], scale: u8) -> Result<i128, Unfit> {
    let (negative, digits) = match bytes.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, bytes),
    };
    if !digits.first().is_some_and(u8::is_ascii_digit) {
        // NaN and infinities.
        return Err(Unfit::Range);
    }
    let mut value: i128 = 0;
    let mut places: Option<u8> = None;
    for byte in digits {
        match byte {
            b'0'..=b'9' if places == Some(scale) => {
                if *byte != b'0' {
                    return Err(Unfit::Range);
                }
            }
            b'0'..=b'9' => {
                let digit = i128::from(byte - b'0');
                value = value
                    .checked_mul(10)
                    .and_then(|value| value.checked_add(digit))
                    .ok_or(Unfit::Range)?;
                places = places.map(|places| places + 1);
            }
            b'.' if places.is_none() => places = Some(0),
            _ => return Err(Unfit::Unreadable),
        }
    }
    let missing = u32::from(scale - places.unwrap_or(0));
    let value =
        10_i128.checked_pow(missing).and_then(|by| value.checked_mul(by)).ok_or(Unfit::Range)?;
    Ok(if negative { -value } else { value })
}

fn hex(bytes: &[u8]) -> Result<Vec<u8>, Unfit> {
    let digits = bytes.strip_prefix(b"\\x").ok_or(Unfit::Unreadable)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.chunks(2).map(|pair| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    pairs.collect::<Option<_>>().ok_or(Unfit::Unreadable)
}

/// Reads `2024-01-31`, and the era at the very end, and returns the day and what is between.
fn day(bytes: &[u8]) -> Result<(i64, &[u8]), Unfit> {
    if matches!(bytes, b"infinity" | b"-infinity") {
        return Err(Unfit::Range);
    }
    let (bytes, before_christ) = match bytes.strip_suffix(b" BC") {
        Some(bytes) => (bytes, true),
        None => (bytes, false),
    };
    let mut rest = bytes;
    let year = number(&mut rest)?;
    skip(&mut rest, b'-')?;
    let month = number(&mut rest)?;
    skip(&mut rest, b'-')?;
    let date = number(&mut rest)?;
    let year = if before_christ { 1 - year } else { year };
    Ok((text::days(year, month, date), rest))
}

/// Reads `2024-01-31 23:59:59.5`, with or without the offset of UTC.
fn timestamp(bytes: &[u8]) -> Result<i64, Unfit> {
    let (day, mut rest) = day(bytes)?;
    skip(&mut rest, b' ')?;
    let hour = number(&mut rest)?;
    skip(&mut rest, b':')?;
    let minute = number(&mut rest)?;
    skip(&mut rest, b':')?;
    let second = number(&mut rest)?;
    let mut micros = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest = fraction;
        let missing = u32::try_from(digits).ok().and_then(|digits| 6_u32.checked_sub(digits));
        micros = number(&mut rest)? * 10_i64.pow(missing.ok_or(Unfit::Unreadable)?);
    }
    if !rest.is_empty() && rest != b"+00" {
        return Err(Unfit::Unreadable);
    }
    let within = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
    day.checked_mul(MICROS_PER_DAY).and_then(|day| day.checked_add(within)).ok_or(Unfit::Range)
}

fn number(rest: &mut &[u8]) -> Result<i64, Unfit> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, behind) = rest.split_at(digits);
    *rest = behind;
    if digits.is_empty() || digits.len() > 9 {
        return Err(Unfit::Unreadable);
    }
    Ok(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

fn skip(rest: &mut &[u8], byte: u8) -> Result<(), Unfit> {
    *rest = rest.strip_prefix(&[byte]).ok_or(Unfit::Unreadable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(format: Format) -> Column {
        Column { name: "c".to_owned(), format, convert: None, base: String::new(), padded: false }
    }

    #[test]
    fn what_has_no_place_in_the_type_is_refused() {
        let money = Format::Numeric { precision: 12, scale: 2 };
        for (format, text) in [
            (money, "NaN"),
            (money, "-Infinity"),
            (money, "1.005"),
            (money, "999999999999999999999999999999999999999999"),
            (Format::Date, "infinity"),
            (Format::Timestamp, "-infinity"),
        ] {
            assert_eq!(column(format).read(text.as_bytes()), Err(Unfit::Range), "{text}");
        }
        for (format, text) in [
            (money, "1,5"),
            (money, "1.2.3"),
            (Format::Int4, "x"),
            (Format::Date, "2024-01"),
            (Format::Date, "2024-01-01 00:00:00"),
            (Format::Timestamp, "2024-01-01"),
            (Format::Timestamp, "2024-01-01 00:00:00+02"),
            (Format::Timestamp, "2024-01-01 00:00:00.0000001"),
            (Format::Bytes, "\\xabc"),
            (Format::Bytes, "abc"),
        ] {
            assert_eq!(column(format).read(text.as_bytes()), Err(Unfit::Unreadable), "{text}");
        }
    }

    #[test]
    fn texts_become_the_values_that_they_stand_for() {
        let money = Format::Numeric { precision: 12, scale: 2 };
        for (format, text, cell) in [
            (money, "-0.05", Cell::Decimal(-5)),
            (money, "12", Cell::Decimal(1_200)),
            (money, "12.3", Cell::Decimal(1_230)),
            (Format::Boolean, "f", Cell::Boolean(false)),
            (Format::Int8, "-9223372036854775808", Cell::Integer(i64::MIN)),
            (Format::Double, "1e-300", Cell::Double(1e-300)),
            (Format::Double, "-Infinity", Cell::Double(f64::NEG_INFINITY)),
            (Format::Bytes, "\\x00fF", Cell::Bytes(vec![0, 255])),
            (Format::Date, "1970-01-02", Cell::Date(1)),
            (Format::Date, "0001-12-31 BC", Cell::Date(-719_163)),
            (Format::Date, "12000-01-01", Cell::Date(3_663_382)),
            (Format::Timestamp, "1969-12-31 23:59:59.5+00", Cell::Timestamp(-500_000)),
            (Format::Timestamp, "1970-01-01 00:00:00.000001", Cell::Timestamp(1)),
            (
                Format::Timestamp,
                "0001-12-31 00:00:00+00 BC",
                Cell::Timestamp(-62_135_683_200_000_000),
            ),
        ] {
            assert_eq!(column(format).read(text.as_bytes()), Ok(cell), "{text}");
        }
    }
}
