//! Finds the fields of one record in text that arrives in pieces.
//!
//! A record ends with LF, CR, CRLF or the end of the text, outside of quotes. The scanner keeps what
//! it knows between calls, so a record costs one pass however the text is cut, and a record that is
//! too large to keep can be scanned while its text is dropped.

use memchr::{memchr, memchr2};

/// The bytes that mean something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: Option<u8>,
}

/// Where a field lies in the text of its record, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Quoted,
    /// Quoted, with doubled quotes inside.
    Escaped,
}

/// A quote where none can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// In a field that does not begin with one.
    StrayQuote,
    /// The field goes on behind its closing quote.
    BehindQuote,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A record, in so many bytes, line end included.
    Record(usize),
    /// An empty line, in so many bytes, line end included.
    Blank(usize),
    /// The record goes on behind the text.
    More,
    /// The text ended before the quote that was opened so many lines below the record's first one
    /// was closed.
    Unclosed(u64),
    /// Nothing is left.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote in a quoted field: the closing one, or the first of two.
    QuoteSeen,
    /// Behind a fault: the record ends with its line.
    Broken,
}

#[derive(Debug)]
pub(super) struct Scanner {
    dialect: Dialect,
    special: [bool; 256],
    state: State,
    /// The next byte to look at.
    at: usize,
    field_start: usize,
    escaped: bool,
    /// Line ends inside of the record.
    line_ends: u64,
    quote_opened: u64,
    /// The text of the record was dropped up to `at`, and its fields are not kept.
    dropped: bool,
    last_dropped: u8,
    /// The record or empty line that was found; it is found again until the next one begins.
    found: Option<Found>,
    /// Fields of the record, unless some of its text was dropped.
    pub(super) fields: Vec<Span>,
    /// Number of fields of the record.
    pub(super) count: usize,
    /// What is wrong with the quotes of the record, and in which field, counted from 0.
    pub(super) fault: Option<(Fault, usize)>,
}

impl Scanner {
    pub(super) fn new(dialect: Dialect) -> Self {
        let mut special = [false; 256];
        for byte in [b'\n', b'\r', dialect.delimiter].into_iter().chain(dialect.quote) {
            special[usize::from(byte)] = true;
        }
        Self {
            dialect,
            special,
            state: State::FieldStart,
            at: 0,
            field_start: 0,
            escaped: false,
            line_ends: 0,
            quote_opened: 0,
            dropped: false,
            last_dropped: 0,
            found: None,
            fields: Vec::new(),
            count: 0,
            fault: None,
        }
    }

    /// Begins the next record.
    pub(super) fn reset(&mut self) {
        self.state = State::FieldStart;
        self.at = 0;
        self.line_ends = 0;
        self.dropped = false;
        self.found = None;
        self.fields.clear();
        self.count = 0;
        self.fault = None;
    }

    /// Returns the number of line ends that lie inside of the record.
    pub(super) fn inner_lines(&self) -> u64 {
        self.line_ends
    }

    /// Tells that the text up to where the scanner has looked will not be given again, and returns
    /// how much that is.
    pub(super) fn forget(&mut self, text: &[u8]) -> usize {
        let bytes = std::mem::take(&mut self.at);
        if bytes > 0 {
            self.last_dropped = text[bytes - 1];
            self.dropped = true;
            self.fields.clear();
        }
        bytes
    }

    /// Looks for the end of the record. `text` begins with the record, or behind what was forgotten
    /// of it, and holds at least what it held in the call before; `ended`: nothing follows.
    pub(super) fn scan(&mut self, text: &[u8], ended: bool) -> Found {
        if let Some(found) = self.found {
            return found;
        }
        let found = self.find(text, ended);
        if matches!(found, Found::Record(_) | Found::Blank(_)) {
            self.found = Some(found);
        }
        found
    }

    fn find(&mut self, text: &[u8], ended: bool) -> Found {
        loop {
            match self.state {
                State::FieldStart => {
                    let Some(byte) = text.get(self.at) else {
                        return match ended {
                            false => Found::More,
                            true if self.is_untouched() => Found::End,
                            true => {
                                self.field_start = self.at;
                                self.end_field(self.at, Kind::Plain);
                                Found::Record(self.at)
                            }
                        };
                    };
                    if Some(*byte) == self.dialect.quote {
                        self.at += 1;
                        self.quote_opened = self.line_ends;
                        self.escaped = false;
                        self.state = State::Quoted;
                    } else {
                        self.state = State::Plain;
                    }
                    self.field_start = self.at;
                }
                State::Plain => {
                    if let Some(found) = self.plain(text, ended) {
                        return found;
                    }
                }
                State::Quoted => {
                    // A dialect without quotes never gets here.
                    let quote = self.dialect.quote.unwrap_or(b'"');
                    let closing = memchr(quote, &text[self.at..]);
                    let end = closing.map_or(text.len(), |distance| self.at + distance);
                    self.count_line_ends(text, end);
                    if closing.is_none() {
                        return match ended {
                            true => Found::Unclosed(self.quote_opened),
                            false => Found::More,
                        };
                    }
                    self.at = end + 1;
                    self.state = State::QuoteSeen;
                }
                State::QuoteSeen => {
                    if let Some(found) = self.behind_quote(text, ended) {
                        return found;
                    }
                }
                State::Broken => {
                    let end = memchr2(b'\n', b'\r', &text[self.at..]);
                    self.at = end.map_or(text.len(), |distance| self.at + distance);
                    if self.at < text.len() {
                        return self.line_end(text, ended);
                    }
                    return self.end_of_text(ended);
                }
            }
        }
    }

    fn plain(&mut self, text: &[u8], ended: bool) -> Option<Found> {
        let rest = &text[self.at..];
        let length = rest.iter().position(|byte| self.special[usize::from(*byte)]);
        let Some(length) = length else {
            self.at = text.len();
            if ended {
                self.end_field(self.at, Kind::Plain);
            }
            return Some(self.end_of_text(ended));
        };
        self.at += length;
        let byte = text[self.at];
        if byte == self.dialect.delimiter {
            self.end_field(self.at, Kind::Plain);
            self.at += 1;
            self.state = State::FieldStart;
        } else if byte == b'\n' || byte == b'\r' {
            if self.at == 0 && self.count == 0 && !self.dropped {
                return Some(match self.line_end(text, ended) {
                    Found::Record(bytes) => Found::Blank(bytes),
                    other => other,
                });
            }
            // A line end whose second half has not arrived is looked at again.
            let found = self.line_end(text, ended);
            if found != Found::More {
                self.end_field(self.at, Kind::Plain);
            }
            return Some(found);
        } else {
            self.fault = Some((Fault::StrayQuote, self.count));
            self.state = State::Broken;
        }
        None
    }

    fn behind_quote(&mut self, text: &[u8], ended: bool) -> Option<Found> {
        let kind = if self.escaped { Kind::Escaped } else { Kind::Quoted };
        let end = self.at.saturating_sub(1);
        match text.get(self.at).copied() {
            None => {
                if ended {
                    self.end_field(end, kind);
                }
                return Some(self.end_of_text(ended));
            }
            Some(byte) if Some(byte) == self.dialect.quote => {
                self.escaped = true;
                self.at += 1;
                self.state = State::Quoted;
            }
            Some(byte) if byte == self.dialect.delimiter => {
                self.end_field(end, kind);
                self.at += 1;
                self.state = State::FieldStart;
            }
            Some(b'\n' | b'\r') => {
                let found = self.line_end(text, ended);
                if found != Found::More {
                    self.end_field(end, kind);
                }
                return Some(found);
            }
            Some(_) => {
                self.fault = Some((Fault::BehindQuote, self.count));
                self.state = State::Broken;
            }
        }
        None
    }

    /// Nothing of the record has been seen.
    fn is_untouched(&self) -> bool {
        self.at == 0 && self.count == 0 && !self.dropped
    }

    fn end_field(&mut self, end: usize, kind: Kind) {
        self.count += 1;
        if !self.dropped {
            self.fields.push(Span { start: self.field_start, end, kind });
        }
    }

    fn end_of_text(&self, ended: bool) -> Found {
        if ended { Found::Record(self.at) } else { Found::More }
    }

    /// Finds the length of the record whose line ends at `at`.
    fn line_end(&self, text: &[u8], ended: bool) -> Found {
        match (text[self.at], text.get(self.at + 1)) {
            (b'\r', Some(b'\n')) => Found::Record(self.at + 2),
            (b'\r', None) if !ended => Found::More,
            _ => Found::Record(self.at + 1),
        }
    }

    /// Counts the line ends from `at` to `end` and moves there.
    fn count_line_ends(&mut self, text: &[u8], end: usize) {
        for found in memchr::memchr2_iter(b'\n', b'\r', &text[self.at..end]) {
            let index = self.at + found;
            let before = match index.checked_sub(1) {
                Some(before) => text[before],
                None => self.last_dropped,
            };
            // The line feed of a CRLF was counted with its carriage return.
            if text[index] == b'\r' || before != b'\r' {
                self.line_ends += 1;
            }
        }
        self.at = end;
    }
}
