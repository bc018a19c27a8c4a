//! Takes one JSON object apart and checks all of it.
//!
//! The values of its members stay as they are written, so numbers keep their digits. In contrast to
//! general parsers it refuses an object in which a key appears twice, at any depth.

use std::{borrow::Cow, collections::HashSet};

use memchr::memchr;

/// Objects and lists may lie in each other so deep; the record itself is the first level.
const DEPTH: usize = 64;

/// Members that a record may have.
const MEMBERS: usize = 4_096;

/// Keys are compared with each other up to this number, and hashed above it.
const FEW_KEYS: usize = 16;

/// One member of a record.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) name: Cow<'a, str>,
    /// JSON text, without white space around it.
    pub(super) value: &'a str,
}

/// Why a text is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) what: String,
    /// The byte that is to blame.
    pub(super) at: usize,
    /// Member that it lies in, or empty.
    pub(super) field: String,
}

/// Returns the members of an object in their order.
pub(super) fn members(text: &str) -> Result<Vec<Member<'_>>, Fault> {
    let mut parser = Parser { text, bytes: text.as_bytes(), at: 0, keys: Vec::new(), field: None };
    let mut members = Vec::new();
    parser
        .record(&mut members)
        .map_err(|(code, what)| Fault {
            code,
            what,
            at: parser.at,
            field: parser.field.take().map_or_else(String::new, Cow::into_owned),
        })
        .map(|()| members)
}

/// Code and reason of a fault at the place where the parser stands.
type Refusal = (&'static str, String);

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Keys of the objects that are open, the innermost last.
    keys: Vec<Cow<'a, str>>,
    /// Member of the record that is being read.
    field: Option<Cow<'a, str>>,
}

impl<'a> Parser<'a> {
    fn record(&mut self, members: &mut Vec<Member<'a>>) -> Result<(), Refusal> {
        self.space();
        let kind = match self.peek() {
            Some(b'{') => None,
            Some(b'[') => Some("a list"),
            Some(b'"') => Some("a text"),
            Some(b't' | b'f') => Some("a boolean"),
            Some(b'n') => Some("null"),
            _ => Some("a number"),
        };
        if kind.is_some() {
            self.value(1)?;
        } else {
            self.object(1, Some(members))?;
        }
        self.space();
        if self.at < self.bytes.len() {
            return Err(("syntax", "text behind the end of the record".to_owned()));
        }
        match kind {
            None => Ok(()),
            Some(kind) => {
                self.at = 0;
                Err(("shape", format!("the record is {kind}, not an object")))
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Refusal> {
        match self.peek() {
            Some(b'{') => self.object(depth, None),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(expected("a value")),
        }
    }

    /// Reads an object, and gathers its members if it is the record itself.
    fn object(
        &mut self,
        depth: usize,
        mut members: Option<&mut Vec<Member<'a>>>,
    ) -> Result<(), Refusal> {
        self.enter(depth)?;
        let first_key = self.keys.len();
        if self.next_is(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(expected("a key in quotes"));
            }
            let key = self.key()?;
            if let Some(members) = &members {
                if members.len() == MEMBERS {
                    return Err(("shape", format!("the record has more than {MEMBERS} fields")));
                }
                self.field = Some(key.clone());
            }
            self.keys.push(key.clone());
            if !self.next_is(b':') {
                return Err(expected("`:`"));
            }
            self.space();
            let start = self.at;
            self.value(depth + 1)?;
            if let Some(members) = &mut members {
                self.field = None;
                members.push(Member { name: key, value: &self.text[start..self.at] });
            }
            if self.next_is(b'}') {
                break;
            }
            if !self.next_is(b',') {
                return Err(expected("`,` or `}`"));
            }
        }
        if let Some(key) = repeated(&self.keys[first_key..]) {
            // A key of a nested object may be a customer's data; that of a record is a field.
            if members.is_some() {
                self.field = Some(key.clone());
            }
            return Err(("duplicate_key", "a key appears twice in one object".to_owned()));
        }
        self.keys.truncate(first_key);
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<(), Refusal> {
        self.enter(depth)?;
        if self.next_is(b']') {
            return Ok(());
        }
        loop {
            self.space();
            self.value(depth + 1)?;
            if self.next_is(b']') {
                return Ok(());
            }
            if !self.next_is(b',') {
                return Err(expected("`,` or `]`"));
            }
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), Refusal> {
        if depth > DEPTH {
            return Err(("depth", format!("values lie in each other more than {DEPTH} deep")));
        }
        self.at += 1;
        Ok(())
    }

    fn key(&mut self) -> Result<Cow<'a, str>, Refusal> {
        let start = self.at;
        let escaped = self.string()?;
        if escaped {
            let key = serde_json::from_str(&self.text[start..self.at])
                .map_err(|error| ("syntax", error.to_string()))?;
            Ok(Cow::Owned(key))
        } else {
            Ok(Cow::Borrowed(&self.text[start + 1..self.at - 1]))
        }
    }

    /// Passes a string and tells whether it has escapes.
    fn string(&mut self) -> Result<bool, Refusal> {
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = &self.bytes[self.at..];
            let special = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
            self.at += rest.iter().position(special).unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => {
                    return Err(("syntax", "a control character in a text".to_owned()));
                }
                None => return Err(expected("`\"` at the end of a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Refusal> {
        self.at += 1;
        match self.peek() {
            Some(byte) if memchr(byte, b"\"\\/bfnrt").is_some() => self.at += 1,
            Some(b'u') => return self.character(),
            _ => return Err(expected("an escape that JSON knows")),
        }
        Ok(())
    }

    /// Passes the escape of a character behind its backslash, which is two escapes outside of Unicode's
    /// first plane. Targets do not take half of one.
    fn character(&mut self) -> Result<(), Refusal> {
        let half = || ("syntax", "half of a character in a text".to_owned());
        match self.code_unit()? {
            0xdc00..=0xdfff => Err(half()),
            0xd800..=0xdbff => {
                if !self.bytes[self.at..].starts_with(b"\\u") {
                    return Err(half());
                }
                self.at += 1;
                if (0xdc00..=0xdfff).contains(&self.code_unit()?) { Ok(()) } else { Err(half()) }
            }
            _ => Ok(()),
        }
    }

    /// Passes `u` and four digits, and returns their number.
    fn code_unit(&mut self) -> Result<u32, Refusal> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| expected("four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), Refusal> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Refusal> {
        let digits = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 {
            return Err(expected("a digit"));
        }
        Ok(())
    }

    fn literal(&mut self, literal: &str) -> Result<(), Refusal> {
        if !self.bytes[self.at..].starts_with(literal.as_bytes()) {
            return Err(expected("a value"));
        }
        self.at += literal.len();
        Ok(())
    }

    fn space(&mut self) {
        while self.peek().is_some_and(super::is_space) {
            self.at += 1;
        }
    }

    /// Passes white space, and the byte behind it if it is this one.
    fn next_is(&mut self, byte: u8) -> bool {
        self.space();
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.at += 1;
        }
        is_next
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}

fn expected(what: &str) -> Refusal {
    ("syntax", format!("{what} expected"))
}

fn repeated<'k, 'a>(keys: &'k [Cow<'a, str>]) -> Option<&'k Cow<'a, str>> {
    if keys.len() <= FEW_KEYS {
        return keys
            .iter()
            .enumerate()
            .find(|(index, key)| keys[..*index].contains(key))
            .map(|(_, key)| key);
    }
    let mut seen = HashSet::with_capacity(keys.len());
    let repeated = keys.iter().position(|key| !seen.insert(key.as_ref()));
    repeated.map(|index| &keys[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (&'static str, usize, String) {
        let fault = members(text).unwrap_err();
        (fault.code, fault.at, fault.field)
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["1", "\"a\"", "[{}]", "null", "true"] {
            assert_eq!(refused(text).0, "shape", "{text}");
        }
    }

    #[test]
    fn broken_syntax_is_refused_at_its_place() {
        for (text, at) in [
            ("", 0),
            ("{", 1),
            ("{\"a\"}", 4),
            ("{\"a\":}", 5),
            ("{\"a\":1,}", 7),
            ("{\"a\":01}", 6),
            ("{\"a\":+1}", 5),
            ("{\"a\":1.}", 7),
            ("{\"a\":1e}", 7),
            ("{\"a\":NaN}", 5),
            ("{\"a\":nul}", 5),
            ("{a:1}", 1),
            ("{'a':1}", 1),
            ("{\"a\":\"x", 7),
            ("{\"a\":\"\\x\"}", 7),
            ("{\"a\":\"\\u12g4\"}", 10),
            ("{\"a\":\"\t\"}", 6),
            ("{\"a\":[1 2]}", 8),
            ("{\"a\":[1,]}", 8),
            ("{\"a\":1 \"b\":2}", 7),
            ("{} {}", 3),
            ("{\"\\ud800\":1}", 8),
            ("{\"a\":\"\\udc00\"}", 12),
            ("{\"a\":\"\\ud83d\\n\"}", 12),
            ("{\"a\":\"\\ud83d\\ud83d\"}", 18),
        ] {
            let (code, found, _) = refused(text);
            assert_eq!((code, found), ("syntax", at), "{text}");
        }
    }

    #[test]
    fn a_key_that_appears_twice_is_found_at_any_depth() {
        let (code, _, field) = refused(r#"{"a":1,"b":2,"a":3}"#);
        assert_eq!((code, field.as_str()), ("duplicate_key", "a"));
        let (code, _, field) = refused(r#"{"x":0,"a":[{"b":{"k":1,"\u006b":2}}]}"#);
        assert_eq!((code, field.as_str()), ("duplicate_key", "a"));
        let many: String = (0..40).map(|key| format!("\"k{key}\":1,")).collect();
        assert_eq!(refused(&format!("{{{many}\"k7\":2}}")).0, "duplicate_key");
        assert!(members(r#"{"a":{"k":1},"b":{"k":1},"k":[{"k":1},{"k":1}]}"#).is_ok());
    }

    #[test]
    fn depth_and_width_are_bounded() {
        let nested =
            |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(members(&nested(64)).is_ok());
        assert_eq!(refused(&nested(65)).0, "depth");
        let wide: Vec<String> = (0..=MEMBERS).map(|key| format!("\"{key}\":1")).collect();
        assert_eq!(refused(&format!("{{{}}}", wide.join(","))).0, "shape");
    }

    #[test]
    fn values_keep_their_text() {
        let text = r#" { "n" : 12345678901234567890.10 , "t":"a\u0000\ud83d\ude00\"}" ,"\u00e9": {"x" : [ ] } } "#;
        let members = members(text).unwrap();
        let found: Vec<_> =
            members.iter().map(|member| (member.name.as_ref(), member.value)).collect();
        assert_eq!(
            found,
            [
                ("n", "12345678901234567890.10"),
                ("t", r#""a\u0000\ud83d\ude00\"}""#),
                ("é", r#"{"x" : [ ] }"#),
            ]
        );
    }

    #[test]
    fn it_accepts_what_a_general_parser_accepts() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let mut random = StdRng::seed_from_u64(7);
        let pieces = [
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"b\\n\"", "1", "-0.5e+3", "true", "null", " ",
            "\"", "0", "x",
        ];
        let mut accepted = 0;
        for _ in 0..200_000 {
            let length = random.random_range(1..9);
            let body: String =
                (0..length).map(|_| pieces[random.random_range(0..pieces.len())]).collect();
            let text = format!("{{\"k\":{body}}}");
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            let ours = match members(&text) {
                Ok(_) => true,
                Err(fault) => fault.code == "duplicate_key",
            };
            assert_eq!(ours, theirs, "{text}");
            accepted += u32::from(theirs);
        }
        assert!(accepted > 1_000, "{accepted} texts say little");
    }
}
