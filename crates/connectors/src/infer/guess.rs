use model::FieldType;

/// Digits of an integer that fits 64 bits whatever they are.
const INTEGER_DIGITS: u32 = 18;

/// Digits of a decimal.
const DECIMAL_DIGITS: u32 = 38;

/// Digits that a double gives back.
const DOUBLE_DIGITS: u32 = 15;

/// The narrowest type that fits all values that were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    /// No value was seen.
    #[default]
    Nothing,
    Boolean,
    Integer,
    Decimal,
    Double,
    Date,
    Timestamp,
    Text,
    Json,
}

/// What the values of one field have in common.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Guess {
    kind: Kind,
    /// Most digits before the point of a number.
    whole: u32,
    /// Most digits behind the point of a number.
    scale: u32,
}

/// A number as it is written.
struct Number {
    kind: Kind,
    whole: u32,
    scale: u32,
}

impl Guess {
    /// Looks at a value of a text format, in which nothing but its form tells its type.
    pub(super) fn add_text(&mut self, text: &str) {
        match number(text) {
            Some(number) if number.kind != Kind::Double => self.add_number(&number),
            _ => self.add_kind(match text {
                "true" | "false" => Kind::Boolean,
                _ => time_kind(text),
            }),
        }
    }

    /// Looks at the JSON text of a value, which tells texts from all others. Only dates and
    /// timestamps, for which JSON has no type, are taken from their form.
    pub(super) fn add_json(&mut self, json: &str) {
        match json.as_bytes() {
            [b'{' | b'[', ..] => self.add_kind(Kind::Json),
            [b't' | b'f', ..] => self.add_kind(Kind::Boolean),
            [b'"', .., b'"'] => self.add_kind(time_kind(&json[1..json.len() - 1])),
            [b'n', ..] => {}
            _ => match number(json) {
                Some(number) => self.add_number(&number),
                None => self.add_kind(Kind::Text),
            },
        }
    }

    /// Returns the type; text if nothing was seen.
    pub(super) fn field_type(&self) -> FieldType {
        let digits = self.whole + self.scale;
        match self.kind {
            Kind::Boolean => FieldType::Boolean,
            Kind::Integer if self.whole <= INTEGER_DIGITS => FieldType::Integer,
            Kind::Decimal if digits <= DECIMAL_DIGITS => FieldType::Decimal {
                precision: if digits <= INTEGER_DIGITS { 18 } else { 38 },
                scale: u8::try_from(self.scale).unwrap_or(u8::MAX),
            },
            Kind::Double if digits <= DOUBLE_DIGITS => FieldType::Double,
            Kind::Date => FieldType::Date,
            Kind::Timestamp => FieldType::Timestamp,
            Kind::Json => FieldType::Json,
            Kind::Nothing | Kind::Text | Kind::Integer | Kind::Decimal | Kind::Double => {
                FieldType::Text
            }
        }
    }

    fn add_number(&mut self, number: &Number) {
        self.whole = self.whole.max(number.whole);
        self.scale = self.scale.max(number.scale);
        self.add_kind(number.kind);
    }

    fn add_kind(&mut self, kind: Kind) {
        use Kind::{Decimal, Double, Integer, Json, Nothing, Text};
        self.kind = match (self.kind, kind) {
            (Nothing, kind) => kind,
            (known, kind) if known == kind => known,
            (Integer, Decimal) | (Decimal, Integer) => Decimal,
            (Integer | Decimal, Double) | (Double, Integer | Decimal) => Double,
            (Json, _) | (_, Json) => Json,
            _ => Text,
        };
    }
}

/// Takes a number apart that is written as a number type would write it: no leading zero or plus,
/// nothing but digits, one point, and an exponent for doubles.
fn number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = is_digits(whole) && (whole == "0" || !whole.starts_with('0'));
    let is_fraction = fraction.is_none_or(is_digits);
    let is_exponent =
        exponent.is_none_or(|text| is_digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
    // The sign of an integer zero would be lost.
    if !(is_whole && is_fraction && is_exponent) || text == "-0" {
        return None;
    }
    let count = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX / 4);
    Some(Number {
        kind: match (exponent, fraction) {
            (Some(_), _) => Kind::Double,
            (None, Some(_)) => Kind::Decimal,
            (None, None) => Kind::Integer,
        },
        whole: if whole == "0" { 1 } else { count(whole) },
        scale: fraction.map_or(0, count),
    })
}

/// Tells dates and timestamps in ISO 8601 from other texts.
///
/// Of what would be read as such only the usual forms count, and only what comes back: a timestamp
/// holds microseconds, so more digits are text.
fn time_kind(text: &str) -> Kind {
    // What is not ASCII cannot be cut at fixed places.
    if !text.is_ascii() || text.len() < 10 {
        return Kind::Text;
    }
    let (day, rest) = text.split_at(10);
    if !has_form(day, "0000-00-00") {
        return Kind::Text;
    }
    if rest.is_empty() {
        return if spec::text::date(text).is_some() { Kind::Date } else { Kind::Text };
    }
    let Some(time) = rest.strip_prefix(['T', ' ']).filter(|time| time.len() >= 8) else {
        return Kind::Text;
    };
    let (time, rest) = time.split_at(8);
    let fraction = rest.strip_prefix('.').unwrap_or_default();
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let zone = if fraction.is_empty() { rest } else { &fraction[digits..] };
    let is_usual = has_form(time, "00:00:00")
        && (fraction.is_empty() || (1..=6).contains(&digits))
        && (zone.is_empty() || zone == "Z" || has_form(&zone[1..], "00:00"));
    if is_usual && spec::text::timestamp(text).is_some() { Kind::Timestamp } else { Kind::Text }
}

/// Tells whether a text has digits where the form has `0`, and is like the form elsewhere.
fn has_form(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            form => byte == form,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(values: &[&str]) -> String {
        let mut guess = Guess::default();
        values.iter().for_each(|value| guess.add_text(value));
        guess.field_type().to_string()
    }

    fn json(values: &[&str]) -> String {
        let mut guess = Guess::default();
        values.iter().for_each(|value| guess.add_json(value));
        guess.field_type().to_string()
    }

    #[test]
    fn what_would_not_come_back_digit_by_digit_is_text() {
        for value in [
            "+441234567890",
            "007",
            "00",
            "1234567890123456789",
            "-0",
            "1e5",
            "1.",
            ".5",
            "1,5",
            " 1",
            "1 ",
            "",
            "٣",
            "123456789012345678901234567890.123456789",
            "2024-02-30",
            "2024-1-05",
            "05.01.2024",
            "2024-01-05T10:00",
            "2024-01-05T25:00:00Z",
            "2024-01-05T10:00:00.1234567Z",
            "2024-01-05T10:00:00 CET",
            "2024-01-05T10:00:00+99:00",
            "2024-01-05T23:59:60Z",
            "2024-01-05T10:00:00.",
            "TRUE",
            "NaN",
        ] {
            assert_eq!(text(&[value]), "text", "{value}");
            assert_eq!(text(&["12", value]), "text", "{value} behind a number");
        }
        assert_eq!(text(&[]), "text");
        assert_eq!(text(&["12", "x"]), "text");
        assert_eq!(text(&["true", "1"]), "text");
        assert_eq!(text(&["2024-01-05", "2024-01-05T10:00:00Z"]), "text");
    }

    #[test]
    fn careful_types_are_found() {
        assert_eq!(text(&["1", "-999999999999999999", "0"]), "integer");
        assert_eq!(text(&["1.50", "12", "-0.5"]), "decimal(18,2)");
        assert_eq!(text(&["12345678901234567.25"]), "decimal(38,2)");
        assert_eq!(text(&["true", "false"]), "boolean");
        assert_eq!(text(&["2024-02-29", "1999-12-31"]), "date");
        assert_eq!(
            text(&[
                "2024-01-05T10:00:00Z",
                "2024-01-05 10:00:00",
                "2024-01-05T10:00:00.123456+02:00",
            ]),
            "timestamp"
        );
    }

    #[test]
    fn json_values_keep_their_own_types() {
        assert_eq!(json(&["\"12\""]), "text");
        assert_eq!(json(&["\"true\"", "\"x\""]), "text");
        assert_eq!(json(&["12", "null", "0"]), "integer");
        assert_eq!(json(&["12345678901234567890"]), "text");
        assert_eq!(json(&["1.25", "3"]), "decimal(18,2)");
        assert_eq!(json(&["1.5e-3", "2"]), "double");
        assert_eq!(json(&["1.5e-3", "12345678901234567"]), "text");
        assert_eq!(json(&["true", "false"]), "boolean");
        assert_eq!(json(&["{}", "1"]), "json");
        assert_eq!(json(&["[1]"]), "json");
        assert_eq!(json(&["\"2024-01-05\""]), "date");
        assert_eq!(json(&["1", "\"1\""]), "text");
        assert_eq!(json(&["null"]), "text");
    }
}
