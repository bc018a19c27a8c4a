use std::fmt;

use serde::{Deserialize, Serialize};

/// A way into a JSON document: `data.items`, `$.orders[0].lines[*]` or `['a.b'].c`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JsonPath {
    /// Steps from the outside in; none: the document itself.
    pub steps: Vec<PathStep>,
}

/// One step into a JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathStep {
    /// The member of an object.
    Key(String),
    /// The item of a list, from 0; below 0 from the end.
    Index(i64),
    /// All items of a list, or all members of an object.
    All,
}

impl JsonPath {
    /// Reads a path.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in a few words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut first = rest.len() == text.len();
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let (step, behind) = bracket(inner)?;
                steps.push(step);
                rest = behind;
            } else {
                let name = match rest.strip_prefix('.') {
                    Some(name) => name,
                    None if first => rest,
                    None => return Err("a `.` is expected behind `]`".to_owned()),
                };
                let end = name.find(['.', '[']).unwrap_or(name.len());
                match &name[..end] {
                    "" => return Err("a key on the way is empty".to_owned()),
                    "*" => steps.push(PathStep::All),
                    key => steps.push(PathStep::Key(key.to_owned())),
                }
                rest = &name[end..];
            }
            first = false;
        }
        Ok(Self { steps })
    }

    /// Makes a path of keys.
    #[must_use]
    pub fn of_keys(keys: &[&str]) -> Self {
        Self { steps: keys.iter().map(|key| PathStep::Key((*key).to_owned())).collect() }
    }
}

fn bracket(inner: &str) -> Result<(PathStep, &str), String> {
    for quote in ['\'', '"'] {
        if let Some(text) = inner.strip_prefix(quote) {
            let close = format!("{quote}]");
            let end = text.find(&close).ok_or("a quoted key is not closed")?;
            return Ok((PathStep::Key(text[..end].to_owned()), &text[end + 2..]));
        }
    }
    let end = inner.find(']').ok_or("`[` is not closed by `]`")?;
    let step = match &inner[..end] {
        "*" => PathStep::All,
        number => PathStep::Index(
            number.parse().map_err(|_| format!("`[{number}]` is neither a number nor `[*]`"))?,
        ),
    };
    Ok((step, &inner[end + 1..]))
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for step in &self.steps {
            match step {
                PathStep::Key(key) if key.contains(['.', '[', '\'']) => write!(f, "[\"{key}\"]")?,
                PathStep::Key(key) => write!(f, ".{key}")?,
                PathStep::Index(index) => write!(f, "[{index}]")?,
                PathStep::All => f.write_str("[*]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["a..b", "a.", "[", "[x]", "['a]", "[0]b", "$.", "a[1"] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_is_written_as_it_means() {
        for (text, shown) in [
            ("", "$"),
            ("$", "$"),
            ("data.items", "$.data.items"),
            ("$.a[0].b[*].c[-1]", "$.a[0].b[*].c[-1]"),
            ("*.x", "$[*].x"),
            ("['@odata.nextLink']", "$[\"@odata.nextLink\"]"),
        ] {
            assert_eq!(JsonPath::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }
}
