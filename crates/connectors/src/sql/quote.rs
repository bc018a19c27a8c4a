//! The only place where names become SQL.
//!
//! Statements are put together from fixed text, numbers made here and the `Display` of
//! [`Identifier`] and [`Table`], which is quoted; values are bound or copied. [`statement`] is the
//! only call of `AssertSqlSafe`.

#![expect(clippy::disallowed_methods, reason = "here the names are quoted")]

use std::fmt;

use connect::Error;
use sqlx::AssertSqlSafe;
use twox_hash::XxHash3_64;

/// Longest name that PostgreSQL keeps as it is; it cuts longer ones, and two of them could become
/// the same. SQLite has no limit, but tables should be able to move between the two.
const LONGEST_NAME: usize = 63;

/// Vouches for a statement that was put together as the head of this module says.
pub(crate) fn statement(text: impl Into<String>) -> AssertSqlSafe<String> {
    AssertSqlSafe(text.into())
}

/// A name of a column or table that can be quoted. `Display` gives it quoted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identifier(String);

impl Identifier {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// Stops the run for a name that is empty, too long or holds a NUL.
    pub(crate) fn new(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        let problem = if name.is_empty() {
            "is empty"
        } else if name.len() > LONGEST_NAME {
            "is longer than 63 bytes"
        } else if name.contains('\0') {
            "holds a NUL"
        } else {
            return Ok(Self(name));
        };
        let shown: String = name.chars().take(80).collect();
        Err(Error::stop(
            format!("the name `{}` {problem}", shown.replace('\0', "\\0")),
            "give it another name with a `rename` step or in the database",
        ))
    }

    /// Takes a name that is fixed in our code or comes from the database's own catalog.
    pub(crate) fn known(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the name without quotes.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Returns the name as a text of SQL.
    pub(crate) fn literal(&self) -> String {
        format!("'{}'", self.0.replace('\'', "''"))
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// A table, with its schema if that was named. `Display` gives it quoted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    pub(crate) schema: Option<Identifier>,
    pub(crate) name: Identifier,
}

impl Table {
    /// Reads `table` or `schema.table`. A name that holds a dot is written in double quotes.
    ///
    /// # Errors
    ///
    /// Stops the run for names that [`Identifier::new`] refuses, and for more than two names.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::stop(
                format!("`{text}` does not name a table"),
                "write `table` or `schema.table`; put a name that holds a dot in double quotes",
            )
        };
        let mut names = Vec::new();
        let mut rest = text;
        loop {
            let (name, tail) = match rest.strip_prefix('"') {
                Some(quoted) => split_quoted(quoted).ok_or_else(wrong)?,
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            names.push(Identifier::new(name)?);
            match tail.strip_prefix('.') {
                Some(next) => rest = next,
                None if tail.is_empty() => break,
                None => return Err(wrong()),
            }
        }
        let name = names.pop().ok_or_else(wrong)?;
        let schema = names.pop();
        if names.is_empty() { Ok(Self { schema, name }) } else { Err(wrong()) }
    }

    /// Returns the table of ours that stands beside this one, such as `_tributary_seen_orders`.
    pub(crate) fn beside(&self, purpose: &str) -> Self {
        let mut name = format!("_tributary_{purpose}_{}", self.name.name());
        if name.len() > LONGEST_NAME {
            let hash = XxHash3_64::oneshot(name.as_bytes());
            let mut end = LONGEST_NAME - 17;
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            name.truncate(end);
            name.push_str(&format!("_{hash:016x}"));
        }
        Self { schema: self.schema.clone(), name: Identifier(name) }
    }

    /// Returns the name as people write it.
    pub(crate) fn plain(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", schema.name(), self.name.name()),
            None => self.name.name().to_owned(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        write!(f, "{}", self.name)
    }
}

/// Where rows are read from. `Display` gives what stands behind `from`.
///
/// A query is the user's own SQL. It runs as a sub-select, read-only, with the rights of the
/// connection that the user gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Table(Table),
    Query(String),
}

impl Origin {
    /// # Errors
    ///
    /// As [`Table::parse`].
    pub(crate) fn parse(rows: &spec::Rows) -> Result<Self, Error> {
        Ok(match rows {
            spec::Rows::Table(table) => Self::Table(Table::parse(table)?),
            spec::Rows::Query(query) => Self::Query(query.clone()),
        })
    }

    /// Returns what the ids of the rows begin with.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Table(table) => table.plain(),
            Self::Query(_) => "query".to_owned(),
        }
    }

    /// Names it in a sentence.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Table(table) => format!("table `{}`", table.plain()),
            Self::Query(_) => "the query".to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => table.fmt(f),
            // The query may end with a comment, which takes the rest of its line.
            Self::Query(query) => write!(f, "({query}\n) as \"rows\""),
        }
    }
}

/// Splits behind the closing quote; a doubled quote stands for one.
fn split_quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Some((name, &text[at + 1..]));
        }
    }
    None
}

/// Joins what is shown of each item by commas.
pub(crate) fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    join(items, ", ")
}

/// Joins what is shown of each item.
pub(crate) fn join<T: fmt::Display>(items: impl IntoIterator<Item = T>, between: &str) -> String {
    let texts: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_kept_is_refused() {
        for name in ["", "a\0b", &"é".repeat(32)] {
            assert!(Identifier::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn quotes_in_names_are_doubled() {
        let name = Identifier::new("a\"; drop table x; --").unwrap();
        assert_eq!(name.to_string(), "\"a\"\"; drop table x; --\"");
    }

    #[test]
    fn a_table_has_at_most_one_schema() {
        assert_eq!(Table::parse("s.t").unwrap().to_string(), "\"s\".\"t\"");
        assert_eq!(Table::parse("\"s.t\"").unwrap().to_string(), "\"s.t\"");
        assert_eq!(Table::parse("s.\"a\"\"b\"").unwrap().to_string(), "\"s\".\"a\"\"b\"");
        for text in ["a.b.c", "a.", ".a", "\"a", "\"a\"b", ""] {
            assert!(Table::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_long_table_still_has_tables_of_its_own_beside_it() {
        let first = Table::parse(&"a".repeat(63)).unwrap().beside("seen");
        let second = Table::parse(&("a".repeat(62) + "b")).unwrap().beside("seen");
        assert_ne!(first, second);
        assert!(first.name.name().len() <= LONGEST_NAME);
    }
}
