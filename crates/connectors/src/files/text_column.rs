//! A column of texts under construction.

use arrow_array::StringArray;
use arrow_buffer::{Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};

/// Gathers texts as bytes and checks only at the end that they are UTF-8, all at once.
pub(crate) struct TextColumn {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl TextColumn {
    /// Makes a column with room for so many texts of so many bytes together.
    pub(crate) fn with_capacity(texts: usize, bytes: usize) -> Self {
        let mut ends = Vec::with_capacity(texts + 1);
        ends.push(0);
        Self { bytes: Vec::with_capacity(bytes), ends, nulls: NullBufferBuilder::new(texts) }
    }

    /// Returns the number of texts.
    pub(crate) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// Returns the number of bytes of all texts.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends part of a text; [`TextColumn::end`] ends it.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends the text to which bytes were appended; no bytes: an empty text.
    pub(crate) fn end(&mut self) {
        self.nulls.append_non_null();
        self.push_end();
    }

    /// Appends a null.
    pub(crate) fn push_null(&mut self) {
        self.nulls.append_null();
        self.push_end();
    }

    fn push_end(&mut self) {
        let end = i32::try_from(self.bytes.len()).expect("a chunk is far smaller than 2 GiB");
        self.ends.push(end);
    }

    /// Returns the column.
    ///
    /// # Panics
    ///
    /// When a text is not UTF-8.
    pub(crate) fn finish(mut self) -> StringArray {
        StringArray::try_new(
            OffsetBuffer::new(ScalarBuffer::from(self.ends)),
            Buffer::from_vec(self.bytes),
            self.nulls.finish(),
        )
        .expect("every record is checked to be UTF-8 before it is taken apart")
    }
}
