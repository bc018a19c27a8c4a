//! Takes a YAML tree apart, noting what is not as it should be.

use std::time::Duration;

use crate::{
    nearest::suggest,
    problem::Problems,
    yaml::{Entry, Node, Value, item_path, key_path},
};

/// A value at its place in the document.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub(crate) path: String,
    pub(crate) line: u32,
    value: &'a Value,
    problems: &'a Problems,
}

/// A map whose keys are known.
pub(crate) struct Keys<'a> {
    at: At<'a>,
    entries: &'a [Entry],
}

/// What kind of value stands somewhere.
pub(crate) enum Shape<'a> {
    Null,
    Scalar { text: &'a str, plain: bool },
    List(Vec<At<'a>>),
    Map(Vec<(&'a str, At<'a>)>),
}

impl<'a> At<'a> {
    /// Returns the value as it stands there.
    pub(crate) fn shape(&self) -> Shape<'a> {
        match self.value {
            Value::Null => Shape::Null,
            Value::Scalar { text, plain } => Shape::Scalar { text, plain: *plain },
            Value::List(items) => Shape::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| At {
                        path: item_path(&self.path, index),
                        line: item.line,
                        value: &item.value,
                        problems: self.problems,
                    })
                    .collect(),
            ),
            Value::Map(entries) => Shape::Map(
                entries.iter().map(|entry| (entry.key.as_str(), self.entry(entry))).collect(),
            ),
        }
    }

    pub(crate) fn root(node: &'a Node, problems: &'a Problems) -> Self {
        Self { path: String::new(), line: node.line, value: &node.value, problems }
    }

    /// Notes that something is wrong here.
    pub(crate) fn problem(&self, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.add(self.line, &self.path, message, remedy);
    }

    fn wrong_kind(&self, expected: &str, remedy: &str) {
        let found = match self.value {
            Value::Null => "nothing",
            Value::Scalar { plain: true, .. } => "a value",
            Value::Scalar { plain: false, .. } => "a quoted text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map of keys",
        };
        self.problem(format!("{expected} is expected, {found} is given"), remedy);
    }

    /// Returns the entries of a map whose keys the user chooses, in their order.
    pub(crate) fn entries(&self, remedy: &str) -> Option<Vec<(String, At<'a>)>> {
        let Value::Map(entries) = self.value else {
            self.wrong_kind("a map of keys", remedy);
            return None;
        };
        if entries.is_empty() {
            self.problem("the map is empty", remedy);
            return None;
        }
        Some(entries.iter().map(|entry| (entry.key.clone(), self.entry(entry))).collect())
    }

    /// Returns a map with some of the known keys, and notes all others.
    pub(crate) fn keys(&self, known: &[&str]) -> Option<Keys<'a>> {
        let Value::Map(entries) = self.value else {
            self.wrong_kind("a map of keys", &format!("use some of the keys {}", known.join(", ")));
            return None;
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                self.entry(entry).problem(
                    format!("`{}` is not a key that can stand here", entry.key),
                    suggest(&entry.key, "keys", known),
                );
            }
        }
        Some(Keys { at: self.clone(), entries })
    }

    /// Takes a map without any key.
    pub(crate) fn no_keys(&self, remedy: &str) -> Option<()> {
        let Value::Map(entries) = self.value else {
            self.wrong_kind("an empty map", remedy);
            return None;
        };
        if let Some(entry) = entries.first() {
            self.entry(entry)
                .problem(format!("`{}` is not a key that can stand here", entry.key), remedy);
            return None;
        }
        Some(())
    }

    pub(crate) fn items(&self, remedy: &str) -> Option<Vec<At<'a>>> {
        let Value::List(items) = self.value else {
            self.wrong_kind("a list", remedy);
            return None;
        };
        Some(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| At {
                    path: item_path(&self.path, index),
                    line: item.line,
                    value: &item.value,
                    problems: self.problems,
                })
                .collect(),
        )
    }

    /// Returns a list of texts with at least one item and no repetition.
    pub(crate) fn names(&self, remedy: &str) -> Option<Vec<String>> {
        let items = self.items(remedy)?;
        if items.is_empty() {
            self.problem("the list is empty", remedy);
            return None;
        }
        let mut names: Vec<String> = Vec::new();
        let mut complete = true;
        for item in items {
            match item.name() {
                Some(name) if names.contains(&name) => {
                    item.problem(format!("`{name}` is listed twice"), "remove one of the two");
                    complete = false;
                }
                Some(name) => names.push(name),
                None => complete = false,
            }
        }
        complete.then_some(names)
    }

    /// Returns a text that is not empty.
    pub(crate) fn name(&self) -> Option<String> {
        let text = self.text()?;
        if text.is_empty() || text.chars().any(char::is_control) {
            self.problem(
                "a name is expected, the text is empty or has control characters",
                "write a name",
            );
            return None;
        }
        Some(text)
    }

    /// Returns a text as the user wrote it.
    pub(crate) fn text(&self) -> Option<String> {
        let Value::Scalar { text, .. } = self.value else {
            self.wrong_kind("a text", "write the value behind the key");
            return None;
        };
        Some(text.clone())
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.value, Value::List(_))
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => {
                self.wrong_kind("`true` or `false`", "write true or false without quotes");
                None
            }
        }
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, expected: &str) -> Option<T> {
        let number = match self.value {
            Value::Scalar { text, plain: true } => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.wrong_kind(expected, "write a number without quotes");
        }
        number
    }

    pub(crate) fn duration(&self) -> Option<Duration> {
        let text = self.text()?;
        let duration = parse_duration(&text);
        if duration.is_none() {
            self.problem(
                format!("`{text}` is not a duration"),
                "write a whole number with its unit: `500ms`, `30s`, `10m`, `1h` or `1d`",
            );
        }
        duration
    }

    /// Returns the value that one of `words` stands for.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.problem(
                format!("`{text}` is not a word that can stand here"),
                suggest(&text, "words", &known),
            );
        }
        found.map(|(_, value)| *value)
    }

    fn entry(&self, entry: &'a Entry) -> At<'a> {
        At {
            path: key_path(&self.path, &entry.key),
            line: entry.line,
            value: &entry.value.value,
            problems: self.problems,
        }
    }
}

impl<'a> Keys<'a> {
    /// Returns the value of a key if it is given.
    pub(crate) fn get(&self, key: &str) -> Option<At<'a>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.at.entry(entry))
    }

    /// Returns the value of a key, and notes that it is missing otherwise.
    pub(crate) fn require(&self, key: &str, remedy: &str) -> Option<At<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.at.problem(format!("`{key}` is missing"), remedy);
        }
        value
    }

    /// Returns the only key that is given, with its value, and notes if there is none or another.
    pub(crate) fn only(&self, known: &[&str], what: &str) -> Option<(&'a str, At<'a>)> {
        let mut given = self.entries.iter().filter(|entry| known.contains(&entry.key.as_str()));
        let Some(first) = given.next() else {
            self.at.problem(
                format!("no {what} is given"),
                format!("give one of {}", known.join(", ")),
            );
            return None;
        };
        for second in given {
            self.at.entry(second).problem(
                format!("a second {what} is given, besides `{}` in line {}", first.key, first.line),
                "keep one of them",
            );
        }
        Some((&first.key, self.at.entry(first)))
    }

    pub(crate) fn at(&self) -> &At<'a> {
        &self.at
    }
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_whole_number_and_a_unit() {
        for text in ["", "10", "1.5h", "m", "10 m", "-1s", "99999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
    }
}
