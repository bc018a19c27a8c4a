//! Durations and sizes with units.

use std::time::Duration;

use super::ConfigError;

const DURATIONS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
];

/// Reads a duration: parts of a whole number and `ms`, `s`, `m`, `h` or `d`, such as `90s` or
/// `1h30m`.
///
/// # Errors
///
/// When a unit is missing or unknown, or the duration is too long.
pub fn parse_duration(text: &str) -> Result<Duration, ConfigError> {
    let fail = || {
        ConfigError::new(format!(
            "`{text}` is not a duration, write a number and `ms`, `s`, `m`, `h` or `d`, such as `30s`"
        ))
    };
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(fail());
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(fail)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let part = scaled(number, unit, &DURATIONS).ok_or_else(fail)?;
        total = total.checked_add(part).ok_or_else(fail)?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// Reads a size in bytes: a whole number and `B`, `KiB`, `MiB`, `GiB`, `TiB`, `KB` or `MB`, such as
/// `8MiB`.
///
/// # Errors
///
/// When the unit is missing or unknown, or the size is too large.
pub fn parse_size(text: &str) -> Result<u64, ConfigError> {
    let size = split_number(text.trim()).and_then(|(number, unit)| scaled(number, unit, &SIZES));
    size.ok_or_else(|| {
        ConfigError::new(format!(
            "`{text}` is not a size, write a number and `B`, `KiB`, `MiB`, `GiB` or `TiB`, such as `8MiB`"
        ))
    })
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

fn scaled(number: u64, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit = unit.trim();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// A value in the largest unit that leaves nothing over.
fn written(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(*factor);
    let unit = units.iter().filter(fits).max_by_key(|(_, factor)| *factor);
    let (name, factor) = unit.unwrap_or(&units[0]);
    format!("{}{name}", value / factor)
}

/// For `#[serde(with = "…")]` on a [`Duration`]: written with units, such as `30s`.
pub mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{DURATIONS, Duration, parse_duration, written};

    /// Writes a duration, exact to the millisecond.
    ///
    /// # Errors
    ///
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        serializer.serialize_str(&written(millis, &DURATIONS))
    }

    /// Reads a duration.
    ///
    /// # Errors
    ///
    /// As [`parse_duration`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map_err(D::Error::custom)
    }
}

/// For `#[serde(with = "…")]` on a number of bytes: written with units, such as `8MiB`.
pub mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{SIZES, parse_size, written};

    /// Writes a size.
    ///
    /// # Errors
    ///
    /// Only those of the serializer.
    pub fn serialize<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Copy + TryInto<u64>,
        S: Serializer,
    {
        let bytes = (*value).try_into().unwrap_or(u64::MAX);
        serializer.serialize_str(&written(bytes, &SIZES))
    }

    /// Reads a size.
    ///
    /// # Errors
    ///
    /// As [`parse_size`], and where the number of bytes does not fit the type.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: TryFrom<u64>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        let bytes = parse_size(&text).map_err(D::Error::custom)?;
        T::try_from(bytes).map_err(|_| D::Error::custom("the size is too large"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "5", "s", "1x", "-1s", "1.5s", "99999999999999999999d", "1h30"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "5", "MiB", "1mib", "99999999TiB99", "18446744073709551615KiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn units_are_read() {
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("1d 2s").unwrap(), Duration::from_secs(86_402));
        assert_eq!(parse_size("8MiB").unwrap(), 8 << 20);
        assert_eq!(parse_size("5 MB").unwrap(), 5_000_000);
    }

    #[test]
    fn values_are_written_in_the_largest_unit() {
        assert_eq!(written(90_000, &DURATIONS), "90s");
        assert_eq!(written(7_200_000, &DURATIONS), "2h");
        assert_eq!(written(0, &DURATIONS), "0ms");
        assert_eq!(written(384 << 10, &SIZES), "384KiB");
    }
}
