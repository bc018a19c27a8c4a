use std::{collections::BTreeMap, fmt, fs, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Error as YamlError, Spanned};

use super::{ConfigError, Environment};

/// Settings as they were written, with the place of each.
#[derive(Debug, Clone)]
pub struct Tree {
    pub(super) root: Node,
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: String,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    /// From the environment: whoever reads it decides what it is.
    Untyped(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
}

impl Tree {
    /// Reads a YAML file; without a file, there are no settings.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is not YAML, or repeats a key.
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Ok(Self::empty());
        };
        let name = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError::new(format!("cannot be read: {error}")).from(&name))?;
        Self::parse(&name, &text)
    }

    /// Reads YAML text; `name` is the file's name for messages.
    ///
    /// # Errors
    ///
    /// When the text is not YAML or repeats a key.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let parsed: Spanned<Written> = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map_or(0, |location| location.line());
            // The rendered form would show lines of the file, which may hold secrets.
            ConfigError::new(plain(&error)).from(&format!("{name}:{place}"))
        })?;
        let mut root = located(parsed, name);
        if matches!(root.value, Value::Null) {
            root.value = Value::Map(BTreeMap::new());
        }
        match root.value {
            Value::Map(_) => Ok(Self { root }),
            _ => Err(ConfigError::new("expected keys and values").from(&root.origin)),
        }
    }

    fn empty() -> Self {
        Self { root: Node { value: Value::Map(BTreeMap::new()), origin: String::new() } }
    }

    /// Lays the variables `TRIBUTARY_<SERVICE>__KEY__SUB` over the keys below `at` (`""`: the root).
    ///
    /// # Errors
    ///
    /// When a variable names something below a key that is no map.
    pub fn overlay(
        mut self,
        service: &str,
        at: &str,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let prefix = format!("TRIBUTARY_{}__", service.to_uppercase());
        for (name, value) in environment.below(&prefix) {
            let lower = name.to_lowercase();
            let keys = (!at.is_empty()).then_some(at).into_iter();
            let keys: Vec<&str> = keys.chain(lower.split("__")).collect();
            let origin = format!("{prefix}{name}");
            self.root.put(&keys, value, &origin)?;
        }
        Ok(self)
    }

    /// Takes one section out and reads it; a section that is not there gives the defaults.
    ///
    /// # Errors
    ///
    /// When the section has an unknown key, lacks a key or has a value that cannot be used.
    pub fn take<T: DeserializeOwned>(&mut self, section: &str) -> Result<T, ConfigError> {
        let taken = match &mut self.root.value {
            Value::Map(map) => map.remove(section),
            _ => None,
        };
        let node = taken.unwrap_or_else(|| Self::empty().root);
        T::deserialize(&node).map_err(|error| error.from(&node.origin).below(section))
    }

    /// Reads what is left.
    ///
    /// # Errors
    ///
    /// As [`Tree::take`].
    pub fn finish<T: DeserializeOwned>(self) -> Result<T, ConfigError> {
        T::deserialize(&self.root).map_err(|error| error.from(&self.root.origin))
    }
}

impl Node {
    fn put(&mut self, keys: &[&str], value: &str, origin: &str) -> Result<(), ConfigError> {
        let Some((first, rest)) = keys.split_first() else {
            self.value = Value::Untyped(value.to_owned());
            origin.clone_into(&mut self.origin);
            return Ok(());
        };
        if matches!(self.value, Value::Null) {
            self.value = Value::Map(BTreeMap::new());
        }
        let Value::Map(map) = &mut self.value else {
            return Err(ConfigError::new("has a value of its own and no keys").from(origin));
        };
        let child = map
            .entry((*first).to_owned())
            .or_insert_with(|| Self { value: Value::Null, origin: origin.to_owned() });
        child.put(rest, value, origin).map_err(|error| error.below(*first))
    }
}

fn plain(error: &YamlError) -> String {
    let text = error.without_snippet().to_string();
    text.lines().next().unwrap_or("is not YAML").to_owned()
}

/// A value of the file before its place is spelled out.
enum Written {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Written>>),
    Map(Vec<(String, Spanned<Written>)>),
}

fn located(written: Spanned<Written>, file: &str) -> Node {
    let origin = format!("{file}:{}", written.referenced.line());
    let value = match written.value {
        Written::Null => Value::Null,
        Written::Bool(value) => Value::Bool(value),
        Written::Integer(value) => Value::Integer(value),
        Written::Float(value) => Value::Float(value),
        Written::Text(value) => Value::Text(value),
        Written::List(items) => {
            Value::List(items.into_iter().map(|item| located(item, file)).collect())
        }
        Written::Map(entries) => Value::Map(
            entries.into_iter().map(|(key, value)| (key, located(value, file))).collect(),
        ),
    };
    Node { value, origin }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl<'de> Visitor<'de> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_unit<E>(self) -> Result<Written, E> {
        Ok(Written::Null)
    }

    fn visit_none<E>(self) -> Result<Written, E> {
        Ok(Written::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Written, E> {
        Ok(Written::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Written, E> {
        Ok(Written::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Written, E> {
        let value = i64::try_from(value);
        value.map(Written::Integer).map_err(|_| E::custom("the number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Written, E> {
        Ok(Written::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Written, E> {
        Ok(Written::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Written, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Written::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Written, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Written::Map(map))
    }
}

#[cfg(test)]
mod tests;
