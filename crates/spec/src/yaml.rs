//! A YAML document as a tree in which everything knows its line.
//!
//! Scalars keep the text that the user wrote, so that `007` and `no` stay what they are until a key
//! says what it wants. Anchors, aliases, tags and more than one document are refused, which leaves
//! nothing that could grow while it is read.

use std::collections::{BTreeMap, HashMap};

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, options};

use crate::problem::Problems;

const MAX_BYTES: usize = 256 * 1024;
const MAX_DEPTH: usize = 16;

/// A value and the line where it begins.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: u32,
    pub(crate) value: Node,
}

/// Reads the only document of a text, or nothing where problems were added.
///
/// Repeated keys are problems too, but the tree keeps the first of them so that the rest of the
/// document can be checked.
pub(crate) fn read(text: &str, problems: &Problems) -> Option<Node> {
    if text.len() > MAX_BYTES {
        problems.add(
            0,
            "",
            format!("the file has more than {} KiB", MAX_BYTES / 1024),
            "split it into several pipelines",
        );
        return None;
    }
    let options: Options = options! { emit_comments: false };
    let mut reader = Reader { events: Parser::new_from_str_with_options(text, options), problems };
    match reader.document() {
        Ok(node) => Some(node),
        Err(Stop::Reported) => None,
        Err(Stop::Syntax(error)) => {
            problems.add(
                number(error.marker().line()),
                "",
                format!("the text is not YAML: {}", error.info()),
                "correct the syntax; indent with spaces and quote texts with special characters",
            );
            None
        }
    }
}

/// Collects the line of every key and list item, by key path.
pub(crate) fn lines(node: &Node, path: &str, lines: &mut BTreeMap<String, u32>) {
    lines.insert(path.to_owned(), node.line);
    match &node.value {
        Value::Null | Value::Scalar { .. } => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                self::lines(item, &item_path(path, index), lines);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let path = key_path(path, &entry.key);
                self::lines(&entry.value, &path, lines);
                lines.insert(path, entry.line);
            }
        }
    }
}

/// Returns the path of a key in the map at `path`.
pub(crate) fn key_path(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Returns the path of an item of the list at `path`; items count from 0.
pub(crate) fn item_path(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

enum Stop {
    Reported,
    Syntax(ScanError),
}

struct Reader<'text, 'problems> {
    events: Parser<'text, serde_saphyr::granit_parser::StrInput<'text>>,
    problems: &'problems Problems,
}

impl<'text> Reader<'text, '_> {
    fn next(&mut self) -> Result<(Event<'text>, u32), Stop> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, line(&span))),
            Some(Err(error)) => Err(Stop::Syntax(error)),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn document(&mut self) -> Result<Node, Stop> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd, _) => {
                    return Err(self.refuse(
                        0,
                        "",
                        "the file is empty",
                        "begin with `pipeline: <name>`",
                    ));
                }
                (event, line) => {
                    let node = self.node(event, line, "", 0)?;
                    self.end()?;
                    return Ok(node);
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Stop> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(..), line) => {
                    return Err(self.refuse(
                        line,
                        "",
                        "the file holds more than one document",
                        "write one file per pipeline",
                    ));
                }
                _ => {}
            }
        }
    }

    fn node(
        &mut self,
        event: Event<'text>,
        line: u32,
        path: &str,
        depth: usize,
    ) -> Result<Node, Stop> {
        if depth > MAX_DEPTH {
            return Err(self.refuse(
                line,
                path,
                "the document is nested too deeply",
                "no part of a pipeline needs so many levels",
            ));
        }
        if event.is_alias() || event.anchor_id().is_some_and(|id| id != 0) {
            return Err(self.refuse(
                line,
                path,
                "anchors and aliases (`&name`, `*name`) are not supported",
                "write the value out, or quote it if it is a text",
            ));
        }
        if event.tag().is_some() {
            return Err(self.refuse(
                line,
                path,
                "tags (`!name`) are not supported",
                "leave the tag out, or quote the text",
            ));
        }
        let value = match event {
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Null
                } else {
                    Value::Scalar { text: text.into_owned(), plain }
                }
            }
            Event::SequenceStart(..) => Value::List(self.items(path, depth)?),
            Event::MappingStart(..) => Value::Map(self.entries(path, depth)?),
            _ => {
                return Err(self.refuse(
                    line,
                    path,
                    "the text is not a YAML value",
                    "correct the syntax",
                ));
            }
        };
        Ok(Node { line, value })
    }

    fn items(&mut self, path: &str, depth: usize) -> Result<Vec<Node>, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, line) => {
                    let path = item_path(path, items.len());
                    items.push(self.node(event, line, &path, depth + 1)?);
                }
            }
        }
    }

    fn entries(&mut self, path: &str, depth: usize) -> Result<Vec<Entry>, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut known: HashMap<String, u32> = HashMap::new();
        loop {
            let (key, key_line) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(text, ..), line) => (text.into_owned(), line),
                (_, line) => {
                    return Err(self.refuse(
                        line,
                        path,
                        "a key is not a text",
                        "write `key: value`",
                    ));
                }
            };
            let (event, line) = self.next()?;
            let path = key_path(path, &key);
            let value = self.node(event, line, &path, depth + 1)?;
            if let Some(first) = known.get(&key) {
                self.problems.add(
                    key_line,
                    &path,
                    format!("the key `{key}` was given already in line {first}"),
                    "remove one of the two",
                );
                continue;
            }
            known.insert(key.clone(), key_line);
            entries.push(Entry { key, line: key_line, value });
        }
    }

    fn refuse(&self, line: u32, path: &str, message: &str, remedy: &str) -> Stop {
        self.problems.add(line, path, message, remedy);
        Stop::Reported
    }
}

fn line(span: &Span) -> u32 {
    number(span.start.line())
}

fn number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}
