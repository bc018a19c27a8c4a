//! Encodings: from the bytes of a file to UTF-8.

use spec::Encoding;

/// How the bytes of a file become text.
pub(super) enum Decoder {
    /// They are text already, as far as they are valid.
    Utf8,
    /// ISO 8859-1.
    Latin1,
    /// Windows code page 1252.
    Windows1252,
    /// UTF-16, with the bytes that do not make a character yet.
    Utf16 { big_endian: bool, carry: Vec<u8> },
}

/// The first bytes tell that a file is not text that we can read.
pub(super) struct Unreadable {
    pub(super) what: &'static str,
    pub(super) hint: &'static str,
}

impl Decoder {
    /// Chooses by the first bytes of a file, and returns how many of them are a byte order mark.
    pub(super) fn detect(head: &[u8], declared: Encoding) -> Result<(Self, usize), Unreadable> {
        let utf16 = |big_endian| Self::Utf16 { big_endian, carry: Vec::new() };
        Ok(match head {
            [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => {
                return Err(Unreadable { what: "is UTF-32", hint: "convert it to UTF-8" });
            }
            [0xFF, 0xFE, ..] => (utf16(false), 2),
            [0xFE, 0xFF, ..] => (utf16(true), 2),
            [0xEF, 0xBB, 0xBF, ..] => (Self::Utf8, 3),
            // A NUL among the first characters is UTF-16 whose mark was lost; read as UTF-8 it
            // would give records of garbage.
            [0, _, 0, _, ..] | [_, 0, _, 0, ..] => {
                return Err(Unreadable {
                    what: "looks like UTF-16 without a byte order mark",
                    hint: "write the file with a byte order mark, or convert it to UTF-8",
                });
            }
            [b'P', b'K', 3, 4, ..] => {
                return Err(Unreadable {
                    what: "is a ZIP archive or an Excel workbook",
                    hint: "unpack it, or save the sheet as CSV",
                });
            }
            _ => match declared {
                Encoding::Utf8 => (Self::Utf8, 0),
                Encoding::Latin1 => (Self::Latin1, 0),
                Encoding::Windows1252 => (Self::Windows1252, 0),
            },
        })
    }

    /// Appends the text of `bytes` to `text`. With `ended` nothing follows.
    ///
    /// What is invalid in UTF-16 becomes something that is invalid in UTF-8, so that the record it
    /// is in is found in one place, whatever the encoding.
    pub(super) fn decode(&mut self, bytes: &[u8], ended: bool, text: &mut Vec<u8>) {
        match self {
            Self::Utf8 => text.extend_from_slice(bytes),
            Self::Latin1 => {
                text.extend_from_slice(encoding_rs::mem::decode_latin1(bytes).as_bytes());
            }
            Self::Windows1252 => {
                let (decoded, _) = encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes);
                text.extend_from_slice(decoded.as_bytes());
            }
            Self::Utf16 { big_endian, carry } => {
                carry.extend_from_slice(bytes);
                let used = decode_utf16(carry, *big_endian, ended, text);
                carry.drain(..used);
            }
        }
    }
}

/// Returns how many bytes were used; the rest is the start of a character, unless `ended`.
fn decode_utf16(bytes: &[u8], big_endian: bool, ended: bool, text: &mut Vec<u8>) -> usize {
    let unit = |at: usize| {
        let pair = [*bytes.get(at)?, *bytes.get(at + 1)?];
        Some(if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    };
    let mut at = 0;
    while let Some(first) = unit(at) {
        let second = unit(at + 2);
        if (0xD800..0xDC00).contains(&first) && second.is_none() && !ended {
            return at;
        }
        let (length, character) = match char::decode_utf16([first].into_iter().chain(second)).next()
        {
            Some(Ok(character)) => (2 * character.len_utf16(), Some(character)),
            Some(Err(_)) | None => (2, None),
        };
        match character {
            Some(character) => {
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            None => text.push(0xFF),
        }
        at += length;
    }
    if ended && at < bytes.len() {
        text.push(0xFF);
        at = bytes.len();
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], declared: Encoding, block: usize) -> Vec<u8> {
        let Ok((mut decoder, mark)) = Decoder::detect(bytes, declared) else {
            panic!("the text can be read");
        };
        let mut text = Vec::new();
        for block in bytes[mark..].chunks(block) {
            decoder.decode(block, false, &mut text);
        }
        decoder.decode(&[], true, &mut text);
        text
    }

    fn utf16(text: &str, big_endian: bool) -> Vec<u8> {
        std::iter::once(0xFEFF)
            .chain(text.encode_utf16())
            .flat_map(|unit: u16| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect()
    }

    #[test]
    fn what_is_no_text_is_refused_by_its_first_bytes() {
        for head in [&b"a\0b\0,\0"[..], b"\0a\0b\0,", b"\xFF\xFE\0\0a\0\0\0", b"PK\x03\x04...."] {
            assert!(Decoder::detect(head, Encoding::Utf8).is_err(), "{head:?}");
        }
    }

    #[test]
    fn invalid_utf16_is_invalid_in_the_text_too() {
        let mut lone = utf16("ab", false);
        lone.extend([0x00, 0xD8, b'c', 0]);
        assert_eq!(decode(&lone, Encoding::Utf8, 3), b"ab\xFFc");
        let mut odd = utf16("ab", true);
        odd.push(7);
        assert_eq!(decode(&odd, Encoding::Utf8, 3), b"ab\xFF");
    }

    #[test]
    fn text_is_the_same_however_the_file_is_cut() {
        let text = "Zoë,€ 5,😀\r\n";
        for block in 1..9 {
            for big_endian in [false, true] {
                let bytes = utf16(text, big_endian);
                assert_eq!(decode(&bytes, Encoding::Utf8, block), text.as_bytes());
            }
            assert_eq!(
                decode(b"Zo\xEB,\x80\r\n", Encoding::Windows1252, block),
                "Zoë,€\r\n".as_bytes()
            );
            assert_eq!(
                decode(b"Zo\xEB,\x80\r\n", Encoding::Latin1, block),
                "Zoë,\u{80}\r\n".as_bytes()
            );
            assert_eq!(
                decode(b"\xEF\xBB\xBFa", Encoding::Latin1, block),
                b"a",
                "a byte order mark wins over what is declared"
            );
        }
    }
}
