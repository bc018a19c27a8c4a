//! Looks into JSON without changing what it holds: values stay as they are written.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use spec::{JsonPath, PathStep};

/// Returns the texts of the values that a path leads to, in their order. None where it leads nowhere.
///
/// # Errors
///
/// When the text is not JSON as far as the path needs it.
pub(crate) fn select<'a>(
    text: &'a str,
    path: &JsonPath,
) -> Result<Vec<&'a str>, serde_json::Error> {
    let mut found = vec![text.trim()];
    for step in &path.steps {
        let mut next = Vec::new();
        for value in found {
            match (step, value.as_bytes().first()) {
                (PathStep::Key(key), Some(b'{')) => {
                    // The last of several wins, as everywhere.
                    let members = members(value)?;
                    next.extend(members.iter().rev().find(|(name, _)| name == key).map(|m| m.1));
                }
                (PathStep::Index(index), Some(b'[')) => {
                    let items = items(value)?;
                    let at = usize::try_from(*index).ok().or_else(|| {
                        items.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
                    });
                    next.extend(at.and_then(|at| items.get(at).copied()));
                }
                (PathStep::All, Some(b'[')) => next.extend(items(value)?),
                (PathStep::All, Some(b'{')) => next.extend(members(value)?.iter().map(|m| m.1)),
                _ => {}
            }
        }
        found = next;
    }
    Ok(found)
}

/// Returns the first value that a path leads to and that is not null.
pub(super) fn first<'a>(text: &'a str, path: &JsonPath) -> Option<&'a str> {
    select(text, path).ok()?.into_iter().find(|value| *value != "null")
}

/// Returns the texts of the items of a list.
pub(super) fn items(text: &str) -> Result<Vec<&str>, serde_json::Error> {
    let items: Vec<&RawValue> = serde_json::from_str(text)?;
    Ok(items.into_iter().map(RawValue::get).collect())
}

/// Returns the names and texts of the members of an object.
pub(super) fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &str)>, serde_json::Error> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de str)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                members.push((Cow::Owned(name), value.get()));
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(Members)?;
    deserializer.end()?;
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_as_they_are_written() {
        let text =
            r#" {"data":{"items":[{"n":1.10},{"n":12345678901234567890123}]},"a.b":[],"x":null} "#;
        for (path, expected) in [
            ("data.items[*].n", vec!["1.10", "12345678901234567890123"]),
            ("data.items[-1].n", vec!["12345678901234567890123"]),
            ("data.items[-3].n", vec![]),
            ("data.items[0]", vec![r#"{"n":1.10}"#]),
            ("['a.b']", vec!["[]"]),
            ("data.none.n", vec![]),
            ("x", vec!["null"]),
        ] {
            assert_eq!(select(text, &JsonPath::parse(path).unwrap()).unwrap(), expected, "{path}");
        }
        assert_eq!(first(text, &JsonPath::parse("x").unwrap()), None);
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        assert!(select("{\"a\":", &JsonPath::parse("a").unwrap()).is_err());
        assert!(select("<html>", &JsonPath::parse("a").unwrap()).unwrap().is_empty());
    }
}
