//! Steps on texts.

use std::{borrow::Cow, fmt, sync::Arc};

use arrow_array::{Array, StringArray, builder::StringBuilder, cast::AsArray};
use hmac::{Hmac, KeyInit, Mac};
use model::FieldType;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::refuse_all;
use crate::{
    table::{Column, Refusal, Table, any_present},
    written,
};

/// A change of a text.
pub(super) enum Change {
    Trim,
    Lower,
    Upper,
    Hash(Hmac<Sha256>),
    /// The number of characters that stay readable.
    Mask(u32),
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trim => "Trim",
            Self::Lower => "Lower",
            Self::Upper => "Upper",
            Self::Hash(_) => "Hash",
            Self::Mask(_) => "Mask",
        })
    }
}

impl Change {
    pub(super) fn hash(key: &SecretString) -> Self {
        let mac = Hmac::new_from_slice(key.expose_secret().as_bytes());
        Self::Hash(mac.expect("a key may have any length"))
    }

    fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self {
            Self::Trim => Cow::Borrowed(text.trim()),
            Self::Lower => Cow::Owned(text.to_lowercase()),
            Self::Upper => Cow::Owned(text.to_uppercase()),
            Self::Hash(mac) => {
                let mut mac = mac.clone();
                mac.update(text.as_bytes());
                Cow::Owned(hexadecimal(&mac.finalize().into_bytes()))
            }
            Self::Mask(keep_last) => {
                let masked =
                    text.chars().count().saturating_sub(usize::try_from(*keep_last).unwrap_or(0));
                let hidden = std::iter::repeat_n('*', masked);
                Cow::Owned(hidden.chain(text.chars().skip(masked)).collect())
            }
        }
    }
}

/// Writes bytes as lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

pub(super) fn change(table: &mut Table, field: &str, change: &Change) -> Vec<Refusal> {
    let Some(index) = table.position(field) else { return Vec::new() };
    let column = &mut table.columns[index];
    if column.field_type != FieldType::Text {
        return refuse_all(column, "text");
    }
    let source = column.values.as_string::<i32>();
    let mut texts = StringBuilder::with_capacity(source.len(), source.value_data().len());
    for text in source {
        texts.append_option(text.map(|text| change.apply(text)));
    }
    column.values = Arc::new(texts.finish());
    Vec::new()
}

/// The new fields are present where the old one is.
pub(super) fn split(
    table: &mut Table,
    field: &str,
    separator: &str,
    into: &[String],
) -> Vec<Refusal> {
    let Some(column) = table.column(field) else { return Vec::new() };
    if column.field_type != FieldType::Text {
        return refuse_all(column, "text");
    }
    let presence = column.presence.clone();
    let mut pieces: Vec<StringBuilder> = into.iter().map(|_| StringBuilder::new()).collect();
    for text in column.values.as_string::<i32>() {
        let mut rest = text.map(|text| text.splitn(into.len(), separator));
        for piece in &mut pieces {
            piece.append_option(rest.as_mut().and_then(Iterator::next));
        }
    }
    for (name, mut piece) in into.iter().zip(pieces) {
        table.set(Column {
            name: name.clone(),
            field_type: FieldType::Text,
            values: Arc::new(piece.finish()),
            presence: presence.clone(),
        });
    }
    Vec::new()
}

/// The new field is present where one of the old ones is, and null where all of them are.
pub(super) fn join(table: &mut Table, fields: &[String], separator: &str, into: &str) {
    let columns: Vec<&Column> = fields.iter().filter_map(|name| table.column(name)).collect();
    let sources: Vec<StringArray> = columns
        .iter()
        .map(|column| match column.field_type {
            FieldType::Text => column.values.as_string::<i32>().clone(),
            other => written::to_text(other, &column.values),
        })
        .collect();
    let mut joined = StringBuilder::new();
    let mut text = String::new();
    for row in 0..table.len() {
        text.clear();
        let mut any = false;
        for source in sources.iter().filter(|source| source.is_valid(row)) {
            if any {
                text.push_str(separator);
            }
            any = true;
            text.push_str(source.value(row));
        }
        joined.append_option(any.then_some(&text));
    }
    let presence = any_present(columns.iter().map(|column| column.presence.as_ref()));
    table.set(Column {
        name: into.to_owned(),
        field_type: FieldType::Text,
        values: Arc::new(joined.finish()),
        presence,
    });
}
