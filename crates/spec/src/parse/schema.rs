use model::{Field, FieldType, Schema};

use super::optional;
use crate::{format, reader::At};

const TYPE_REMEDY: &str = "use boolean, integer, double, decimal(digits,scale), text, bytes, date, \
                           timestamp or json";

pub(super) fn schema(at: &At<'_>) -> Option<Schema> {
    let entries = at.entries("list the fields with their types: `order_id: integer`")?;
    let fields: Vec<Option<Field>> = entries.iter().map(|(name, at)| field(name, at)).collect();
    let fields: Option<Vec<Field>> = fields.into_iter().collect();
    Some(Schema { fields: fields? })
}

/// Reads the name of a type.
pub(super) fn field_type(at: &At<'_>) -> Option<FieldType> {
    let text = at.text()?;
    let parsed = text.parse();
    if parsed.is_err() {
        // Inside braces YAML cuts `decimal(12,2)` at its comma.
        let cut = text.starts_with("decimal(") && !text.ends_with(')');
        let remedy = if cut { "put it in quotes: \"decimal(12,2)\"" } else { TYPE_REMEDY };
        at.problem(format!("`{text}` is not a type"), remedy);
    }
    parsed.ok()
}

/// Reads the formats of a date or timestamp.
pub(super) fn formats(at: &At<'_>, of: Option<FieldType>) -> Option<Vec<String>> {
    let formats = at.names("list the formats: `formats: [\"%d.%m.%Y\"]`")?;
    let timestamp = match of {
        Some(FieldType::Date) => false,
        Some(FieldType::Timestamp) => true,
        Some(other) => {
            at.problem(
                format!("formats are for dates and timestamps, the type is {other}"),
                "remove `formats`, or change the type to date or timestamp",
            );
            return None;
        }
        None => return None,
    };
    let mut sound = true;
    for text in &formats {
        if let Err(reason) = format::check(text, timestamp) {
            at.problem(
                format!("`{text}` {reason}"),
                "write strftime letters such as %Y-%m-%d or %d.%m.%Y %H:%M:%S",
            );
            sound = false;
        }
    }
    sound.then_some(formats)
}

fn field(name: &str, at: &At<'_>) -> Option<Field> {
    if name.is_empty() || name.chars().any(char::is_control) {
        at.problem(
            "the name of a field is empty or has control characters",
            "write the name as the source has it",
        );
        return None;
    }
    if !at.is_map() {
        return Some(Field::new(name, field_type(at)?));
    }
    let keys = at.keys(&[
        "type",
        "formats",
        "required",
        "allowed",
        "pattern",
        "min_length",
        "max_length",
    ])?;
    let field_type = keys.require("type", TYPE_REMEDY).and_then(|at| field_type(&at));
    let formats = optional(&keys, "formats", |at| formats(at, field_type));
    let required = optional(&keys, "required", At::boolean);
    let allowed = optional(&keys, "allowed", |at| texts(at, field_type));
    let pattern = optional(&keys, "pattern", |at| pattern(at, field_type));
    let min_length = optional(&keys, "min_length", |at| length(at, field_type));
    let max_length = optional(&keys, "max_length", |at| length(at, field_type));
    if let (Some(Some(min)), Some(Some(max))) = (min_length, max_length)
        && min > max
    {
        at.problem(
            format!("`min_length` {min} is above `max_length` {max}"),
            "correct one of the two",
        );
        return None;
    }
    Some(Field {
        name: name.to_owned(),
        field_type: field_type?,
        formats: formats?,
        required: required?,
        allowed: allowed?,
        pattern: pattern?,
        min_length: min_length?,
        max_length: max_length?,
    })
}

fn only_text(at: &At<'_>, of: Option<FieldType>) -> Option<()> {
    match of {
        None | Some(FieldType::Text) => Some(()),
        Some(other) => {
            at.problem(
                format!("this is for text, the type is {other}"),
                "remove it, or change the type to text",
            );
            None
        }
    }
}

fn texts(at: &At<'_>, of: Option<FieldType>) -> Option<Vec<String>> {
    only_text(at, of)?;
    let remedy = "list the allowed texts: `allowed: [open, paid]`";
    let texts: Option<Vec<String>> = at.items(remedy)?.iter().map(At::text).collect();
    let texts = texts?;
    if texts.is_empty() {
        at.problem("the list is empty, so nothing would be allowed", remedy);
        return None;
    }
    Some(texts)
}

fn pattern(at: &At<'_>, of: Option<FieldType>) -> Option<Option<String>> {
    only_text(at, of)?;
    let text = at.text()?;
    if let Err(reason) = format::whole_text(&text) {
        at.problem(
            format!("the regular expression is not valid: {reason}"),
            "correct it; look-around and back-references are not supported",
        );
        return None;
    }
    Some(Some(text))
}

fn length(at: &At<'_>, of: Option<FieldType>) -> Option<Option<u32>> {
    only_text(at, of)?;
    at.number("a number of characters").map(Some)
}
