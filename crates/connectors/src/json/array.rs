//! Records of a document that has them in one array.
//!
//! The document is never held: the way to the array is walked, and its elements are cut out one by
//! one. An element that is wrong in itself is refused; a document whose elements cannot be told
//! apart, or that ends too early, stops the run.

use connect::{Error, Limits};

use super::{gathered::Gathered, is_space, value_end::ValueEnd};
use crate::files::{Cut, Input, Place, Text};

/// A document that stands in its array. Positions count its elements, from 1.
pub(super) struct ArrayText {
    input: Input,
    limits: Limits,
    /// Keys on the way to the array.
    path: Vec<String>,
    /// Where the text behind the last element begins.
    place: Place,
    /// The next element, if it was begun.
    element: Option<ValueEnd>,
    /// The document has been read to its end.
    closed: bool,
}

/// An element at the front of the input.
enum Element {
    Complete(usize),
    /// Larger than a record may be, and its end is not known.
    Large,
}

impl ArrayText {
    /// Walks to the array.
    ///
    /// # Errors
    ///
    /// Stops where there is no array at the path.
    pub(super) fn begin(input: Input, path: &[String], limits: Limits) -> Result<Self, Error> {
        let mut text = Self {
            input,
            limits,
            path: path.to_vec(),
            place: Place::START,
            element: None,
            closed: false,
        };
        for key in path {
            text.enter(b'{', "an object")?;
            let mut first = true;
            loop {
                if text.after_space()? == Some(b'}') {
                    let what = format!("there is no key `{key}` in this object");
                    return Err(text.broken(&what, CHECK_RECORDS));
                }
                if !std::mem::take(&mut first) {
                    text.expect(b',')?;
                }
                if text.key()? == *key {
                    break;
                }
                text.pass_value()?;
            }
        }
        text.enter(b'[', "an array")?;
        text.place = text.here(0);
        Ok(text)
    }

    /// Moves to the next element, or to the end of the document.
    fn find_element(&mut self) -> Result<Option<Element>, Error> {
        if self.closed {
            return Ok(None);
        }
        if self.element.is_none() {
            let next = self.after_space()?;
            if next == Some(b']') {
                self.close()?;
                return Ok(None);
            }
            if self.place.position > 0 {
                self.expect_or(b',', "`,` or `]`")?;
                self.after_space()?;
            }
            self.element = Some(ValueEnd::default());
        }
        let Some(end) = &mut self.element else {
            unreachable!("an element was begun above");
        };
        loop {
            match end.find(self.input.text()) {
                Some(0) => return Err(self.broken("a value expected", CHECK_DOCUMENT)),
                Some(length) => return Ok(Some(Element::Complete(length))),
                None if self.input.text().len() > self.limits.record_bytes => {
                    return Ok(Some(Element::Large));
                }
                None if self.input.ended() => return Err(self.ended()),
                None => self.input.fill()?,
            }
        }
    }

    fn next_element(&mut self, length: usize) {
        self.input.advance(length);
        self.place = self.here(self.place.position + 1);
        self.element = None;
    }

    /// Passes the rest of an element that is too large to keep.
    fn pass_element(&mut self) -> Result<(), Error> {
        let mut end = self.element.take().unwrap_or_default();
        let length = self.pass_to(&mut end)?;
        self.next_element(length);
        Ok(())
    }

    /// Passes a value that nobody wants.
    fn pass_value(&mut self) -> Result<(), Error> {
        self.after_space()?;
        let mut end = ValueEnd::default();
        let length = self.pass_to(&mut end)?;
        self.input.advance(length);
        Ok(())
    }

    /// Drops text until the end of the value is in sight, and returns the length of what is left.
    fn pass_to(&mut self, end: &mut ValueEnd) -> Result<usize, Error> {
        loop {
            if let Some(length) = end.find(self.input.text()) {
                return Ok(length);
            }
            if self.input.ended() {
                return Err(self.ended());
            }
            let forgotten = end.forget(self.input.text());
            self.input.advance(forgotten);
            self.input.fill()?;
        }
    }

    /// Reads from the end of the array to the end of the document.
    fn close(&mut self) -> Result<(), Error> {
        self.input.advance(1);
        let path = std::mem::take(&mut self.path);
        for key in path.iter().rev() {
            loop {
                match self.after_space()? {
                    Some(b'}') => break,
                    _ => self.expect_or(b',', "`,` or `}`")?,
                }
                if self.key()? == *key {
                    let what = format!("key `{key}` appears twice in one object");
                    return Err(self.broken(&what, CHECK_DOCUMENT));
                }
                self.pass_value()?;
            }
            self.input.advance(1);
        }
        if self.after_space()?.is_some() {
            return Err(self.broken(
                "text behind the end of the document",
                "a file holds one document; if it has one record per line, set `lines: true`",
            ));
        }
        self.closed = true;
        Ok(())
    }

    /// Reads a key and the colon behind it. A key that is too large to keep is cut, which makes it
    /// another key than any in a path.
    fn key(&mut self) -> Result<String, Error> {
        if self.after_space()? != Some(b'"') {
            return Err(self.broken("a key in quotes expected", CHECK_DOCUMENT));
        }
        let mut end = ValueEnd::default();
        let mut key = Vec::new();
        let length = loop {
            let text = self.input.text();
            if let Some(length) = end.find(text) {
                break length;
            }
            if self.input.ended() {
                return Err(self.ended());
            }
            let forgotten = end.forget(text);
            if key.len() < self.limits.record_bytes {
                key.extend_from_slice(&text[..forgotten]);
            }
            self.input.advance(forgotten);
            self.input.fill()?;
        };
        key.extend_from_slice(&self.input.text()[..length]);
        self.input.advance(length);
        self.after_space()?;
        self.expect(b':')?;
        // What is no valid text is no key of the path either.
        Ok(serde_json::from_slice(&key).unwrap_or_default())
    }

    fn enter(&mut self, bracket: u8, what: &str) -> Result<(), Error> {
        if self.after_space()? != Some(bracket) {
            let way = match self.path.len() {
                0 => "the document".to_owned(),
                _ => format!("what `records: {}` leads through", self.path.join(".")),
            };
            return Err(self.broken(&format!("{way} is not {what} here"), CHECK_RECORDS));
        }
        self.input.advance(1);
        Ok(())
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        self.expect_or(byte, &format!("`{}`", char::from(byte)))
    }

    fn expect_or(&mut self, byte: u8, what: &str) -> Result<(), Error> {
        match self.input.peek()? {
            Some(found) if found == byte => {
                self.input.advance(1);
                Ok(())
            }
            Some(_) => Err(self.broken(&format!("{what} expected"), CHECK_DOCUMENT)),
            None => Err(self.ended()),
        }
    }

    fn after_space(&mut self) -> Result<Option<u8>, Error> {
        self.input.peek_behind(is_space)
    }

    fn here(&mut self, position: u64) -> Place {
        Place { offset: self.input.offset(), hash: self.input.hash(), position }
    }

    fn ended(&mut self) -> Error {
        let bytes = self.input.text().len();
        self.input.advance(bytes);
        self.broken("the document ends too early", CHECK_DOCUMENT)
    }

    fn broken(&mut self, what: &str, hint: &str) -> Error {
        let (line, column) = self.input.place(0);
        let path = self.input.path();
        Error::stop(format!("file `{path}` line {line}, column {column}: {what}"), hint)
    }
}

const CHECK_DOCUMENT: &str = "the file is damaged or was not written to its end; deliver it again";

const CHECK_RECORDS: &str = "set `records` to the keys that lead to the array, joined by dots, or \
                             `lines: true` if the file has one record per line";

impl Text for ArrayText {
    fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    fn known_fields(&self) -> Vec<String> {
        Vec::new()
    }

    fn resume(&mut self, place: Place) -> Result<bool, Error> {
        self.place = place;
        self.input.skip_to(place.offset, place.hash)
    }

    fn has_more(&mut self) -> Result<bool, Error> {
        Ok(self.find_element()?.is_some())
    }

    fn next(&mut self) -> Result<Option<Cut>, Error> {
        let mut gathered = Gathered::default();
        while let Some(element) = self.find_element()? {
            let position = self.place.position + 1;
            match element {
                Element::Complete(length) => {
                    if !gathered.take(&mut self.input, length, position, self.limits) {
                        break;
                    }
                    self.next_element(length);
                }
                Element::Large => {
                    if !gathered.refuse_large(&mut self.input, position, self.limits) {
                        break;
                    }
                    self.pass_element()?;
                }
            }
        }
        Ok(gathered.finish())
    }

    fn place(&mut self) -> Place {
        self.place
    }
}
