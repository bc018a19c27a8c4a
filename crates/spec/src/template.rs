//! Texts and JSON with places that are filled later: `/customers/{{ parent.id }}/orders`.

use std::{borrow::Cow, fmt};

use secrecy::{ExposeSecret, SecretString};

use crate::{ResolveError, SecretText};

/// A text with places for values, written `{{ name }}`. It may also hold references to secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    written: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    Text(SecretText),
    Name(String),
}

/// JSON with places for values. A text that is nothing but one place takes the value as it is, a
/// number as a number; a place within a text takes it as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonTemplate {
    /// JSON text of a value without places.
    Literal(String),
    /// A text with places.
    Text(Template),
    /// A list.
    List(Vec<JsonTemplate>),
    /// An object; members in their order.
    Object(Vec<(String, JsonTemplate)>),
}

/// A template whose secrets are resolved.
#[derive(Clone)]
pub struct ReadyTemplate {
    pieces: Vec<ReadyPiece>,
}

#[derive(Clone)]
enum ReadyPiece {
    Text(SecretString),
    Name(String),
}

/// A JSON template whose secrets are resolved.
#[derive(Clone)]
pub enum ReadyJson {
    /// JSON text.
    Literal(String),
    /// A text with places.
    Text(ReadyTemplate),
    /// A list.
    List(Vec<ReadyJson>),
    /// An object.
    Object(Vec<(String, ReadyJson)>),
}

/// There is no value for a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no value for `{{{{ {0} }}}}`")]
pub struct Unfilled(pub String);

/// Looks up the value of a name as JSON text, such as `"abc"`, `12.50` or `null`.
pub type Values<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in a few words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            if start > 0 {
                pieces.push(Piece::Text(SecretText::new(&rest[..start])));
            }
            let end = rest[start..].find("}}").ok_or("`{{` is not closed by `}}`")?;
            let name = rest[start + 2..start + end].trim();
            if !is_name(name) {
                return Err(format!("`{name}` is not a name that can be filled"));
            }
            pieces.push(Piece::Name(name.to_owned()));
            rest = &rest[start + end + 2..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(SecretText::new(rest)));
        }
        Ok(Self { written: text.to_owned(), pieces })
    }

    /// Returns the text with its places and references as they are written.
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// Returns the names of the places, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Name(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Replaces the references to secrets. `variable` looks up environment variables.
    ///
    /// # Errors
    ///
    /// As [`SecretText::resolve`].
    pub fn resolve(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<ReadyTemplate, ResolveError> {
        let ready = self.pieces.iter().map(|piece| {
            Ok(match piece {
                Piece::Text(text) => ReadyPiece::Text(text.resolve(variable)?),
                Piece::Name(name) => ReadyPiece::Name(name.clone()),
            })
        });
        Ok(ReadyTemplate { pieces: ready.collect::<Result<_, _>>()? })
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.split('.').all(|part| {
            !part.is_empty()
                && part.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '@'))
        })
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.written).finish()
    }
}

impl ReadyTemplate {
    /// Fills the places, each with its value written by `escape`.
    ///
    /// # Errors
    ///
    /// Names the first place that has no value. Null is a value: the empty text.
    pub fn fill(
        &self,
        values: Values<'_>,
        escape: impl Fn(&str) -> String,
    ) -> Result<String, Unfilled> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                ReadyPiece::Text(text) => filled.push_str(text.expose_secret()),
                ReadyPiece::Name(name) => {
                    let value = values(name).ok_or_else(|| Unfilled(name.clone()))?;
                    filled.push_str(&escape(&text_of(&value)));
                }
            }
        }
        Ok(filled)
    }

    /// Returns the name of the place if there is nothing else.
    #[must_use]
    pub fn only_name(&self) -> Option<&str> {
        match &self.pieces[..] {
            [ReadyPiece::Name(name)] => Some(name),
            _ => None,
        }
    }
}

impl JsonTemplate {
    /// Returns the names of all places.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Text(text) => text.names().collect(),
            Self::List(items) => items.iter().flat_map(Self::names).collect(),
            Self::Object(members) => members.iter().flat_map(|(_, value)| value.names()).collect(),
        }
    }

    /// As [`Template::resolve`].
    ///
    /// # Errors
    ///
    /// As [`SecretText::resolve`].
    pub fn resolve(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<ReadyJson, ResolveError> {
        Ok(match self {
            Self::Literal(json) => ReadyJson::Literal(json.clone()),
            Self::Text(text) => ReadyJson::Text(text.resolve(variable)?),
            Self::List(items) => ReadyJson::List(
                items.iter().map(|item| item.resolve(variable)).collect::<Result<_, _>>()?,
            ),
            Self::Object(members) => ReadyJson::Object(
                members
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), value.resolve(variable)?)))
                    .collect::<Result<_, ResolveError>>()?,
            ),
        })
    }
}

impl ReadyJson {
    /// Fills the places and returns the JSON text. A member or item that is nothing but a place
    /// without a value is left out.
    ///
    /// # Errors
    ///
    /// Names the first other place that has no value.
    pub fn fill(&self, values: Values<'_>) -> Result<String, Unfilled> {
        let mut json = String::new();
        if !self.write(values, &mut json)? {
            json.push_str("null");
        }
        Ok(json)
    }

    /// False: nothing was written.
    fn write(&self, values: Values<'_>, json: &mut String) -> Result<bool, Unfilled> {
        match self {
            Self::Literal(literal) => json.push_str(literal),
            Self::Text(text) => match text.only_name() {
                Some(name) => match values(name) {
                    Some(value) => json.push_str(&value),
                    None => return Ok(false),
                },
                None => json.push_str(&quoted(&text.fill(values, str::to_owned)?)),
            },
            Self::List(items) => {
                json.push('[');
                let mut more = false;
                for item in items {
                    let before = json.len();
                    if more {
                        json.push(',');
                    }
                    match item.write(values, json)? {
                        true => more = true,
                        false => json.truncate(before),
                    }
                }
                json.push(']');
            }
            Self::Object(members) => {
                json.push('{');
                let mut more = false;
                for (name, value) in members {
                    let before = json.len();
                    if more {
                        json.push(',');
                    }
                    json.push_str(&quoted(name));
                    json.push(':');
                    match value.write(values, json)? {
                        true => more = true,
                        false => json.truncate(before),
                    }
                }
                json.push('}');
            }
        }
        Ok(true)
    }
}

/// Returns a JSON value as text: a text without its quotes, null as the empty text, all others as
/// they are written.
#[must_use]
pub fn text_of(json: &str) -> Cow<'_, str> {
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(json).map_or(Cow::Borrowed(json), Cow::Owned),
        Some(b'n') => Cow::Borrowed(""),
        _ => Cow::Borrowed(json),
    }
}

/// Returns a text as a JSON text with quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(name: &str) -> Option<String> {
        match name {
            "id" => Some("7.50".to_owned()),
            "name" => Some(r#""a \"b\"""#.to_owned()),
            "none" => Some("null".to_owned()),
            _ => None,
        }
    }

    fn ready(text: &str) -> ReadyTemplate {
        Template::parse(text).unwrap().resolve(&|_| Some("s3cret".to_owned())).unwrap()
    }

    #[test]
    fn what_cannot_be_filled_is_refused() {
        for text in ["{{ a", "{{ }}", "{{ a b }}", "{{ a..b }}", "{{ .a }}", "{{ a | b }}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            ready("/a/{{ missing }}").fill(&values, str::to_owned),
            Err(Unfilled("missing".to_owned()))
        );
    }

    #[test]
    fn places_take_values_as_text_and_secrets_stay_out_of_sight() {
        let filled = ready("/{{id}}/{{ name }}{{none}}?k=${env:K}");
        assert_eq!(
            filled.fill(&values, |text| text.replace(' ', "+")).unwrap(),
            "/7.50/a+\"b\"?k=s3cret"
        );
        let shown = format!("{:?}", Template::parse("${env:K}{{ id }}").unwrap());
        assert!(shown.contains("${env:K}"), "{shown}");
    }

    #[test]
    fn a_place_alone_keeps_the_type_of_its_value() {
        let text = |text: &str| JsonTemplate::Text(Template::parse(text).unwrap());
        let json = JsonTemplate::Object(vec![
            ("id".to_owned(), text("{{ id }}")),
            ("label".to_owned(), text("n {{ id }} {{ name }}")),
            ("gone".to_owned(), text("{{ missing }}")),
            (
                "list".to_owned(),
                JsonTemplate::List(vec![text("{{ missing }}"), text("{{ none }}")]),
            ),
        ]);
        let filled = json.resolve(&|_| None).unwrap().fill(&values).unwrap();
        assert_eq!(filled, r#"{"id":7.50,"label":"n 7.50 a \"b\"","list":[null]}"#);
    }
}
