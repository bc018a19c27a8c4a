//! Records as an API sees them.

use bytes::Bytes;
use connect::Refused;
use model::{Batch, Operation};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use spec::Values;
use twox_hash::XxHash3_64;

/// A record that is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Which batch of a write, and which record of it.
    pub(crate) place: (usize, usize),
    /// The values of the key, joined by commas.
    pub(crate) key_text: String,
    /// Names the key in what is remembered.
    pub(crate) key: String,
    /// Id of the record.
    pub(crate) id: String,
    pub(crate) run: String,
    pub(crate) version: (i64, i64),
    pub(crate) operation: Operation,
    /// The fields that the record carries.
    pub(crate) values: Map<String, Value>,
    /// Tells these values, and whether the record is gone, from others.
    pub(crate) content: String,
    /// A batch message that holds the record alone, where it is kept once it is delivered.
    pub(crate) message: Option<Bytes>,
}

impl Item {
    /// Takes a record out of a batch.
    ///
    /// # Errors
    ///
    /// A record without a key is refused.
    pub(crate) fn new(
        batch: &Batch,
        place: (usize, usize),
        key_fields: &[String],
    ) -> Result<Self, Refused> {
        let (records, index) = (&batch.records, place.1);
        let values = model::to_json(records, index);
        let missing = |field: &String| Refused {
            index,
            code: "key",
            message: format!("`{field}` is part of the key and has no value"),
            field: field.clone(),
        };
        let key_text = key_text(&values, key_fields).map_err(missing)?;
        let key_values: Vec<&Value> = key_fields.iter().filter_map(|f| values.get(f)).collect();
        let key = hex(&Sha256::digest(serde_json::to_vec(&key_values).unwrap_or_default())[..16]);
        let operation = records.operation(index);
        let text = Value::Object(values.clone()).to_string();
        let gone = operation == Operation::Delete;
        let content = format!("{:016x}{}", XxHash3_64::oneshot(text.as_bytes()), u8::from(gone));
        Ok(Self {
            place,
            key_text,
            key,
            id: records.id(index),
            run: batch.header.run.to_string(),
            version: records.version(index),
            operation,
            values,
            content,
            message: None,
        })
    }

    /// Returns the record with what is kept of it once it is delivered.
    pub(crate) fn kept(self, batch: &Batch) -> Self {
        let alone =
            Batch { header: batch.header.clone(), records: batch.records.slice(self.place.1, 1) };
        Self { message: Some(wire::encode(&alone)), ..self }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.operation == Operation::Delete
    }

    /// Names the fact that the record states, the same however often it is sent.
    pub(crate) fn fact(&self, pipeline: &str, target: &str) -> String {
        digest(&[pipeline, target, &self.id, &self.content])
    }

    /// Names the key for all time.
    pub(crate) fn fact_of_key(&self, pipeline: &str, target: &str) -> String {
        digest(&[pipeline, target, &self.key])
    }
}

/// Returns the values of the key, joined by commas; or the field that has none.
fn key_text<'a>(
    values: &Map<String, Value>,
    key_fields: &'a [String],
) -> Result<String, &'a String> {
    let mut text = String::new();
    for field in key_fields {
        let value = values.get(field).filter(|value| !value.is_null()).ok_or(field)?;
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&spec::text_of(&value.to_string()));
    }
    Ok(text)
}

/// Returns a digest of parts as 32 hexadecimal digits.
pub(crate) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What fills the places of a call for one record.
pub(crate) struct Places<'a> {
    pub(crate) item: &'a Item,
    /// The fields that may be named.
    pub(crate) values: &'a Map<String, Value>,
    pub(crate) pipeline: &'a str,
    pub(crate) operation: &'a str,
}

impl Places<'_> {
    /// Returns the value of a name as JSON text: a field, the way into a field that holds JSON, or
    /// what every record has.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        if let Some(value) = self.values.get(name) {
            return Some(value.to_string());
        }
        let text = match name {
            "key" => &self.item.key_text,
            "record.id" => &self.item.id,
            "operation" => self.operation,
            "pipeline" => self.pipeline,
            "record" => return Some(Value::Object(self.values.clone()).to_string()),
            _ => {
                let mut steps = name.split('.');
                let first = self.values.get(steps.next()?)?;
                let found = steps.try_fold(first, |value, step| value.get(step))?;
                return Some(found.to_string());
            }
        };
        Some(spec::quoted(text))
    }

    pub(crate) fn filled<T>(&self, fill: impl FnOnce(Values<'_>) -> T) -> T {
        fill(&|name| self.get(name))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use model::RunId;
    use serde_json::json;

    use super::*;

    pub(crate) fn item(values: Value, operation: Operation) -> Item {
        let Value::Object(values) = values else { panic!("an object is expected") };
        Item {
            place: (0, 0),
            key_text: "7".to_owned(),
            key: "k".to_owned(),
            id: "f:1".to_owned(),
            run: RunId::generate().to_string(),
            version: (1, 1),
            operation,
            content: Value::Object(values.clone()).to_string(),
            values,
            message: None,
        }
    }

    #[test]
    fn a_name_is_a_field_or_what_every_record_has() {
        let item = item(json!({"n": 1.50, "who": {"name": "A"}, "key": "own"}), Operation::Upsert);
        let places =
            Places { item: &item, values: &item.values, pipeline: "shop", operation: "updated" };
        for (name, value) in [
            ("gone", None),
            ("who.gone", None),
            ("n", Some("1.5")),
            ("who.name", Some("\"A\"")),
            ("key", Some("\"own\"")),
            ("record.id", Some("\"f:1\"")),
            ("operation", Some("\"updated\"")),
            ("pipeline", Some("\"shop\"")),
        ] {
            assert_eq!(places.get(name).as_deref(), value, "{name}");
        }
    }

    #[test]
    fn parts_of_a_digest_do_not_run_into_each_other() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }
}
