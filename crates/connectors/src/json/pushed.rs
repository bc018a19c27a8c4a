//! JSON that was pushed: single objects, gathered to records.

use arrow_array::RecordBatch;
use arrow_buffer::BooleanBuffer;
use serde_json::value::RawValue;

use super::{
    object::{self, Member},
    table::Table,
};

/// A text is not the JSON that it should be. Holds no values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct NotJson {
    what: String,
}

/// A JSON object whose text was checked as a whole.
#[derive(Debug)]
pub struct Object<'a> {
    members: Vec<Member<'a>>,
}

impl<'a> Object<'a> {
    /// Takes an object apart. Names that appear twice at any depth, values that lie too deep in each
    /// other and what is no JSON are refused.
    ///
    /// # Errors
    ///
    /// [`NotJson`] says what is wrong and where.
    pub fn parse(text: &'a str) -> Result<Self, NotJson> {
        match object::members(text) {
            Ok(members) => Ok(Self { members }),
            Err(fault) => {
                let field = match fault.field.as_str() {
                    "" => String::new(),
                    field => format!(" in field `{field}`"),
                };
                let what = format!("{} at byte {}{field}", fault.what, fault.at + 1);
                Err(NotJson { what })
            }
        }
    }

    /// Returns the number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Tells whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the JSON text of a member, as it is written.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&'a str> {
        self.members.iter().find(|member| member.name == name).map(|member| member.value)
    }

    /// Returns the JSON text under these keys, outermost first.
    #[must_use]
    pub fn find(&self, path: &[String]) -> Option<&'a str> {
        let (first, rest) = path.split_first()?;
        let value = self.member(first)?;
        match rest {
            [] => Some(value),
            rest => Object::parse(value).ok()?.find(rest),
        }
    }
}

/// Returns the texts of the elements of a list.
///
/// # Errors
///
/// [`NotJson`] where the text is no list.
pub fn elements(text: &str) -> Result<Vec<&str>, NotJson> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| NotJson {
        what: format!("no list of values at column {}", error.column()),
    })?;
    Ok(elements.into_iter().map(RawValue::get).collect())
}

/// Returns a text, or a number or boolean as it is written.
#[must_use]
pub fn scalar(text: &str) -> Option<String> {
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str(text).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(text.to_owned()),
    }
}

/// Objects that become the records of one batch.
#[derive(Default)]
pub struct Gathering {
    table: Table,
    count: usize,
}

impl std::fmt::Debug for Gathering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gathering").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Gathering {
    /// Returns the number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Tells whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the number of fields that any record has.
    #[must_use]
    pub fn fields(&self) -> usize {
        self.table.fields()
    }

    /// Returns the rough size of the values with one more object.
    #[must_use]
    pub fn bytes_with(&self, object: &Object<'_>) -> usize {
        self.table.bytes_with(&object.members)
    }

    /// Adds an object: each member becomes a field of JSON text, null is null, and what other objects
    /// have and it has not is absent.
    pub fn push(&mut self, object: &Object<'_>) {
        self.table.push(&object.members);
        self.count += 1;
    }

    /// Returns the columns, and per column which records carry the field.
    #[must_use]
    pub fn finish(self) -> (RecordBatch, Vec<Option<BooleanBuffer>>) {
        self.table.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_refused_without_its_values() {
        for text in ["", "7", "[{}]", "{\"a\":1,\"a\":2}", "{\"a\":secret}", "{\"a\":1} {}"] {
            let error = Object::parse(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(elements("{\"a\":1}").is_err());
        assert!(elements("[1,]").is_err());
    }

    #[test]
    fn a_value_is_found_under_its_keys() {
        let object = Object::parse(r#"{"data":{"object":{"id": "a\n"}},"n":1.50}"#).unwrap();
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(object.find(&path("data.object.id")), Some("\"a\\n\""));
        assert_eq!(object.find(&path("data.id")), None);
        assert_eq!(object.find(&path("n.id")), None);
        assert_eq!(scalar(object.member("n").unwrap()).as_deref(), Some("1.50"));
        assert_eq!(scalar("\"a\\n\"").as_deref(), Some("a\n"));
        assert_eq!(scalar("null"), None);
    }

    #[test]
    fn objects_become_columns_of_json_text() {
        let mut gathering = Gathering::default();
        for text in ["{\"a\":1}", "{\"b\":null}"] {
            gathering.push(&Object::parse(text).unwrap());
        }
        let (columns, presence) = gathering.finish();
        assert_eq!((columns.num_rows(), columns.num_columns()), (2, 2));
        let carried =
            |column: usize| -> Vec<bool> { presence[column].as_ref().unwrap().iter().collect() };
        assert_eq!((carried(0), carried(1)), (vec![true, false], vec![false, true]));
    }
}
