//! How values are written as text: in files, in defaults, in JSON.
//!
//! Everything here is exact or refused: no number is rounded, no digit lost. Spaces and tabs around
//! numbers, booleans, dates and times are ignored.

use model::FieldType;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Powers of ten that fit 128 bits.
const POWERS: [i128; 39] = {
    let mut powers = [1_i128; 39];
    let mut exponent = 1;
    while exponent < 39 {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// Returns ten to `exponent`, which is at most 38.
#[must_use]
pub fn power_of_ten(exponent: u8) -> Option<i128> {
    POWERS.get(usize::from(exponent)).copied()
}

/// Tells whether `text` is a value of a type, in the default formats.
#[must_use]
pub fn is_value(text: &str, field_type: FieldType) -> bool {
    match field_type {
        FieldType::Boolean => boolean(text).is_some(),
        FieldType::Integer => integer(text).is_some(),
        FieldType::Double => double(text).is_some(),
        FieldType::Decimal { precision, scale } => decimal(text, precision, scale).is_some(),
        FieldType::Text => !text.contains('\0'),
        FieldType::Bytes => bytes(text).is_some(),
        FieldType::Date => date(text).is_some(),
        FieldType::Timestamp => timestamp(text).is_some(),
        FieldType::Json => serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok(),
    }
}

/// Reads `true`, `t`, `yes`, `1` and their opposites, in upper or lower case.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    let text = trim(text.as_bytes());
    let is_any =
        |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    if is_any(["true", "t", "yes", "1"]) {
        Some(true)
    } else if is_any(["false", "f", "no", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// Reads a whole number of 64 bits; decimal places are allowed if they are all zero.
#[must_use]
pub fn integer(text: &str) -> Option<i64> {
    let text = trim(text.as_bytes());
    let (negative, digits) = sign(text);
    let mut value: i64 = 0;
    let mut at = 0;
    // Eighteen digits always fit.
    while at < digits.len() && at < 18 && digits[at].is_ascii_digit() {
        value = value * 10 + i64::from(digits[at] - b'0');
        at += 1;
    }
    if at == 0 {
        return None;
    }
    if negative {
        value = -value;
    }
    while at < digits.len() && digits[at].is_ascii_digit() {
        let digit = i64::from(digits[at] - b'0');
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
        at += 1;
    }
    match &digits[at..] {
        [] => Some(value),
        [b'.', zeros @ ..] if !zeros.is_empty() && zeros.iter().all(|b| *b == b'0') => Some(value),
        _ => None,
    }
}

/// Reads a floating-point number; infinity and not-a-number are no values.
#[must_use]
pub fn double(text: &str) -> Option<f64> {
    let text = text.trim_matches([' ', '\t']);
    let starts_well = text
        .bytes()
        .find(|b| !matches!(b, b'+' | b'-'))
        .is_some_and(|b| b.is_ascii_digit() || b == b'.');
    let value: f64 = starts_well.then(|| text.parse().ok())??;
    value.is_finite().then_some(value)
}

/// Reads a decimal as an integer of `scale` decimal places, with at most `precision` digits.
///
/// An exponent is resolved exactly. Places beyond the scale have to be zero.
#[must_use]
pub fn decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let (negative, rest) = sign(trim(text.as_bytes()));
    // The usual case: few digits, no exponent.
    if rest.len() <= 18 {
        let mut value: i64 = 0;
        let mut places: Option<u8> = None;
        let mut digits = 0;
        let mut simple = true;
        for byte in rest {
            match byte {
                b'0'..=b'9' => {
                    value = value * 10 + i64::from(byte - b'0');
                    digits += 1;
                    if let Some(places) = &mut places {
                        *places += 1;
                    }
                }
                b'.' if places.is_none() => places = Some(0),
                _ => {
                    simple = false;
                    break;
                }
            }
        }
        let ends_in_point = places == Some(0);
        let places = places.unwrap_or(0);
        if simple && places <= scale {
            if digits == 0 || ends_in_point {
                return None;
            }
            let value = i128::from(value).checked_mul(power_of_ten(scale - places)?)?;
            return fit(if negative { -value } else { value }, precision);
        }
    }
    decimal_in_full(negative, rest, precision, scale)
}

fn decimal_in_full(negative: bool, text: &[u8], precision: u8, scale: u8) -> Option<i128> {
    let exponent_at = text.iter().position(|b| matches!(b, b'e' | b'E'));
    let (number, exponent) = match exponent_at {
        Some(at) => (&text[..at], small_exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let point = number.iter().position(|b| *b == b'.');
    let (whole, places) = match point {
        Some(at) => (&number[..at], &number[at + 1..]),
        None => (number, &number[..0]),
    };
    if whole.len() + places.len() == 0 || (point.is_some() && places.is_empty()) {
        return None;
    }
    // Position of the point behind the first digit of `whole`.
    let point = i64::try_from(whole.len()).ok()? + exponent;
    let last = point + i64::from(scale);
    let mut value: i128 = 0;
    let mut index: i64 = 0;
    for byte in whole.iter().chain(places) {
        if !byte.is_ascii_digit() {
            return None;
        }
        if index < last {
            value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
        } else if *byte != b'0' {
            return None;
        }
        index += 1;
    }
    if value != 0 && index < last {
        value = value.checked_mul(power_of_ten(u8::try_from(last - index).ok()?)?)?;
    }
    fit(if negative { -value } else { value }, precision)
}

/// Returns the value if it has at most `precision` digits.
#[must_use]
pub fn fit(value: i128, precision: u8) -> Option<i128> {
    match power_of_ten(precision) {
        Some(limit) => (value > -limit && value < limit).then_some(value),
        None => Some(value),
    }
}

fn small_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = sign(text);
    if digits.is_empty() || digits.len() > 4 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value, byte| value * 10 + i64::from(byte - b'0'));
    Some(if negative { -value } else { value })
}

/// Reads `YYYY-MM-DD`, also with a time of midnight behind it: days since 1970-01-01.
#[must_use]
pub fn date(text: &str) -> Option<i32> {
    let text = trim(text.as_bytes());
    let (day, rest) = text.split_at_checked(10)?;
    let days = day_number(day)?;
    if !rest.is_empty() {
        let (seconds, micros, rest) = time_of_day(rest)?;
        if seconds != 0 || micros != 0 || !matches!(rest, [] | [b'Z' | b'z']) {
            return None;
        }
    }
    Some(days)
}

/// Reads an ISO 8601 date and time: microseconds since 1970-01-01 UTC.
///
/// `T` or a space stands before the time; the time may be missing and is midnight then. Without an
/// offset (`Z`, `+02`, `+0200`, `+02:00`) it is UTC. Digits beyond the microsecond are cut off.
#[must_use]
pub fn timestamp(text: &str) -> Option<i64> {
    let text = trim(text.as_bytes());
    let (day, rest) = text.split_at_checked(10)?;
    let days = i64::from(day_number(day)?);
    let (seconds, micros, offset) = if rest.is_empty() {
        (0, 0, 0)
    } else {
        let (seconds, micros, rest) = time_of_day(rest)?;
        (seconds, micros, offset(rest)?)
    };
    let seconds = days * SECONDS_PER_DAY + seconds - offset;
    Some(seconds * MICROS_PER_SECOND + micros)
}

/// Reads base64 with padding.
#[must_use]
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).ok()
}

/// Reads `YYYY-MM-DD` of the years 0001 to 9999.
fn day_number(text: &[u8]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else {
        return None;
    };
    let year = i32::from(two_digits(*y1, *y2)?) * 100 + i32::from(two_digits(*y3, *y4)?);
    let month = i32::from(two_digits(*m1, *m2)?);
    let day = i32::from(two_digits(*d1, *d2)?);
    if year == 0 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    // Counts in years that begin in March, so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn days_in_month(year: i32, month: i32) -> i32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Reads `THH:MM[:SS[.fraction]]` and returns seconds, microseconds and what follows.
fn time_of_day(text: &[u8]) -> Option<(i64, i64, &[u8])> {
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, rest @ ..] = text else {
        return None;
    };
    let hours = i64::from(two_digits(*h1, *h2)?);
    let minutes = i64::from(two_digits(*m1, *m2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let whole = (hours * 60 + minutes) * 60;
    let [b':', s1, s2, rest @ ..] = rest else {
        return Some((whole, 0, rest));
    };
    let seconds = i64::from(two_digits(*s1, *s2)?);
    if seconds > 59 {
        return None;
    }
    let [b'.' | b',', rest @ ..] = rest else {
        return Some((whole + seconds, 0, rest));
    };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > 9 {
        return None;
    }
    let (fraction, rest) = rest.split_at(digits);
    let places = fraction.iter().copied().chain(std::iter::repeat(b'0'));
    let micros = places.take(6).fold(0, |micros, digit| micros * 10 + i64::from(digit - b'0'));
    Some((whole + seconds, micros, rest))
}

/// Reads the offset from UTC, in seconds.
fn offset(text: &[u8]) -> Option<i64> {
    let text = match text {
        [b' ', rest @ ..] => rest,
        _ => text,
    };
    let (sign, digits) = match text {
        [] | [b'Z' | b'z'] | [b'U', b'T', b'C'] => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [h1, h2] => (two_digits(*h1, *h2)?, 0),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?),
        _ => return None,
    };
    if hours > 18 || minutes > 59 {
        return None;
    }
    Some(sign * (i64::from(hours) * 60 + i64::from(minutes)) * 60)
}

fn two_digits(high: u8, low: u8) -> Option<u8> {
    let (high, low) = (high.wrapping_sub(b'0'), low.wrapping_sub(b'0'));
    (high < 10 && low < 10).then(|| high * 10 + low)
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

fn trim(text: &[u8]) -> &[u8] {
    let mut text = text;
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lose_digits_is_no_integer() {
        for text in [
            "",
            "-",
            "+",
            "1.5",
            "1.",
            ".5",
            "1e3",
            "0x10",
            "1_000",
            "1,000",
            "12a",
            "１",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "1 2",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
        assert_eq!(integer("9223372036854775807"), Some(i64::MAX));
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer(" +007.00\t"), Some(7));
    }

    #[test]
    fn a_decimal_is_exact_or_refused() {
        for text in [
            "",
            ".",
            "-",
            "1.",
            "1.234",
            "1234567.00",
            "12.3.4",
            "1e",
            "1e99999",
            "abc",
            "1,5",
            "1.2e-1.0",
            "inf",
            "0x1",
        ] {
            assert_eq!(decimal(text, 8, 2), None, "{text}");
        }
        for (text, expected) in [
            ("12.50", 1250),
            ("-0.5", -50),
            (".5", 50),
            ("7", 700),
            ("1.2300", 123),
            ("1.25e2", 12500),
            ("125000e-3", 12500),
            ("999999.99", 99_999_999),
            ("0.000000000000000000000000000000", 0),
            ("0e400", 0),
        ] {
            assert_eq!(decimal(text, 8, 2), Some(expected), "{text}");
        }
        let long = "12345678901234567890123456789012345.678";
        assert_eq!(decimal(long, 38, 3), Some(12_345_678_901_234_567_890_123_456_789_012_345_678));
        assert_eq!(decimal(long, 37, 3), None);
    }

    #[test]
    fn no_number_is_no_double() {
        for text in ["", "NaN", "inf", "-infinity", "1e999", "1,5", "0x1p3", "--1"] {
            assert_eq!(double(text), None, "{text}");
        }
        assert_eq!(double("-1.5e3"), Some(-1500.0));
        assert_eq!(double(".5"), Some(0.5));
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in [
            "",
            "2023-02-29",
            "1900-02-29",
            "2023-04-31",
            "2023-13-01",
            "2023-00-10",
            "0000-01-01",
            "2023-1-1",
            "20230101",
            "2023-01-01T00:00:01",
            "2023-01-01x",
            "2023/01/01",
        ] {
            assert_eq!(date(text), None, "{text}");
        }
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("2000-02-29"), Some(11_016));
        assert_eq!(date("1969-12-31T00:00:00Z"), Some(-1));
        assert_eq!(date("0001-01-01"), Some(-719_162));
        assert_eq!(date("9999-12-31"), Some(2_932_896));
    }

    #[test]
    fn a_date_agrees_with_the_calendar() {
        let mut day = chrono::NaiveDate::from_ymd_opt(1, 1, 1).unwrap();
        let epoch = chrono::NaiveDate::default();
        while day.format("%Y").to_string().len() == 4 {
            let expected = day.signed_duration_since(epoch).num_days();
            assert_eq!(date(&day.to_string()).map(i64::from), Some(expected), "{day}");
            day = day + chrono::Days::new(17);
        }
    }

    #[test]
    fn moments_are_utc_unless_they_say_otherwise() {
        for text in [
            "2024-01-01T24:00:00",
            "2024-01-01T00:60:00",
            "2024-01-01T00:00:60",
            "2024-01-01T1:00",
            "2024-01-01T00:00:00+25:00",
            "2024-01-01T00:00:00.",
            "2024-01-01T00:00:00 CET",
            "2024-01-01T00:00:00.1234567890",
            "2024-01-01T00:\u{15}0",
            "yesterday",
            "2024-01-01T",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
        for (text, expected) in [
            ("1970-01-01", 0),
            ("1970-01-01 00:00", 0),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31 19:00:00-0500", 0),
            ("1970-01-01T00:00:00.25Z", 250_000),
            ("1970-01-01 00:00:01,123456789 UTC", 1_123_456),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("1970-01-01 00:00:00+00", 0),
        ] {
            assert_eq!(timestamp(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_boolean_is_one_of_few_words() {
        for text in ["", "2", "yess", "on", "-1", "null"] {
            assert_eq!(boolean(text), None, "{text}");
        }
        assert_eq!((boolean("YES"), boolean(" f ")), (Some(true), Some(false)));
    }
}
