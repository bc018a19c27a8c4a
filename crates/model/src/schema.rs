use serde::{Deserialize, Serialize};

use crate::FieldType;

/// What the records of a source look like, before any step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Schema {
    /// The fields, in the order of the source or of the declaration. Names are unique.
    pub fields: Vec<Field>,
}

impl Schema {
    /// Returns the field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// One field of a schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Name, unique in the schema.
    pub name: String,
    /// Type of the values.
    #[serde(rename = "type")]
    pub field_type: FieldType,
    /// Formats to try when text is read as a date or timestamp, in order (strftime); empty: ISO 8601.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formats: Vec<String>,
    /// A record without a value is refused.
    #[serde(default)]
    pub required: bool,
    /// The only texts that are allowed; empty: all are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// Regular expression that the whole text has to match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Smallest number of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u32>,
    /// Largest number of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
}

impl Field {
    /// Makes a field that allows everything its type allows.
    #[must_use]
    pub fn new(name: impl Into<String>, field_type: FieldType) -> Self {
        Self {
            name: name.into(),
            field_type,
            formats: Vec::new(),
            required: false,
            allowed: Vec::new(),
            pattern: None,
            min_length: None,
            max_length: None,
        }
    }
}

/// What happens when the source and the schema disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Contract {
    /// The target table does not exist.
    pub tables: TablePolicy,
    /// The source has a field that the schema does not know. Unset: `freeze` for files of strict
    /// shape (CSV), `discard_value` for all others.
    pub columns: Option<ColumnPolicy>,
    /// A value does not have the type of its field.
    pub types: TypePolicy,
}

/// What happens when a target table does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TablePolicy {
    /// It is created.
    #[default]
    Evolve,
    /// The run stops.
    Freeze,
}

/// What happens to a field that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnPolicy {
    /// It becomes a field, and a column of the targets.
    Evolve,
    /// The run stops before anything is loaded.
    Freeze,
    /// Records that carry it are quarantined.
    Quarantine,
    /// It is left out, and noted once per run.
    DiscardValue,
}

/// What happens to a value of the wrong type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypePolicy {
    /// The column becomes text.
    Evolve,
    /// The run stops.
    Freeze,
    /// The record is quarantined.
    #[default]
    Quarantine,
    /// The value becomes null.
    DiscardValue,
}
