//! Durations and sizes as people write them.

use std::fmt;

use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};

/// Splits `256MiB` into the number and the unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

struct NumberOrText {
    expected: &'static str,
    parse: fn(&str) -> Option<u64>,
}

impl Visitor<'_> for NumberOrText {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        (self.parse)(&number.to_string()).ok_or_else(|| E::custom(self.expected))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        (self.parse)(&number.to_string()).ok_or_else(|| E::custom(self.expected))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        (self.parse)(text).ok_or_else(|| E::custom(format!("`{text}` is not {}", self.expected)))
    }
}

pub(crate) mod duration {
    use std::time::Duration;

    use super::{Deserializer, NumberOrText, Serializer, split};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}ms", duration.as_millis()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        deserializer
            .deserialize_any(NumberOrText { expected: "a duration such as `60s`", parse: millis })
            .map(Duration::from_millis)
    }

    fn millis(text: &str) -> Option<u64> {
        let (number, unit) = split(text)?;
        let factor = match unit {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.checked_mul(factor)
    }
}

pub(crate) mod size {
    use super::{Deserializer, NumberOrText, Serializer, split};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(crate) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(*bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        deserializer
            .deserialize_any(NumberOrText { expected: "a size such as `256MiB`", parse: bytes })
    }

    fn bytes(text: &str) -> Option<u64> {
        let (number, unit) = split(text)?;
        let shift = match unit {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return None,
        };
        number.checked_mul(1 << shift)
    }
}
