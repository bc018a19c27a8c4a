//! Where the reading of a file stands.

use std::hash::Hasher;

use connect::Error;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::input::{Input, Stamp};

/// So much of the start of a file names its first generation: enough to tell files apart, and so
/// little that a file that grows keeps its name even if its cursor is lost.
const HEAD: usize = 1024;

/// Where a reading of a text stands. A format gives it and gets it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Bytes of decoded text that were read; 0: nothing.
    pub(crate) offset: u64,
    /// Hash of that text.
    pub(crate) hash: u64,
    /// What the format needs to number what follows.
    pub(crate) position: u64,
}

impl Place {
    /// Before everything, the header included.
    pub(crate) const START: Self = Self { offset: 0, hash: 0, position: 0 };
}

/// The cursor of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Names the content: it stays while the file only grows, and changes when it is rewritten.
    pub(super) generation: String,
    /// Size on disk when the file was opened.
    size: u64,
    /// Time of the last change when the file was opened.
    modified_ns: u64,
    /// Nothing but what a format skips lies behind `place`.
    pub(super) done: bool,
    pub(super) place: Place,
}

impl Cursor {
    /// Returns the cursor at the start of a file that has no cursor yet.
    pub(super) fn first(input: &mut Input) -> Result<Self, Error> {
        while input.text().len() < HEAD && !input.ended() {
            input.fill()?;
        }
        let head = &input.text()[..HEAD.min(input.text().len())];
        let generation = XxHash3_64::oneshot(head);
        Ok(Self::at_start(generation, input.stamp()))
    }

    /// Returns the cursor at the start of a file whose old content, named by `former`, is gone.
    pub(super) fn rewritten(former: &Self, input: &mut Input) -> Result<Self, Error> {
        let mut hash = XxHash3_64::new();
        hash.write(former.generation.as_bytes());
        hash.write_u64(input.hash_to_end()?);
        Ok(Self::at_start(hash.finish(), input.stamp()))
    }

    fn at_start(generation: u64, stamp: Stamp) -> Self {
        Self {
            generation: format!("{generation:016x}"),
            size: stamp.size,
            modified_ns: stamp.modified_ns,
            done: false,
            place: Place::START,
        }
    }

    /// Returns the cursor at another place of the same generation.
    pub(super) fn at(&self, stamp: Stamp, place: Place, done: bool) -> Self {
        Self {
            generation: self.generation.clone(),
            size: stamp.size,
            modified_ns: stamp.modified_ns,
            done,
            place,
        }
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp { size: self.size, modified_ns: self.modified_ns }
    }

    pub(super) fn parse(text: &str, path: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|cause| {
            Error::stop(
                format!("the cursor of file `{path}` cannot be understood"),
                "start the pipeline with `tributary run NAME --full`",
            )
            .because(cause)
        })
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts always become JSON")
    }
}
