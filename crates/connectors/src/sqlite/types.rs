//! Which declared type of SQLite stands for which of ours.
//!
//! SQLite converts what it stores by the affinity of the column, which follows from a word in the
//! declared type. It has no decimals: they are kept as text, digit by digit, in columns declared
//! `decimal_text(…)`, which `sum()` and comparisons with numbers still take for numbers. Dates,
//! times and JSON are text as well, booleans 0 and 1.

use model::FieldType;

use crate::sql::{
    quote::{Identifier, Table},
    session::Dialect,
    settings::Own,
    shape::{Column, Fit, Kind},
};

/// How SQLite spells things.
pub(super) struct Sqlite;

impl Dialect for Sqlite {
    fn column_type(&self, field_type: FieldType) -> String {
        match field_type {
            FieldType::Boolean => "boolean".to_owned(),
            FieldType::Integer => "bigint".to_owned(),
            FieldType::Double => "double".to_owned(),
            FieldType::Decimal { precision, scale } => format!("decimal_text({precision},{scale})"),
            FieldType::Text => "text".to_owned(),
            FieldType::Bytes => "blob".to_owned(),
            FieldType::Date => "date".to_owned(),
            FieldType::Timestamp => "timestamp".to_owned(),
            FieldType::Json => "json_text".to_owned(),
        }
    }

    fn own_type(&self, own: Own) -> &'static str {
        match own {
            Own::Version | Own::ExtractedAt => "bigint",
            Own::DeletedAt | Own::LoadedAt => "timestamp",
            Own::Record | Own::Run => "text",
        }
    }

    fn fit(&self, field_type: FieldType, column: &Column) -> Fit {
        use FieldType as F;
        match (field_type, column.kind) {
            // Stored as they are, or as text of the same digits.
            (_, Kind::Text | Kind::Bytes)
            | (F::Integer | F::Boolean, Kind::Integer | Kind::Numeric | Kind::Boolean)
            | (F::Double, Kind::Double | Kind::Numeric)
            | (F::Date | F::Timestamp, Kind::Timestamp)
            | (F::Json, Kind::Json) => Fit::Same,
            // A double tells all decimals of 15 digits apart.
            (F::Decimal { precision: ..=15, .. }, Kind::Numeric | Kind::Double)
            | (F::Decimal { precision: ..=18, scale: 0 }, Kind::Integer) => Fit::Same,
            _ => Fit::Misfit,
        }
    }

    fn now(&self) -> &'static str {
        "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"
    }

    fn add_column(&self, table: &Table, name: &Identifier, declared: &str) -> Vec<String> {
        vec![format!("alter table {table} add column {name} {declared}")]
    }

    fn widen_to_text(&self, table: &Table, name: &Identifier) -> Vec<String> {
        let wide = Identifier::known("_tributary_wide");
        vec![
            format!("alter table {table} add column {wide} text"),
            format!("update {table} set {wide} = cast({name} as text)"),
            format!("alter table {table} drop column {name}"),
            format!("alter table {table} rename column {wide} to {name}"),
        ]
    }

    fn index_name(&self, table: &Table) -> String {
        table.beside("record").name.to_string()
    }

    fn bare(&self) -> &'static str {
        "+"
    }

    fn writes_in_queries(&self) -> bool {
        false
    }

    fn in_range(&self, _: FieldType, _: i64) -> bool {
        true
    }
}

/// Returns the kind of a declared type: its affinity, and what people mean by some words.
///
/// Source: sqlite.org, "Datatypes In SQLite", section 3.1.
pub(super) fn kind(declared: &str) -> Kind {
    let declared = declared.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    if has(&["int"]) {
        Kind::Integer
    } else if has(&["char", "clob", "text"]) {
        Kind::Text
    } else if declared.is_empty() || has(&["blob"]) {
        Kind::Bytes
    } else if has(&["real", "floa", "doub"]) {
        Kind::Double
    } else if has(&["bool"]) {
        Kind::Boolean
    } else if has(&["date", "time"]) {
        Kind::Timestamp
    } else if has(&["json"]) {
        Kind::Json
    } else {
        Kind::Numeric
    }
}

/// Returns what a declared type promises of its values.
pub(super) fn field_type(declared: &str) -> FieldType {
    let lower = declared.to_ascii_lowercase();
    if lower.contains("json") {
        return FieldType::Json;
    }
    let decimal =
        ["decimal_text", "decimal", "numeric"].iter().find_map(|word| lower.strip_prefix(word));
    if let Some(digits) = decimal {
        return format!("decimal{digits}").parse().unwrap_or(FieldType::Text);
    }
    match kind(declared) {
        Kind::Integer => FieldType::Integer,
        Kind::Double => FieldType::Double,
        Kind::Boolean => FieldType::Boolean,
        Kind::Bytes if !declared.is_empty() => FieldType::Bytes,
        Kind::Timestamp if lower == "date" => FieldType::Date,
        Kind::Timestamp if lower != "time" => FieldType::Timestamp,
        _ => FieldType::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_would_change_digits_does_not_fit() {
        let column = |declared: &str| Column {
            name: "x".to_owned(),
            declared: declared.to_owned(),
            base: String::new(),
            kind: kind(declared),
            required: false,
        };
        let fit =
            |field: &str, declared: &str| Sqlite.fit(field.parse().unwrap(), &column(declared));
        assert_eq!(fit("decimal(38,9)", "numeric"), Fit::Misfit);
        assert_eq!(fit("text", "integer"), Fit::Misfit);
        assert_eq!(fit("text", "decimal(10,2)"), Fit::Misfit);
        assert_eq!(fit("integer", "real"), Fit::Misfit);
        assert_eq!(fit("decimal(38,9)", "decimal_text(38,9)"), Fit::Same);
    }

    #[test]
    fn a_column_of_ours_is_read_back_as_what_it_was() {
        for text in [
            "boolean",
            "integer",
            "double",
            "decimal(38,9)",
            "text",
            "bytes",
            "date",
            "timestamp",
            "json",
        ] {
            let declared = Sqlite.column_type(text.parse().unwrap());
            assert_eq!(field_type(&declared).to_string(), text);
        }
    }
}
