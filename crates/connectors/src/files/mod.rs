//! What all file formats share: finding files, what is new in them, decompressing, decoding, and
//! reading on a thread of its own.
//!
//! - A file is a part, named by its path. A cursor says how much of its text was read and has a hash
//!   of it, so *unchanged*, *touched*, *grown* and *rewritten* are told apart by content.
//! - Opening a file behind a cursor reads it from the beginning without making records. That costs a
//!   fraction of a second per GiB, works for every encoding and compression, and finds a changed
//!   byte wherever it is.
//! - A last line without line end is a record. If the file later grows in the middle of that line,
//!   it counts as rewritten.

mod cursor;
mod decode;
mod input;
mod listing;
mod reader;
#[cfg(test)]
pub(crate) mod reading;
#[cfg(test)]
mod tests;
mod text_column;

use std::{collections::HashMap, sync::Arc};

use arrow_array::RecordBatch;
use arrow_buffer::BooleanBuffer;
use connect::{Error, Limits, Part, PartCursor, Parts};

use self::{cursor::Cursor, input::Stamp};
pub(crate) use self::{cursor::Place, input::Input, text_column::TextColumn};

/// Upper bound of how much larger deflate makes a text.
const GZIP_RATIO: u64 = 1_100;

/// What a file that grows between planning and reading may add to the span of its part.
const SPAN_RESERVE: u64 = 1 << 20;

/// How records lie in a text.
pub(crate) trait Format: Send + Sync + 'static {
    /// Encoding of files without a byte order mark.
    fn encoding(&self) -> spec::Encoding;

    /// Reads what is before the first record, and checks what can be checked there.
    ///
    /// # Errors
    ///
    /// Stops where the text does not have the declared shape.
    fn begin(&self, input: Input, limits: Limits) -> Result<Box<dyn Text>, Error>;
}

/// A text of which the part before the first record was read.
pub(crate) trait Text: Send {
    /// Returns the underlying text.
    fn input(&mut self) -> &mut Input;

    /// Returns the names of the fields that are known before any record is.
    fn known_fields(&self) -> Vec<String>;

    /// Moves to a place that is not the start. False if this is another text up to there, or one in
    /// which no record can begin there.
    fn resume(&mut self, place: Place) -> Result<bool, Error>;

    /// Moves behind what is between records, and tells whether another record follows.
    ///
    /// # Errors
    ///
    /// Stops where the text is broken, also behind the last record.
    fn has_more(&mut self) -> Result<bool, Error>;

    /// Returns the next records; nothing at the end.
    fn next(&mut self) -> Result<Option<Cut>, Error>;

    /// Returns where the reading stands.
    fn place(&mut self) -> Place;
}

/// Some records of a text.
pub(crate) struct Cut {
    pub(crate) columns: RecordBatch,
    pub(crate) presence: Vec<Option<BooleanBuffer>>,
    pub(crate) positions: Vec<u64>,
    pub(crate) refused: Vec<RefusedText>,
}

/// A record that could not be read.
#[derive(Debug)]
pub(crate) struct RefusedText {
    pub(crate) position: u64,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) field: String,
    pub(crate) raw: Vec<u8>,
}

/// The files of a pattern in one format.
pub(crate) struct Files<F> {
    pattern: String,
    format: Arc<F>,
}

impl<F> Clone for Files<F> {
    fn clone(&self) -> Self {
        Self { pattern: self.pattern.clone(), format: Arc::clone(&self.format) }
    }
}

/// What is to be read of a file.
enum News {
    Nothing,
    From(Cursor),
    Rewritten(Cursor),
}

impl<F: Format> Files<F> {
    pub(crate) fn new(pattern: &str, format: F) -> Self {
        Self { pattern: pattern.to_owned(), format: Arc::new(format) }
    }

    /// Returns the paths of the files, in order, never empty.
    ///
    /// # Errors
    ///
    /// When the pattern matches no file.
    pub(crate) fn list(&self) -> Result<Vec<String>, Error> {
        listing::list(&self.pattern)
    }

    /// Returns the format.
    pub(crate) fn format(&self) -> &F {
        &self.format
    }

    /// Opens a file at its first character.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub(crate) fn input(&self, path: &str) -> Result<Input, Error> {
        Input::open(path, self.format.encoding())
    }

    /// Opens a file before its first record.
    ///
    /// # Errors
    ///
    /// As [`Format::begin`].
    pub(crate) fn begin(&self, path: &str, limits: Limits) -> Result<Box<dyn Text>, Error> {
        let input = self.input(path)?;
        self.format.begin(input, limits)
    }

    /// As [`connect::Source::parts`].
    pub(crate) async fn parts(&self, cursors: &[PartCursor], full: bool) -> Result<Parts, Error> {
        let (files, cursors) = (self.clone(), cursors.to_vec());
        blocking(move || files.find_parts(&cursors, full)).await
    }

    /// As [`connect::Source::open`].
    pub(crate) async fn open(
        &self,
        path: &str,
        cursor: &str,
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Box<dyn connect::Reader>, Error> {
        let (files, path, cursor) = (self.clone(), path.to_owned(), cursor.to_owned());
        let text = blocking(move || files.open_behind(&path, &cursor, limits)).await?;
        let (text, path, cursor) = text;
        reader::spawn(text, path, cursor, extraction_base)
    }

    fn find_parts(&self, cursors: &[PartCursor], full: bool) -> Result<Parts, Error> {
        let paths = self.list()?;
        let known: HashMap<&str, &str> = cursors
            .iter()
            .filter(|cursor| !cursor.cursor.is_empty())
            .map(|cursor| (cursor.part.as_str(), cursor.cursor.as_str()))
            .collect();
        let mut parts = Parts::default();
        for path in &paths {
            let former =
                known.get(path.as_str()).map(|cursor| Cursor::parse(cursor, path)).transpose()?;
            if let Some(former) = &former
                && former.done
                && !full
                && Stamp::read(path)?.proves_unchanged_since(former.stamp())
            {
                continue;
            }
            let mut input = self.input(path)?;
            let size = input.stamp().size;
            let span = if input.is_gzip() { size.saturating_mul(GZIP_RATIO) } else { size };
            let news = match former {
                None => {
                    let first = Cursor::first(&mut input)?;
                    match self.format.begin(input, Limits::default())?.has_more()? {
                        true => News::From(first),
                        false => News::Nothing,
                    }
                }
                Some(former) => self.news_since(former, input, full)?,
            };
            let cursor = match news {
                News::Nothing => continue,
                News::From(cursor) => cursor,
                News::Rewritten(cursor) => {
                    parts.notes.push(format!(
                        "file `{path}` was rewritten since it was last read; it is read again \
                         from its beginning"
                    ));
                    cursor
                }
            };
            parts.with_news.push(Part {
                name: path.clone(),
                cursor: cursor.to_text(),
                span: span.saturating_add(SPAN_RESERVE),
            });
        }
        parts.gone = cursors
            .iter()
            .map(|cursor| &cursor.part)
            .filter(|part| paths.binary_search(part).is_err())
            .cloned()
            .collect();
        Ok(parts)
    }

    fn news_since(&self, former: Cursor, input: Input, full: bool) -> Result<News, Error> {
        let path = input.path().to_owned();
        let stamp = input.stamp();
        let unchanged = stamp.proves_unchanged_since(former.stamp());
        let mut text = self.format.begin(input, Limits::default())?;
        let same = unchanged || former.place == Place::START || text.resume(former.place)?;
        if !same {
            let mut input = self.input(&path)?;
            return Ok(News::Rewritten(Cursor::rewritten(&former, &mut input)?));
        }
        Ok(if full {
            News::From(former.at(stamp, Place::START, false))
        } else if (unchanged && former.place != Place::START) || text.has_more()? {
            News::From(former)
        } else {
            News::Nothing
        })
    }

    fn open_behind(
        &self,
        path: &str,
        cursor: &str,
        limits: Limits,
    ) -> Result<(Box<dyn Text>, String, Cursor), Error> {
        let mut input = self.input(path)?;
        let cursor = if cursor.is_empty() {
            Cursor::first(&mut input)?
        } else {
            Cursor::parse(cursor, path)?
        };
        let mut text = self.format.begin(input, limits)?;
        if cursor.place != Place::START && !text.resume(cursor.place)? {
            return Err(Error::stop(
                format!("file `{path}` was rewritten while it was being read"),
                "run the pipeline again; the file will be read from its beginning",
            ));
        }
        Ok((text, path.to_owned(), cursor))
    }
}

/// Does blocking work on a thread that is meant for it.
///
/// # Errors
///
/// As `work`.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|cause| {
        Error::retry("reading files ended early", "see the log of this service").because(cause)
    })?
}
