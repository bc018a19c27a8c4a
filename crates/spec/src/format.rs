//! Formats of dates and timestamps, and patterns of texts.

use chrono::{
    NaiveDate, NaiveDateTime, NaiveTime,
    format::{Item, Parsed, StrftimeItems},
};

/// A format that was read once and parses many texts.
#[derive(Debug, Clone)]
pub struct Format {
    items: Vec<Item<'static>>,
}

impl Format {
    /// Reads a strftime format.
    ///
    /// # Errors
    ///
    /// When it has a letter that strftime does not know.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let items: Vec<Item<'static>> = StrftimeItems::new(text).map(Item::to_owned).collect();
        if items.contains(&Item::Error) {
            return Err("has a letter that no date format knows");
        }
        Ok(Self { items })
    }

    /// Returns the day that a text of this format names: days since 1970-01-01.
    #[must_use]
    pub fn date(&self, text: &str) -> Option<i32> {
        let date = self.parsed(text)?.to_naive_date().ok()?;
        i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
    }

    /// Returns the moment that a text of this format names: microseconds since 1970-01-01 UTC. A
    /// text without an offset is UTC, one without a time is midnight.
    #[must_use]
    pub fn timestamp(&self, text: &str) -> Option<i64> {
        let parsed = self.parsed(text)?;
        if let Some(seconds) = parsed.timestamp() {
            return seconds.checked_mul(1_000_000);
        }
        let date = parsed.to_naive_date().ok()?;
        let has_time = parsed.hour_mod_12().is_some() || parsed.minute().is_some();
        let time = if has_time { parsed.to_naive_time().ok()? } else { NaiveTime::MIN };
        let local = NaiveDateTime::new(date, time);
        let offset = i64::from(parsed.offset().unwrap_or(0));
        local.and_utc().timestamp_micros().checked_sub(offset.checked_mul(1_000_000)?)
    }

    /// Writes a moment, given in microseconds since 1970-01-01 UTC, in this format.
    #[must_use]
    pub fn write(&self, micros: i64) -> Option<String> {
        let time = chrono::DateTime::from_timestamp_micros(micros)?;
        let mut text = String::new();
        std::fmt::Write::write_fmt(
            &mut text,
            format_args!("{}", time.format_with_items(self.items.iter())),
        )
        .ok()?;
        Some(text)
    }

    fn parsed(&self, text: &str) -> Option<Parsed> {
        let mut parsed = Parsed::new();
        chrono::format::parse(&mut parsed, text, self.items.iter()).ok()?;
        Some(parsed)
    }
}

/// Checks that a format names one day, or one moment.
pub(crate) fn check(text: &str, timestamp: bool) -> Result<(), &'static str> {
    let format = Format::parse(text)?;
    // Late in the day and in the month, so that no part can stand for another one.
    let sample = 984_786_309_000_000;
    let written = format.write(sample).ok_or("cannot be written")?;
    let day = format.date(&written);
    if timestamp {
        match format.timestamp(&written) {
            Some(_) => Ok(()),
            None => Err("does not say which day or time it is"),
        }
    } else if day.is_some() {
        Ok(())
    } else {
        Err("does not say which day it is")
    }
}

/// Compiles a pattern so that it has to match the whole text.
///
/// # Errors
///
/// The reason why it is not a regular expression.
pub fn whole_text(pattern: &str) -> Result<regex::Regex, String> {
    // Alone first: `a)(b` would only make sense inside the group.
    regex::Regex::new(pattern).and_then(|_| regex::Regex::new(&format!("^(?:{pattern})$"))).map_err(
        |error| match error {
            regex::Error::Syntax(text) => {
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            _ => "it cannot be read".to_owned(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_names_no_day_is_refused() {
        for text in ["%H:%M", "%Y-%m", "%Q", "day"] {
            assert!(check(text, false).is_err(), "{text}");
            assert!(check(text, true).is_err(), "{text}");
        }
        for text in ["%Y%m%d", "%d.%m.%y", "%Y-%j", "%b %d, %Y"] {
            assert_eq!(check(text, false), Ok(()), "{text}");
        }
        for text in ["%Y%m%d%H%M%S", "%s", "%d/%m/%Y %I:%M %p", "%Y-%m-%dT%H:%M:%S%z", "%Y%m%d"] {
            assert_eq!(check(text, true), Ok(()), "{text}");
        }
    }

    #[test]
    fn an_offset_is_honoured() {
        let format = Format::parse("%Y-%m-%d %H:%M %z").unwrap();
        assert_eq!(format.timestamp("1970-01-01 02:00 +0100"), Some(3_600_000_000));
        assert_eq!(format.timestamp("1970-01-01 02:00"), None);
    }

    #[test]
    fn a_pattern_matches_the_whole_text() {
        let pattern = whole_text("a|b").unwrap();
        assert!(pattern.is_match("a") && !pattern.is_match("ab") && !pattern.is_match("a\n"));
        assert!(whole_text("(").is_err());
        assert!(whole_text("a)(b").is_err());
    }
}
