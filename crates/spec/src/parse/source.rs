use std::time::Duration;

use model::PipelineName;

use super::{optional, secrets};
use crate::{
    Capture, CsvSource, Encoding, JsonLayout, JsonSource, PostgresSource, Rows, Source,
    SqliteSource, TableRead,
    reader::{At, Keys},
};

const KINDS: [&str; 6] = ["csv", "json", "http", "postgres", "sqlite", "push"];

/// How long a run of a captured table follows the log.
const WINDOW: Duration = Duration::from_secs(60);

pub(super) fn source(at: &At<'_>) -> Option<Source> {
    let keys = at.keys(&[KINDS.as_slice(), &["connection"]].concat())?;
    let (kind, at) = keys.only(&KINDS, "kind of source")?;
    match kind {
        "csv" => csv(&at).map(Source::Csv),
        "json" => json(&at).map(Source::Json),
        "http" => super::http_source::source(&at).map(|http| Source::Http(Box::new(http))),
        "postgres" => postgres(&at).map(Source::Postgres),
        "push" => at
            .no_keys("write `push: {}`; what may push stands under `triggers.push`")
            .map(|()| Source::Push),
        _ => sqlite(&at).map(Source::Sqlite),
    }
}

/// Reads the name of the connection that the source shares with others, if it names one.
pub(super) fn connection(at: &At<'_>) -> Option<Option<PipelineName>> {
    let keys = at.keys(&[KINDS.as_slice(), &["connection"]].concat())?;
    let Some(at) = keys.get("connection") else { return Some(None) };
    match PipelineName::try_from(at.text()?) {
        Ok(name) => Some(Some(name)),
        Err(error) => {
            at.problem(error.to_string(), "write the name of a connection: `connection: shop`");
            None
        }
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
    let keys = at.keys(&["url", "table", "query", "key", "cursor", "lag", "capture"])?;
    let url = keys.require("url", "add `url: \"${env:NAME}\"`").and_then(|at| secrets::url(&at));
    let read = table_read(&keys);
    let capture = optional(&keys, "capture", |at| capture(at, &keys).map(Some));
    Some(PostgresSource { url: url?, read: read?, capture: capture? })
}

fn capture(at: &At<'_>, source: &Keys<'_>) -> Option<Capture> {
    for other in ["query", "cursor", "lag"] {
        if let Some(at) = source.get(other) {
            at.problem(
                format!("`capture` takes all changes of a table from the log, without `{other}`"),
                format!("remove `{other}`, or remove `capture`"),
            );
            return None;
        }
    }
    let keys = at.keys(&["slot", "publication", "window"])?;
    let slot = optional(&keys, "slot", |at| {
        let name = at.name()?;
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.len() > 63 || !name.bytes().all(fits) {
            at.problem(
                format!("`{name}` is not the name of a replication slot"),
                "use at most 63 lower case letters, digits and `_`",
            );
            return None;
        }
        Some(Some(name))
    });
    let publication = optional(&keys, "publication", |at| {
        let name = at.name()?;
        if name.len() > 63 || name.contains('"') {
            at.problem(
                format!("`{name}` is not the name of a publication"),
                "use at most 63 bytes without quotes",
            );
            return None;
        }
        Some(Some(name))
    });
    let window = match keys.get("window") {
        Some(at) => at.duration(),
        None => Some(WINDOW),
    };
    Some(Capture { slot: slot?, publication: publication?, window: window? })
}

fn sqlite(at: &At<'_>) -> Option<SqliteSource> {
    let keys = at.keys(&["path", "table", "query", "key", "cursor", "lag"])?;
    let path = path(&keys);
    let read = table_read(&keys);
    Some(SqliteSource { path: path?, read: read? })
}

fn table_read(keys: &Keys<'_>) -> Option<TableRead> {
    let (kind, at) = keys.only(&["table", "query"], "place of the rows")?;
    let rows = match kind {
        "query" => {
            if keys.get("key").is_none() {
                at.problem(
                    "the rows of a query have no key of their own",
                    "list the columns that identify a row: `key: [id]`",
                );
                return None;
            }
            query(&at).map(Rows::Query)
        }
        _ => table(&at).map(Rows::Table),
    };
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
    Some(TableRead { rows: rows?, key: key?, cursor: cursor?, lag: lag? })
}

/// Reads a statement that stands in the place of a table.
fn query(at: &At<'_>) -> Option<String> {
    let text = at.text()?;
    let text = text.trim().trim_end_matches(';').trim_end();
    let first = text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    if !first.eq_ignore_ascii_case("select") && !first.eq_ignore_ascii_case("with") {
        at.problem(
            "a query begins with `select` or `with`",
            "write one statement that only reads: `query: select id, name from customers`",
        );
        return None;
    }
    Some(text.to_owned())
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

pub(super) fn byte(at: &At<'_>) -> Option<u8> {
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
