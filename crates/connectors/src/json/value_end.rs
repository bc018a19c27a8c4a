//! Finds the end of a JSON value in text that arrives in pieces, without checking what is inside.

use memchr::memchr2;

use super::is_space;

/// Looks for the end of one value, from its first byte on.
#[derive(Debug, Default)]
pub(super) struct ValueEnd {
    /// The next byte to look at.
    at: usize,
    /// Objects and lists that are open.
    depth: usize,
    in_string: bool,
    /// The value is a number or a word, or something that is no value.
    bare: bool,
    /// The end was found, which is where the next byte would be looked at.
    found: bool,
}

impl ValueEnd {
    /// Returns the length of the value, or nothing if it goes on behind the text.
    ///
    /// `text` begins with the value, or behind what was forgotten of it, and holds at least what it
    /// held in the call before. A number or word that the text ends with goes on. An end that was found
    /// is found again.
    pub(super) fn find(&mut self, text: &[u8]) -> Option<usize> {
        if !self.found {
            self.search(text)?;
            self.found = true;
        }
        Some(self.at)
    }

    /// Moves to the end of the value; nothing if that is behind the text.
    fn search(&mut self, text: &[u8]) -> Option<()> {
        while self.at < text.len() {
            if self.in_string {
                self.pass_string(text)?;
                if self.depth == 0 {
                    return Some(());
                }
                continue;
            }
            let byte = text[self.at];
            if self.depth == 0 && (is_space(byte) || matches!(byte, b',' | b']' | b'}')) {
                return Some(());
            }
            match byte {
                b'"' => {
                    // A string behind a word is not part of it.
                    if self.bare {
                        return Some(());
                    }
                    self.in_string = true;
                }
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.at += 1;
                        return Some(());
                    }
                }
                _ if self.depth == 0 => self.bare = true,
                _ => {
                    let rest = &text[self.at..];
                    let plain = |byte: &u8| !matches!(byte, b'"' | b'{' | b'[' | b'}' | b']');
                    self.at += rest.iter().position(|byte| !plain(byte)).unwrap_or(rest.len());
                    continue;
                }
            }
            self.at += 1;
        }
        None
    }

    /// Tells that the text up to where the search stands will not be given again, and returns how
    /// much that is.
    pub(super) fn forget(&mut self, text: &[u8]) -> usize {
        // Behind the text is where an escape at its end continues.
        let forgotten = self.at.min(text.len());
        self.at -= forgotten;
        forgotten
    }

    /// Moves behind the closing quote; nothing if that is behind the text.
    fn pass_string(&mut self, text: &[u8]) -> Option<()> {
        while self.at < text.len() {
            let rest = &text[self.at..];
            let Some(distance) = memchr2(b'"', b'\\', rest) else {
                self.at = text.len();
                return None;
            };
            self.at += distance + 1;
            if rest[distance] == b'"' {
                self.in_string = false;
                return Some(());
            }
            self.at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_the_same_however_the_text_is_cut() {
        for (text, end) in [
            (r#"{"a":"}\"]","b":[1,{"c":"\\"}]},{"#, Some(31)),
            (r#""a,\"]\\",1"#, Some(9)),
            ("12.5e3,", Some(6)),
            ("true ]", Some(4)),
            ("[[],[]]]", Some(7)),
            ("12", None),
            (r#"{"a":"\"}"#, None),
            ("]", Some(0)),
            ("abc\"d\"", Some(3)),
            ("{}x", Some(2)),
        ] {
            let mut at_once = ValueEnd::default();
            assert_eq!(at_once.find(text.as_bytes()), end, "{text}");
            assert_eq!(at_once.find(text.as_bytes()), end, "{text} once more");
            let mut whole = ValueEnd::default();
            let found = (0..=text.len()).find_map(|cut| whole.find(&text.as_bytes()[..cut]));
            assert_eq!(found, end, "{text} byte by byte");
            let mut dropped = ValueEnd::default();
            let (mut start, mut found) = (0, None);
            for cut in 0..=text.len() {
                let seen = &text.as_bytes()[start..cut.max(start)];
                if let Some(length) = dropped.find(seen) {
                    found = Some(start + length);
                    break;
                }
                start += dropped.forget(seen);
            }
            assert_eq!(found, end, "{text} with what was seen dropped");
        }
    }
}
