//! The protobuf encoding, as far as batches need it.

use std::borrow::Cow;

/// Wire types.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

/// Writes the fields of a message in the order of the calls. As everywhere in protobuf, numbers and
/// texts that are zero or empty are left out.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn unsigned(&mut self, tag: u32, value: u64) {
        if value != 0 {
            self.key(tag, VARINT);
            self.varint(value);
        }
    }

    pub(crate) fn fixed64(&mut self, tag: u32, value: i64) {
        if value != 0 {
            self.key(tag, FIXED64);
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(crate) fn text(&mut self, tag: u32, text: &str) {
        self.optional_bytes(tag, text.as_bytes());
    }

    pub(crate) fn optional_bytes(&mut self, tag: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes(tag, bytes);
        }
    }

    /// Writes bytes, even if there are none, as a message that is present has to be.
    pub(crate) fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.two_bytes(tag, bytes, &[]);
    }

    /// Writes one field of two pieces.
    pub(crate) fn two_bytes(&mut self, tag: u32, first: &[u8], second: &[u8]) {
        self.key(tag, DELIMITED);
        self.varint((first.len() + second.len()) as u64);
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
    }

    /// Writes a message within the message.
    pub(crate) fn nested(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        self.key(tag, DELIMITED);
        // The length is known afterwards; making room for it costs one copy of what is in the cache.
        let start = self.bytes.len();
        write(self);
        let end = self.bytes.len();
        self.varint((end - start) as u64);
        let length = self.bytes.len() - end;
        self.bytes[start..].rotate_right(length);
    }

    /// Writes values as varints.
    pub(crate) fn packed<T>(&mut self, tag: u32, values: &[T], number: impl Fn(&T) -> u64) {
        if !values.is_empty() {
            self.nested(tag, |out| {
                for value in values {
                    out.varint(number(value));
                }
            });
        }
    }

    /// Writes what lies between each value and the next as varints.
    pub(crate) fn packed_pairs<T>(&mut self, tag: u32, values: &[T], number: impl Fn(&[T]) -> u64) {
        if values.len() > 1 {
            self.nested(tag, |out| {
                for pair in values.windows(2) {
                    out.varint(number(pair));
                }
            });
        }
    }

    /// Writes `count` values of 8 bytes, which `append` appends.
    pub(crate) fn packed_fixed64(
        &mut self,
        tag: u32,
        count: usize,
        append: impl FnOnce(&mut Vec<u8>),
    ) {
        if count > 0 {
            self.key(tag, DELIMITED);
            self.varint(8 * count as u64);
            self.bytes.reserve(8 * count);
            append(&mut self.bytes);
        }
    }

    fn key(&mut self, tag: u32, wire_type: u8) {
        self.varint(u64::from(tag) << 3 | u64::from(wire_type));
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            if value < 0x80 {
                self.bytes.push(low);
                return;
            }
            self.bytes.push(low | 0x80);
            value >>= 7;
        }
    }
}

/// Returns 64-bit numbers that lie in memory as the wire wants them.
pub(crate) fn little_endian(memory: &[u8]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(memory);
    }
    Cow::Owned(memory.chunks_exact(8).flat_map(|number| number.iter().rev().copied()).collect())
}

/// The value of a field as it was found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The bytes are no message.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Reads the fields of a message in the order in which they stand.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<(u32, Found<'a>), Malformed> {
        let key = varint(&mut self.rest)?;
        let tag = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        let found = match key.to_le_bytes()[0] & 7 {
            VARINT => Found::Varint(varint(&mut self.rest)?),
            FIXED64 => Found::Fixed64(fixed64(&mut self.rest)?),
            DELIMITED => {
                let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| Malformed)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
                self.rest = rest;
                Found::Bytes(bytes)
            }
            FIXED32 => {
                self.rest = self.rest.get(4..).ok_or(Malformed)?;
                Found::Fixed32
            }
            _ => return Err(Malformed),
        };
        if tag == 0 { Err(Malformed) } else { Ok((tag, found)) }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Found<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Found<'a> {
    pub(crate) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed64(_) | Self::Fixed32 => Err(Malformed),
        }
    }

    pub(crate) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(number) => Ok(number),
            Self::Bytes(_) | Self::Fixed64(_) | Self::Fixed32 => Err(Malformed),
        }
    }

    pub(crate) fn fixed64(self) -> Result<u64, Malformed> {
        match self {
            Self::Fixed64(number) => Ok(number),
            Self::Bytes(_) | Self::Varint(_) | Self::Fixed32 => Err(Malformed),
        }
    }

    /// Appends varints, which may come packed or one by one.
    pub(crate) fn varints<T>(
        self,
        to: &mut Vec<T>,
        convert: impl Fn(u64) -> Option<T>,
    ) -> Result<(), Malformed> {
        match self {
            Self::Varint(number) => to.push(convert(number).ok_or(Malformed)?),
            Self::Bytes(mut bytes) => {
                to.reserve(bytes.iter().filter(|byte| **byte < 0x80).count());
                while !bytes.is_empty() {
                    to.push(convert(varint(&mut bytes)?).ok_or(Malformed)?);
                }
            }
            Self::Fixed64(_) | Self::Fixed32 => return Err(Malformed),
        }
        Ok(())
    }

    /// Appends numbers of 8 bytes, which may come packed or one by one.
    pub(crate) fn fixed64s<T>(
        self,
        to: &mut Vec<T>,
        convert: impl Fn([u8; 8]) -> T,
    ) -> Result<(), Malformed> {
        match self {
            Self::Fixed64(number) => to.push(convert(number.to_le_bytes())),
            Self::Bytes(bytes) => {
                let (numbers, []) = bytes.as_chunks::<8>() else { return Err(Malformed) };
                to.extend(numbers.iter().map(|number| convert(*number)));
            }
            Self::Varint(_) | Self::Fixed32 => return Err(Malformed),
        }
        Ok(())
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    // Most numbers are lengths of short texts.
    if let Some((&byte, rest)) = bytes.split_first()
        && byte < 0x80
    {
        *bytes = rest;
        return Ok(u64::from(byte));
    }
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        if index == 9 && byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn fixed64(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    *bytes = rest;
    Ok(u64::from_le_bytes(*number))
}
