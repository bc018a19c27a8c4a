//! Records of one CSV text.

use connect::{Error, Limits};

use super::{
    header::unclosed_quote,
    scanner::{Dialect, Fault, Found, Scanner},
    table::Table,
};
use crate::files::{Cut, Input, Place, RefusedText, Text};

/// A CSV text behind its header.
pub(super) struct CsvText {
    input: Input,
    scanner: Scanner,
    table: Table,
    limits: Limits,
    /// Line of the next byte, from 1.
    line: u64,
}

/// The records of a chunk so far.
#[derive(Default)]
struct Gathered {
    positions: Vec<u64>,
    refused: Vec<RefusedText>,
    bytes: usize,
}

impl Gathered {
    fn len(&self) -> usize {
        self.positions.len() + self.refused.len()
    }

    fn has_room_for(&self, bytes: usize, limits: Limits) -> bool {
        self.len() == 0
            || (self.len() < limits.chunk_records && self.bytes + bytes <= limits.chunk_bytes)
    }
}

impl CsvText {
    pub(super) fn new(
        input: Input,
        dialect: Dialect,
        table: Table,
        limits: Limits,
        line: u64,
    ) -> Self {
        Self { input, scanner: Scanner::new(dialect), table, limits, line }
    }

    /// Appends the record of `length` bytes at the front of the input.
    fn take_record(&mut self, length: usize, gathered: &mut Gathered) {
        let text = &self.input.text()[..length];
        let record = without_line_end(text);
        let position = self.line;
        let refusal = self.judge(record);
        match refusal {
            None => {
                self.table.push(record, &self.scanner.fields);
                gathered.positions.push(position);
            }
            Some((code, message, field)) => {
                let kept = record.len().min(self.limits.record_bytes);
                gathered.refused.push(RefusedText {
                    position,
                    code,
                    message,
                    field,
                    raw: record[..kept].to_vec(),
                });
            }
        }
        gathered.bytes += length;
        self.next_record(length);
    }

    fn next_record(&mut self, length: usize) {
        self.line += self.scanner.inner_lines() + 1;
        self.scanner.reset();
        self.input.advance(length);
    }

    /// Tells why a complete record is refused: code, message and field.
    fn judge(&self, record: &[u8]) -> Option<(&'static str, String, String)> {
        let line = self.line;
        let (expected, found) = (self.table.width(), self.scanner.count);
        if record.len() > self.limits.record_bytes {
            Some(("size", self.too_large(), String::new()))
        } else if let Some((fault, field)) = self.scanner.fault {
            let name = self.table.name(field);
            let what = match fault {
                Fault::StrayQuote => "a quote in a field that does not begin with one",
                Fault::BehindQuote => "text behind the closing quote of a field",
            };
            let column = field + 1;
            Some(("shape", format!("line {line}: {what}, in column {column}"), name.to_owned()))
        } else if expected != found {
            Some((
                "shape",
                format!("line {line}: {expected} fields expected, {found} found"),
                String::new(),
            ))
        } else if std::str::from_utf8(record).is_err() {
            let broken = self
                .scanner
                .fields
                .iter()
                .position(|field| std::str::from_utf8(&record[field.start..field.end]).is_err())
                .unwrap_or(0);
            Some((
                "encoding",
                format!("line {line}: a field is not valid in the encoding of the file"),
                self.table.name(broken).to_owned(),
            ))
        } else {
            None
        }
    }

    fn too_large(&self) -> String {
        format!("line {}: the record is larger than {} bytes", self.line, self.limits.record_bytes)
    }

    /// Passes a record that is too large to keep, in bounded memory.
    fn pass_large_record(&mut self) -> Result<RefusedText, Error> {
        let raw = self.input.text()[..self.limits.record_bytes].to_vec();
        loop {
            match self.scanner.scan(self.input.text(), self.input.ended()) {
                Found::More => {
                    let forgotten = self.scanner.forget(self.input.text());
                    self.input.advance(forgotten);
                    self.input.fill()?;
                }
                Found::Unclosed(lines) => return Err(self.unclosed(lines)),
                Found::Record(length) | Found::Blank(length) => {
                    let refused = RefusedText {
                        position: self.line,
                        code: "size",
                        message: self.too_large(),
                        field: String::new(),
                        raw,
                    };
                    self.next_record(length);
                    return Ok(refused);
                }
                Found::End => unreachable!("a record that was begun ends with the text"),
            }
        }
    }

    fn unclosed(&self, lines: u64) -> Error {
        unclosed_quote(self.input.path(), self.line + lines)
    }
}

fn without_line_end(text: &[u8]) -> &[u8] {
    match text {
        [record @ .., b'\r', b'\n'] | [record @ .., b'\n' | b'\r'] => record,
        record => record,
    }
}

impl Text for CsvText {
    fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    fn known_fields(&self) -> Vec<String> {
        self.table.names()
    }

    fn resume(&mut self, place: Place) -> Result<bool, Error> {
        if !self.input.skip_to(place.offset, place.hash)? {
            return Ok(false);
        }
        self.line = place.position;
        // A text that ended without a line end, or in the middle of one, has grown.
        let next = self.input.peek()?;
        match (self.input.last(), next) {
            (_, None) | (Some(b'\n'), _) => {}
            (Some(b'\r'), Some(b'\n')) => self.input.advance(1),
            (Some(b'\r'), _) => {}
            (_, Some(b'\n')) => self.input.advance(1),
            (_, Some(b'\r')) => {
                self.input.advance(1);
                if self.input.peek()? == Some(b'\n') {
                    self.input.advance(1);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn has_more(&mut self) -> Result<bool, Error> {
        loop {
            match self.scanner.scan(self.input.text(), self.input.ended()) {
                Found::Blank(length) => self.next_record(length),
                // One byte may be the first half of an empty line's end.
                Found::More if self.input.text().len() <= 1 => self.input.fill()?,
                Found::End => return Ok(false),
                _ => return Ok(true),
            }
        }
    }

    fn next(&mut self) -> Result<Option<Cut>, Error> {
        let mut gathered = Gathered::default();
        loop {
            match self.scanner.scan(self.input.text(), self.input.ended()) {
                Found::Record(length) if gathered.has_room_for(length, self.limits) => {
                    self.take_record(length, &mut gathered);
                }
                Found::Record(_) => break,
                Found::Blank(length) => self.next_record(length),
                // Two bytes of the text may be its line end.
                Found::More if self.input.text().len() > self.limits.record_bytes + 1 => {
                    if !gathered.has_room_for(self.limits.record_bytes, self.limits) {
                        break;
                    }
                    gathered.bytes += self.limits.record_bytes;
                    let refused = self.pass_large_record()?;
                    gathered.refused.push(refused);
                }
                Found::More => self.input.fill()?,
                Found::Unclosed(lines) => return Err(self.unclosed(lines)),
                Found::End => break,
            }
        }
        if gathered.len() == 0 {
            return Ok(None);
        }
        Ok(Some(Cut {
            columns: self.table.take(gathered.positions.len()),
            presence: Vec::new(),
            positions: gathered.positions,
            refused: gathered.refused,
        }))
    }

    fn place(&mut self) -> Place {
        Place { offset: self.input.offset(), hash: self.input.hash(), position: self.line }
    }
}
