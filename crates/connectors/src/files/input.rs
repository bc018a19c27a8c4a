//! The text of one file, through a window that moves forward.

use std::{
    fs::{File, Metadata},
    hash::Hasher,
    io::{BufRead, BufReader, ErrorKind},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use connect::Error;
use flate2::bufread::MultiGzDecoder;
use spec::Encoding;
use twox_hash::XxHash3_64;

use super::decode::Decoder;

/// How much is read from a file at once.
const BLOCK: usize = 128 * 1024;

/// A file that was changed less than this ago may change again without its time changing.
const TIME_RESOLUTION: Duration = Duration::from_secs(2);

/// The decompressed, decoded text of a file. Offsets count its bytes behind a byte order mark.
pub(crate) struct Input {
    path: String,
    stamp: Stamp,
    gzip: bool,
    reader: Box<dyn BufRead + Send>,
    decoder: Decoder,
    ended: bool,
    window: Vec<u8>,
    /// Start of the unread text in `window`.
    start: usize,
    /// Start of the text in `window` that `passed` does not know yet; not above `start`.
    settled: usize,
    passed: Passed,
}

/// What tells cheaply that a file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Size on disk, in bytes.
    pub(super) size: u64,
    /// Time of the last change in nanoseconds since 1970; 0 where it proves nothing.
    pub(super) modified_ns: u64,
}

impl Stamp {
    pub(super) fn read(path: &str) -> Result<Self, Error> {
        std::fs::metadata(path)
            .map(|metadata| Self::of(&metadata))
            .map_err(|cause| read_failed(path, false, 0, cause))
    }

    fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok();
        let settled = modified.and_then(|time| time.elapsed().ok()) > Some(TIME_RESOLUTION);
        let modified_ns = modified
            .filter(|_| settled)
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_nanos()).ok())
            .unwrap_or(0);
        Self { size: metadata.len(), modified_ns }
    }

    /// Tells whether a file with this stamp has the content that it had at the time of `earlier`.
    pub(super) fn proves_unchanged_since(self, earlier: Self) -> bool {
        self == earlier && self.modified_ns != 0
    }
}

/// The text that was read.
#[derive(Default)]
struct Passed {
    offset: u64,
    hash: XxHash3_64,
    line_feeds: u64,
    /// Offset behind the last line feed.
    line_start: u64,
    last: Option<u8>,
}

impl Passed {
    fn take(&mut self, text: &[u8]) {
        let Some(last) = text.last() else { return };
        self.hash.write(text);
        self.last = Some(*last);
        if let Some(at) = memchr::memrchr(b'\n', text) {
            self.line_feeds += memchr::memchr_iter(b'\n', &text[..=at]).count() as u64;
            self.line_start = self.offset + at as u64 + 1;
        }
        self.offset += text.len() as u64;
    }
}

impl Input {
    /// Opens a file at its first character.
    pub(crate) fn open(path: &str, encoding: Encoding) -> Result<Self, Error> {
        let failed = |cause| read_failed(path, false, 0, cause);
        let file = File::open(path).map_err(failed)?;
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        let mut file = BufReader::with_capacity(BLOCK, file);
        let gzip = file.fill_buf().map_err(failed)?.starts_with(&[0x1F, 0x8B]);
        let mut reader: Box<dyn BufRead + Send> = if gzip {
            Box::new(BufReader::with_capacity(BLOCK, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        // A pipe may give less, a regular file gives all that it has up to the size of the buffer.
        let head = reader.fill_buf().map_err(|cause| read_failed(path, gzip, 0, cause))?;
        let (decoder, mark) = Decoder::detect(head, encoding).map_err(|unreadable| {
            Error::stop(format!("file `{path}` {}", unreadable.what), unreadable.hint)
        })?;
        reader.consume(mark);
        Ok(Self {
            path: path.to_owned(),
            stamp,
            gzip,
            reader,
            decoder,
            ended: false,
            window: Vec::new(),
            start: 0,
            settled: 0,
            passed: Passed::default(),
        })
    }

    /// Takes a text that is in memory. `name` stands for it in messages.
    ///
    /// # Errors
    ///
    /// When its first bytes tell that it is no text.
    pub(crate) fn of_bytes(name: &str, bytes: Bytes, encoding: Encoding) -> Result<Self, Error> {
        let (decoder, mark) = Decoder::detect(&bytes, encoding).map_err(|unreadable| {
            Error::stop(format!("`{name}` {}", unreadable.what), unreadable.hint)
        })?;
        let stamp = Stamp { size: bytes.len() as u64, modified_ns: 0 };
        let mut reader: Box<dyn BufRead + Send> = Box::new(std::io::Cursor::new(bytes));
        reader.consume(mark);
        Ok(Self {
            path: name.to_owned(),
            stamp,
            gzip: false,
            reader,
            decoder,
            ended: false,
            window: Vec::new(),
            start: 0,
            settled: 0,
            passed: Passed::default(),
        })
    }

    /// Returns the path, as the pattern gave it.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub(super) fn is_gzip(&self) -> bool {
        self.gzip
    }

    /// Returns the part of the unread text that has been read from the file.
    pub(crate) fn text(&self) -> &[u8] {
        &self.window[self.start..]
    }

    /// Tells whether [`Input::text`] goes to the end of the file.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Marks so many bytes of [`Input::text`] as read.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Lengthens [`Input::text`], or finds the end.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or its compression is damaged.
    pub(crate) fn fill(&mut self) -> Result<(), Error> {
        if self.ended {
            return Ok(());
        }
        self.settle();
        self.window.drain(..self.start);
        self.start = 0;
        self.settled = 0;
        let block = loop {
            match self.reader.fill_buf() {
                Ok(block) => break block,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(cause) => {
                    let offset = self.passed.offset + self.window.len() as u64;
                    return Err(read_failed(&self.path, self.gzip, offset, cause));
                }
            }
        };
        self.ended = block.is_empty();
        let bytes = block.len();
        self.decoder.decode(block, self.ended, &mut self.window);
        self.reader.consume(bytes);
        Ok(())
    }

    /// Returns the next byte, or nothing at the end.
    ///
    /// # Errors
    ///
    /// As [`Input::fill`].
    pub(crate) fn peek(&mut self) -> Result<Option<u8>, Error> {
        while self.text().is_empty() && !self.ended {
            self.fill()?;
        }
        Ok(self.text().first().copied())
    }

    /// Passes the bytes for which `skip` is true and returns the next one, or nothing at the end.
    ///
    /// # Errors
    ///
    /// As [`Input::fill`].
    pub(crate) fn peek_behind(&mut self, skip: impl Fn(u8) -> bool) -> Result<Option<u8>, Error> {
        loop {
            let skipped = self.text().iter().take_while(|byte| skip(**byte)).count();
            self.advance(skipped);
            let next = self.peek()?;
            if next.is_none_or(|byte| !skip(byte)) {
                return Ok(next);
            }
        }
    }

    /// Moves forward to `offset` and tells whether the text before it has this hash.
    ///
    /// # Errors
    ///
    /// As [`Input::fill`].
    pub(crate) fn skip_to(&mut self, offset: u64, hash: u64) -> Result<bool, Error> {
        loop {
            self.settle();
            let Some(missing) = offset.checked_sub(self.passed.offset) else {
                return Ok(false);
            };
            let available = self.text().len();
            self.advance(usize::try_from(missing).map_or(available, |most| most.min(available)));
            self.settle();
            if self.passed.offset == offset {
                return Ok(self.passed.hash.finish() == hash);
            }
            if self.ended {
                return Ok(false);
            }
            self.fill()?;
        }
    }

    /// Returns the number of bytes that were read.
    pub(crate) fn offset(&self) -> u64 {
        self.passed.offset + (self.start - self.settled) as u64
    }

    /// Returns a hash of all text that was read.
    pub(crate) fn hash(&mut self) -> u64 {
        self.settle();
        self.passed.hash.finish()
    }

    /// Returns the byte that was read last.
    pub(crate) fn last(&mut self) -> Option<u8> {
        self.settle();
        self.passed.last
    }

    /// Returns line and column, both from 1, of the byte `ahead` bytes behind what was read. Lines
    /// end with a line feed, columns count bytes.
    pub(crate) fn place(&mut self, ahead: usize) -> (u64, u64) {
        self.settle();
        let ahead = &self.text()[..ahead.min(self.text().len())];
        let lines = memchr::memchr_iter(b'\n', ahead).count() as u64;
        let column = match memchr::memrchr(b'\n', ahead) {
            Some(at) => (ahead.len() - at) as u64,
            None => self.passed.offset - self.passed.line_start + ahead.len() as u64 + 1,
        };
        (self.passed.line_feeds + lines + 1, column)
    }

    /// Reads on to the end and returns the hash of the whole text.
    pub(super) fn hash_to_end(&mut self) -> Result<u64, Error> {
        while self.peek()?.is_some() {
            self.advance(self.text().len());
        }
        Ok(self.hash())
    }

    fn settle(&mut self) {
        self.passed.take(&self.window[self.settled..self.start]);
        self.settled = self.start;
    }
}

fn read_failed(path: &str, gzip: bool, offset: u64, cause: std::io::Error) -> Error {
    match cause.kind() {
        ErrorKind::NotFound | ErrorKind::IsADirectory => {
            Error::stop(format!("file `{path}` is not there"), "put it back, or change `path`")
        }
        ErrorKind::PermissionDenied => Error::stop(
            format!("file `{path}` must not be read by this service"),
            "give the user of the extractor the right to read it",
        ),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput if gzip => {
            Error::stop(
                format!(
                    "file `{path}` is a damaged or truncated gzip file (readable up to {offset} \
                     bytes of its content)"
                ),
                "fetch the file again; the rest is read when it is whole",
            )
        }
        _ => Error::retry(
            format!("file `{path}` cannot be read"),
            "see whether its disk or share is reachable",
        ),
    }
    .because(cause)
}
