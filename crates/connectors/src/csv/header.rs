//! The first record of a CSV text, and whether it has the declared columns.

use std::collections::HashSet;

use connect::{Error, Limits};
use model::{ColumnPolicy, Contract, Schema};

use super::{
    scanner::{Dialect, Found, Kind, Scanner, Span},
    table::unescape,
};
use crate::files::Input;

/// The names of the columns, and where the first record begins.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) names: Vec<String>,
    /// Line of the header, from 1.
    pub(super) line: u64,
    /// Line behind the header.
    pub(super) next_line: u64,
}

impl Header {
    /// Reads the first record of a text that stands at its start.
    ///
    /// # Errors
    ///
    /// Stops where there is none, or one whose fields cannot name columns.
    pub(super) fn read(input: &mut Input, dialect: Dialect, limits: Limits) -> Result<Self, Error> {
        let mut scanner = Scanner::new(dialect);
        let mut line = 1;
        let length = loop {
            let stop = |line: u64, what: &str, hint: &str| {
                Error::stop(format!("file `{}` line {line}: {what}", input.path()), hint)
            };
            match scanner.scan(input.text(), input.ended()) {
                Found::Record(length) if length <= limits.record_bytes => break length,
                Found::More if input.text().len() <= limits.record_bytes => input.fill()?,
                Found::Blank(length) => {
                    line += 1;
                    input.advance(length);
                    scanner.reset();
                }
                Found::Record(_) | Found::More => {
                    return Err(stop(line, "the header is too large", CHECK_FORMAT));
                }
                Found::Unclosed(lines) => return Err(unclosed_quote(input.path(), line + lines)),
                Found::End => {
                    return Err(Error::stop(
                        format!("file `{}` is empty: it has no header", input.path()),
                        "a file without records still needs its header; deliver it again, or move \
                         it away",
                    ));
                }
            }
        };
        let stop = |what: String| {
            Error::stop(format!("file `{}` line {line}: {what}", input.path()), CHECK_FORMAT)
        };
        if scanner.fault.is_some() {
            return Err(stop("the header has a quote in the middle of a field".to_owned()));
        }
        let record = &input.text()[..length];
        let mut names = Vec::with_capacity(scanner.fields.len());
        for field in &scanner.fields {
            let name = name(record, *field, dialect.quote)
                .ok_or_else(|| stop("the header is not valid in its encoding".to_owned()))?;
            names.push(name);
        }
        let mut seen = HashSet::new();
        for (index, name) in names.iter().enumerate() {
            if name.trim().is_empty() {
                return Err(stop(format!("column {} has no name", index + 1)));
            }
            if !seen.insert(name) {
                return Err(stop(format!("column `{name}` appears more than once")));
            }
        }
        let header = Self { line, next_line: line + scanner.inner_lines() + 1, names };
        input.advance(length);
        Ok(header)
    }
}

const CHECK_FORMAT: &str = "the first line of a file has to name its columns; correct it, or \
                            `delimiter`, `quote` and `encoding`";

fn name(record: &[u8], field: Span, quote: Option<u8>) -> Option<String> {
    let text = &record[field.start..field.end];
    let mut name = Vec::with_capacity(text.len());
    match (field.kind, quote) {
        (Kind::Escaped, Some(quote)) => unescape(text, quote, |piece| name.extend(piece)),
        _ => name.extend(text),
    }
    String::from_utf8(name).ok()
}

/// The error for a quote that the rest of the file does not close.
pub(super) fn unclosed_quote(path: &str, line: u64) -> Error {
    Error::stop(
        format!("file `{path}` line {line}: the quote that is opened here is never closed"),
        "close it or double it; if quotes mean nothing in these files, set `quote: \"\"`",
    )
}

/// Which columns a file has to have, and which it may have.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    /// Nothing is known yet, so everything is welcome.
    pub(super) schema: Option<Schema>,
    /// Columns that are welcome though the schema does not know them, or may be gone though it does.
    pub(super) accepted: Vec<String>,
    /// Columns that the schema does not know are left to the transformer.
    pub(super) open: bool,
}

impl Shape {
    pub(super) fn new(contract: Contract, schema: Option<&Schema>, accepted: &[String]) -> Self {
        let policy = contract.columns.unwrap_or(ColumnPolicy::Freeze);
        Self {
            schema: schema.cloned(),
            accepted: accepted.to_vec(),
            open: policy != ColumnPolicy::Freeze,
        }
    }

    /// Compares a header with the schema. The order of columns means nothing.
    ///
    /// # Errors
    ///
    /// Stops, naming the columns that are new or gone, the file and the line.
    pub(super) fn check(&self, path: &str, header: &Header) -> Result<(), Error> {
        let Some(schema) = &self.schema else {
            return Ok(());
        };
        let is_accepted = |name: &str| self.accepted.iter().any(|accepted| accepted == name);
        let added: Vec<&str> = header
            .names
            .iter()
            .map(String::as_str)
            .filter(|name| schema.field(name).is_none() && !is_accepted(name))
            .collect();
        let missing: Vec<&str> = schema
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .filter(|name| !header.names.iter().any(|known| known == name) && !is_accepted(name))
            .collect();
        let (what, hint) = match (&added[..], &missing[..]) {
            ([], []) => return Ok(()),
            (_, []) if self.open => return Ok(()),
            ([new], [gone]) => (
                format!("column `{gone}` is missing and column `{new}` is new: it looks renamed"),
                format!(
                    "name it `{gone}` again in the file; or write `{new}` for `{gone}` in `schema` \
                     and, to keep the field's name, rename it in `steps`"
                ),
            ),
            (added, []) => (
                format!("{} not in the schema", are("column", added)),
                format!(
                    "declare it in `schema`, or set `contract.columns` to `evolve` or \
                     `discard_value`, or accept it once with `tributary run NAME {}`",
                    accept(added)
                ),
            ),
            ([], missing) => (
                format!("{} missing", are("column", missing)),
                format!(
                    "deliver the file with it, or take it out of `schema`, or accept that it is \
                     gone with `tributary run NAME {}`",
                    accept(missing)
                ),
            ),
            (added, missing) => (
                format!(
                    "{} missing and {} new: they may be renamed",
                    are("column", missing),
                    are("column", added)
                ),
                "deliver the file with its former header, or change `schema` to the new one"
                    .to_owned(),
            ),
        };
        Err(Error::stop(format!("file `{path}` line {}: {what}", header.line), hint))
    }
}

fn are(noun: &str, names: &[&str]) -> String {
    let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names {
        [_] => format!("{noun} {list} is"),
        _ => format!("{noun}s {list} are"),
    }
}

fn accept(names: &[&str]) -> String {
    let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let options = names.iter().map(|name| match is_plain(name) {
        true => format!("--accept {name}"),
        false => format!("--accept '{name}'"),
    });
    options.collect::<Vec<_>>().join(" ")
}
