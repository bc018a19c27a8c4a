//! Records of a text with one JSON object per line (NDJSON).

use connect::{Error, Limits};
use memchr::memchr;

use super::{gathered::Gathered, is_space};
use crate::files::{Cut, Input, Place, Text};

/// A text of lines. Positions are line numbers, from 1.
pub(super) struct LinesText {
    input: Input,
    limits: Limits,
    /// Number of the line at the front of the input.
    line: u64,
    /// So many bytes at the front of the input hold no line end.
    searched: usize,
}

enum Line {
    /// With its line end, if it has one.
    Complete(usize),
    /// Larger than a record may be, and its end is not known.
    Large,
    End,
}

impl LinesText {
    pub(super) fn new(input: Input, limits: Limits) -> Self {
        Self { input, limits, line: 1, searched: 0 }
    }

    fn find_line(&mut self) -> Result<Line, Error> {
        loop {
            let text = self.input.text();
            if let Some(distance) = memchr(b'\n', &text[self.searched..]) {
                return Ok(Line::Complete(self.searched + distance + 1));
            }
            self.searched = text.len();
            // The last byte may belong to the line end.
            if text.len() > self.limits.record_bytes + 1 {
                return Ok(Line::Large);
            }
            if self.input.ended() {
                return Ok(match text.len() {
                    0 => Line::End,
                    length => Line::Complete(length),
                });
            }
            self.input.fill()?;
        }
    }

    fn next_line(&mut self, length: usize) {
        self.input.advance(length);
        self.line += 1;
        self.searched = 0;
    }

    fn pass_line(&mut self) -> Result<(), Error> {
        loop {
            let text = self.input.text();
            if let Some(at) = memchr(b'\n', text) {
                self.next_line(at + 1);
                return Ok(());
            }
            let length = text.len();
            if self.input.ended() {
                self.next_line(length);
                return Ok(());
            }
            self.input.advance(length);
            self.input.fill()?;
        }
    }

    fn take_line(&mut self, length: usize, gathered: &mut Gathered) -> bool {
        let text = &self.input.text()[..length];
        let record = text.strip_suffix(b"\n").unwrap_or(text);
        let record = record.strip_suffix(b"\r").unwrap_or(record).len();
        gathered.take(&mut self.input, record, self.line, self.limits)
    }
}

impl Text for LinesText {
    fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    fn known_fields(&self) -> Vec<String> {
        Vec::new()
    }

    fn resume(&mut self, place: Place) -> Result<bool, Error> {
        if !self.input.skip_to(place.offset, place.hash)? {
            return Ok(false);
        }
        self.line = place.position;
        self.searched = 0;
        if self.input.last() == Some(b'\n') {
            return Ok(true);
        }
        // The last line had no line end when it was read; it has to have one now.
        if self.input.peek()? == Some(b'\r') {
            self.input.advance(1);
        }
        Ok(match self.input.peek()? {
            None => true,
            Some(b'\n') => {
                self.input.advance(1);
                true
            }
            Some(_) => false,
        })
    }

    fn has_more(&mut self) -> Result<bool, Error> {
        loop {
            match self.find_line()? {
                Line::Complete(length) if is_blank(&self.input.text()[..length]) => {
                    self.next_line(length);
                }
                Line::Complete(_) | Line::Large => return Ok(true),
                Line::End => return Ok(false),
            }
        }
    }

    fn next(&mut self) -> Result<Option<Cut>, Error> {
        let mut gathered = Gathered::default();
        while self.has_more()? {
            match self.find_line()? {
                Line::Complete(length) => {
                    if !self.take_line(length, &mut gathered) {
                        break;
                    }
                    self.next_line(length);
                }
                Line::Large => {
                    if !gathered.refuse_large(&mut self.input, self.line, self.limits) {
                        break;
                    }
                    self.pass_line()?;
                }
                Line::End => break,
            }
        }
        Ok(gathered.finish())
    }

    fn place(&mut self) -> Place {
        Place { offset: self.input.offset(), hash: self.input.hash(), position: self.line }
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().copied().all(is_space)
}
