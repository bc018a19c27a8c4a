//! What is new: values of a field that grows with every change.

use std::borrow::Cow;

use chrono::{DateTime, Timelike};
use spec::{NewsKind, TimeFormat, format::Format, text, text_of};

/// Reads and writes the values of a growing field, in its units.
pub(super) struct Scale {
    kind: NewsKind,
    format: Option<Format>,
}

impl Scale {
    pub(super) fn new(kind: &NewsKind) -> Self {
        let format = match kind {
            NewsKind::Timestamp(TimeFormat::Format(text)) | NewsKind::Date(Some(text)) => {
                Format::parse(text).ok()
            }
            _ => None,
        };
        Self { kind: kind.clone(), format }
    }

    /// Reads a value, given as JSON. Nothing for null and for what is none.
    pub(super) fn read(&self, json: &str) -> Option<i64> {
        self.parse(&text_of(json))
    }

    /// Reads a value as the API or a user writes it.
    pub(super) fn parse(&self, written: &str) -> Option<i64> {
        let written = written.trim();
        if written.is_empty() {
            return None;
        }
        match (&self.kind, &self.format) {
            (NewsKind::Timestamp(_), Some(format)) => {
                format.timestamp(written).or_else(|| text::timestamp(written))
            }
            (NewsKind::Timestamp(TimeFormat::Seconds), _) => scaled(written, 6),
            (NewsKind::Timestamp(TimeFormat::Milliseconds), _) => scaled(written, 3),
            (NewsKind::Timestamp(_), _) => text::timestamp(written),
            (NewsKind::Date(_), Some(format)) => {
                format.date(written).or_else(|| text::date(written)).map(i64::from)
            }
            (NewsKind::Date(_), None) => text::date(written)
                .map(i64::from)
                .or_else(|| Some(text::timestamp(written)?.div_euclid(86_400_000_000))),
            (NewsKind::Number, _) => text::integer(written),
        }
        .or_else(|| self.standard(written))
    }

    /// Users write moments as such, whatever the API does.
    fn standard(&self, written: &str) -> Option<i64> {
        match self.kind {
            NewsKind::Timestamp(_) if written.contains('-') => text::timestamp(written),
            _ => None,
        }
    }

    /// Writes a value for the API, as JSON.
    pub(super) fn write(&self, value: i64) -> Option<String> {
        let quoted = |text: String| spec::quoted(&text);
        match (&self.kind, &self.format) {
            (NewsKind::Number, _) => Some(value.to_string()),
            (NewsKind::Timestamp(TimeFormat::Seconds), _) => {
                Some(value.div_euclid(1_000_000).to_string())
            }
            (NewsKind::Timestamp(TimeFormat::Milliseconds), _) => {
                Some(value.div_euclid(1_000).to_string())
            }
            (NewsKind::Timestamp(_), Some(format)) => format.write(value).map(quoted),
            (NewsKind::Timestamp(_), None) => {
                let time = DateTime::from_timestamp_micros(value)?;
                let digits = if time.nanosecond() == 0 { "" } else { "%.6f" };
                Some(quoted(time.format(&format!("%Y-%m-%dT%H:%M:%S{digits}Z")).to_string()))
            }
            (NewsKind::Date(_), format) => {
                let micros = value.checked_mul(86_400_000_000)?;
                match format {
                    Some(format) => format.write(micros).map(quoted),
                    None => {
                        let day = DateTime::from_timestamp_micros(micros)?;
                        Some(quoted(day.format("%Y-%m-%d").to_string()))
                    }
                }
            }
        }
    }

    /// Returns the present in the units of the field; nothing for numbers.
    pub(super) fn now(&self, micros: i64) -> Option<i64> {
        match self.kind {
            NewsKind::Timestamp(_) => Some(micros),
            NewsKind::Date(_) => Some(micros.div_euclid(86_400_000_000) + 1),
            NewsKind::Number => None,
        }
    }
}

/// Reads a number of seconds or milliseconds with at most `digits` decimal places, exactly.
fn scaled(written: &str, digits: usize) -> Option<i64> {
    let (whole, fraction) = written.split_once('.').unwrap_or((written, ""));
    let mut fraction: Cow<'_, str> = Cow::Borrowed(fraction.get(..digits).unwrap_or(fraction));
    while fraction.len() < digits {
        fraction.to_mut().push('0');
    }
    let number: i64 = whole.parse().ok()?;
    let part: i64 = fraction.parse().ok()?;
    let factor = 10_i64.checked_pow(u32::try_from(digits).ok()?)?;
    let part = if whole.starts_with('-') { -part } else { part };
    number.checked_mul(factor)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_value_is_nothing() {
        let scale = Scale::new(&NewsKind::Timestamp(TimeFormat::Seconds));
        for json in ["null", "\"\"", "\"soon\"", "{}", "[1]"] {
            assert_eq!(scale.read(json), None, "{json}");
        }
    }

    #[test]
    fn a_value_is_written_as_it_was_read() {
        let format = |text: &str| NewsKind::Timestamp(TimeFormat::Format(text.to_owned()));
        for (kind, json) in [
            (NewsKind::Timestamp(TimeFormat::Iso), "\"2026-11-23T22:00:00Z\""),
            (NewsKind::Timestamp(TimeFormat::Iso), "\"2026-11-23T22:00:00.250000Z\""),
            (NewsKind::Timestamp(TimeFormat::Seconds), "1764000000"),
            (NewsKind::Timestamp(TimeFormat::Milliseconds), "1764000000123"),
            (format("%d.%m.%Y %H:%M:%S"), "\"23.11.2026 22:00:00\""),
            (NewsKind::Date(None), "\"2026-11-23\""),
            (NewsKind::Date(Some("%Y%m%d".to_owned())), "\"20261123\""),
            (NewsKind::Number, "42"),
        ] {
            let scale = Scale::new(&kind);
            let value = scale.read(json).unwrap();
            assert_eq!(scale.write(value).unwrap(), json, "{kind:?}");
        }
        let seconds = Scale::new(&NewsKind::Timestamp(TimeFormat::Seconds));
        assert_eq!(seconds.read("1764000000.5"), Some(1_764_000_000_500_000));
        assert_eq!(seconds.parse("2026-11-23T00:00:00Z"), text::timestamp("2026-11-23T00:00:00Z"));
    }
}
