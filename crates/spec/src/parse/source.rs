use std::time::Duration;

use super::{optional, secrets};
use crate::{
    CsvSource, Encoding, JsonLayout, JsonSource, PostgresSource, Source, SqliteSource, TableRead,
    reader::{At, Keys},
};

const KINDS: [&str; 4] = ["csv", "json", "postgres", "sqlite"];

pub(super) fn source(at: &At<'_>) -> Option<Source> {
    let keys = at.keys(&KINDS)?;
    let (kind, at) = keys.only(&KINDS, "kind of source")?;
    match kind {
        "csv" => csv(&at).map(Source::Csv),
        "json" => json(&at).map(Source::Json),
        "postgres" => postgres(&at).map(Source::Postgres),
        _ => sqlite(&at).map(Source::Sqlite),
    }
}

fn csv(at: &At<'_>) -> Option<CsvSource> {
    let keys = at.keys(&["path", "delimiter", "quote", "encoding", "null_values"])?;
    let path = path(&keys);
    let delimiter = match keys.get("delimiter") {
        Some(at) => byte(&at),
        None => Some(b','),
    };
    let quote = match keys.get("quote") {
        Some(at) if at.text().as_deref() == Some("") => Some(None),
        Some(at) => byte(&at).map(Some),
        None => Some(Some(b'"')),
    };
    if let (Some(delimiter), Some(Some(quote))) = (delimiter, quote)
        && delimiter == quote
    {
        keys.at()
            .problem("`delimiter` and `quote` are the same character", "change one of the two");
        return None;
    }
    let encoding = match keys.get("encoding") {
        Some(at) => at.word(&[
            ("utf-8", Encoding::Utf8),
            ("latin-1", Encoding::Latin1),
            ("windows-1252", Encoding::Windows1252),
        ]),
        None => Some(Encoding::Utf8),
    };
    let null_values = optional(&keys, "null_values", |at| {
        at.items("list the texts that mean null: `null_values: [\"NULL\"]`")?
            .iter()
            .map(At::text)
            .collect()
    });
    Some(CsvSource {
        path: path?,
        delimiter: delimiter?,
        quote: quote?,
        encoding: encoding?,
        null_values: null_values?,
    })
}

fn json(at: &At<'_>) -> Option<JsonSource> {
    let keys = at.keys(&["path", "records", "lines"])?;
    let path = path(&keys);
    let records = optional(&keys, "records", |at| {
        let text = at.name()?;
        let keys: Vec<String> = text.split('.').map(str::to_owned).collect();
        if keys.iter().any(String::is_empty) {
            at.problem(
                "a key on the way to the records is empty",
                "join the keys by dots, outermost first: `customers.items`",
            );
            return None;
        }
        Some(keys)
    });
    let lines = optional(&keys, "lines", At::boolean)?;
    let records = records?;
    if lines && !records.is_empty() {
        keys.at().problem(
            "`lines: true` has one record in every line, so there is no `records` to look for",
            "remove one of the two",
        );
        return None;
    }
    Some(JsonSource {
        path: path?,
        layout: if lines { JsonLayout::Lines } else { JsonLayout::Array(records) },
    })
}

fn postgres(at: &At<'_>) -> Option<PostgresSource> {
    let keys = at.keys(&["url", "table", "key", "cursor", "lag"])?;
    let url = keys.require("url", "add `url: \"${env:NAME}\"`").and_then(|at| secrets::url(&at));
    let read = table_read(&keys);
    Some(PostgresSource { url: url?, read: read? })
}

fn sqlite(at: &At<'_>) -> Option<SqliteSource> {
    let keys = at.keys(&["path", "table", "key", "cursor", "lag"])?;
    let path = path(&keys);
    let read = table_read(&keys);
    Some(SqliteSource { path: path?, read: read? })
}

fn table_read(keys: &Keys<'_>) -> Option<TableRead> {
    let table = keys.require("table", "name the table").and_then(|at| table(&at));
    let key =
        optional(keys, "key", |at| at.names("list the columns that identify a row: `key: [id]`"));
    let cursor = optional(keys, "cursor", |at| at.name().map(Some));
    let lag = match keys.get("lag") {
        Some(at) if keys.get("cursor").is_none() => {
            at.problem(
                "`lag` says how far to look back behind the cursor, and there is no `cursor`",
                "add `cursor: <column>`, or remove `lag`",
            );
            None
        }
        Some(at) => at.duration(),
        None => Some(Duration::ZERO),
    };
    Some(TableRead { table: table?, key: key?, cursor: cursor?, lag: lag? })
}

/// Reads the name of a table, with or without its schema.
pub(super) fn table(at: &At<'_>) -> Option<String> {
    let text = at.name()?;
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 2
        || parts.iter().any(|part| part.is_empty() || part.len() > 63 || part.contains('"'))
    {
        at.problem(
            format!("`{text}` is not the name of a table"),
            "write `table` or `schema.table`, each of at most 63 bytes and without quotes",
        );
        return None;
    }
    Some(text)
}

pub(super) fn path(keys: &Keys<'_>) -> Option<String> {
    keys.require("path", "add `path`")?.name()
}

fn byte(at: &At<'_>) -> Option<u8> {
    let text = at.text()?;
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'\r' | b'\n' | 0) => Some(*byte),
        _ => {
            at.problem(
                "one ASCII character is expected",
                "write one character in double quotes, such as \";\" or \"\\t\"",
            );
            None
        }
    }
}
