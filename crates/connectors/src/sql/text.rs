//! Values as text: how SQLite keeps them, and how cursors and ids name them.

use arrow_array::{
    Array, ArrayRef, Decimal128Array,
    cast::AsArray,
    types::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType},
};
use arrow_schema::DataType;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Returns year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian
/// calendar, in which the year before 1 is 0.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Returns the day counted from 1970-01-01.
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// How years outside of 1 to 9999 are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Years {
    /// `-0043`, `+12000`: ISO 8601.
    Signed,
    /// `0044-03-15 BC`, `12000-01-01`: PostgreSQL.
    Eras,
}

fn year_text(year: i64, years: Years) -> (String, &'static str) {
    match years {
        Years::Signed if year < 0 => (format!("-{:04}", -year), ""),
        Years::Signed if year > 9_999 => (format!("+{year}"), ""),
        Years::Eras if year < 1 => (format!("{:04}", 1 - year), " BC"),
        Years::Signed | Years::Eras => (format!("{year:04}"), ""),
    }
}

/// Returns a day as ISO 8601.
pub(crate) fn date(value: i64, years: Years) -> String {
    let (year, month, day) = civil(value);
    let (year, era) = year_text(year, years);
    format!("{year}-{month:02}-{day:02}{era}")
}

/// Returns microseconds as ISO 8601 in UTC with six digits behind the point, which sort as text.
pub(crate) fn timestamp(value: i64, years: Years) -> String {
    let (year, month, day) = civil(value.div_euclid(MICROS_PER_DAY));
    let micros = value.rem_euclid(MICROS_PER_DAY);
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (year, era) = year_text(year, years);
    format!(
        "{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{fraction:06}Z{era}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Returns a decimal digit by digit.
pub(crate) fn decimal(value: i128, scale: u8) -> String {
    let digits = format!("{:0width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if value < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// Returns a value of a column, which is not null.
pub(crate) fn cell(values: &ArrayRef, row: usize, years: Years) -> String {
    match values.data_type() {
        DataType::Boolean => values.as_boolean().value(row).to_string(),
        DataType::Int64 => values.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => format!("{:?}", values.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => {
            let array: &Decimal128Array = values.as_primitive();
            decimal(array.value(row), u8::try_from(*scale).unwrap_or(0))
        }
        DataType::Utf8 => values.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => hex(values.as_binary::<i32>().value(row)),
        DataType::Date32 => date(i64::from(values.as_primitive::<Date32Type>().value(row)), years),
        _ => timestamp(values.as_primitive::<TimestampMicrosecondType>().value(row), years),
    }
}

/// Returns bytes as PostgreSQL writes them.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("\\x");
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// A date or time that was read from text, and how it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Microseconds since 1970-01-01.
    micros: i64,
    separator: Option<char>,
    fraction: usize,
    utc: bool,
}

impl Moment {
    /// Reads `2024-01-31`, `2024-01-31 23:59:59.123`, with `T` or a space and with or without `Z`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<i64>().ok()).flatten()
        };
        let (day_text, rest) = text.split_at_checked(10)?;
        let mut parts = day_text.split('-').map(number);
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        let midnight = days(year, month, day) * MICROS_PER_DAY;
        let Some(separator) = rest.chars().next() else {
            return Some(Self { micros: midnight, separator: None, fraction: 0, utc: false });
        };
        if separator != 'T' && separator != ' ' {
            return None;
        }
        let time = rest[1..].trim_end_matches('Z');
        let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
        let mut parts = clock.split(':').map(number);
        let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
        let micros =
            if fraction.is_empty() { 0 } else { number(format!("{fraction:0<6}").get(..6)?)? };
        Some(Self {
            micros: midnight + ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros,
            separator: Some(separator),
            fraction: fraction.len(),
            utc: rest.ends_with('Z'),
        })
    }

    /// Returns the moment so much earlier, written in the same way.
    pub(crate) fn before(self, lag_micros: i64) -> String {
        let text = timestamp(self.micros - lag_micros, Years::Signed);
        let Some(separator) = self.separator else {
            return text.chars().take_while(|c| *c != 'T').collect();
        };
        let (whole, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((&text, ""));
        let mut written = whole.replace('T', &separator.to_string());
        if self.fraction > 0 {
            written.push_str(&format!(".{fraction:0<width$.width$}", width = self.fraction));
        }
        if self.utc {
            written.push('Z');
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree_over_the_whole_calendar() {
        for day in (-3_000_000..3_000_000).step_by(997) {
            let (year, month, date) = civil(day);
            assert_eq!(days(year, month, date), day);
        }
        assert_eq!(date(-1, Years::Signed), "1969-12-31");
        assert_eq!(date(11_016, Years::Signed), "2000-02-29");
        assert_eq!(date(-719_163, Years::Eras), "0001-12-31 BC");
    }

    #[test]
    fn a_time_before_1970_keeps_its_fraction() {
        assert_eq!(timestamp(-1, Years::Signed), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_decimal_keeps_sign_and_zeros() {
        assert_eq!(decimal(-5, 2), "-0.05");
        assert_eq!(decimal(1_200, 2), "12.00");
        assert_eq!(decimal(-7, 0), "-7");
    }

    #[test]
    fn a_moment_is_written_as_it_was_read() {
        for text in [
            "2024-03-01",
            "2024-03-01 00:00:30",
            "2024-03-01T00:00:30.5Z",
            "2024-03-01T00:00:30.000001Z",
        ] {
            assert_eq!(Moment::parse(text).unwrap().before(0), text);
        }
        let moment = Moment::parse("2024-03-01 00:00:30").unwrap();
        assert_eq!(moment.before(60_000_000), "2024-02-29 23:59:30");
        for text in ["", "2024", "1709251200", "01.03.2024 00:00", "2024-03-01x"] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }
}
