//! Records of an XML answer, as JSON texts: attributes and child elements are members, `$text` is the
//! text beside them, elements that repeat are lists, an element without children is its text.

use connect::Error;
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use spec::{JsonPath, PathStep, quoted};

/// Elements may lie in each other so deep.
const DEPTH: usize = 64;

/// An element under construction.
#[derive(Default)]
struct Element {
    name: String,
    members: Vec<(String, Vec<String>)>,
    text: String,
    nil: bool,
}

impl Element {
    fn add(&mut self, name: &str, json: String) {
        match self.members.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(json),
            None => self.members.push((name.to_owned(), vec![json])),
        }
    }

    fn into_json(mut self) -> String {
        if self.members.is_empty() {
            return if self.nil { "null".to_owned() } else { quoted(&self.text) };
        }
        let text = self.text.trim();
        if !text.is_empty() {
            let text = quoted(text);
            self.add("$text", text);
        }
        let members = self.members.iter().map(|(name, values)| match &values[..] {
            [value] => format!("{}:{value}", quoted(name)),
            values => format!("{}:[{}]", quoted(name), values.join(",")),
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }

    /// As a record: an object in any case.
    fn into_record(self) -> String {
        if self.members.is_empty() {
            let text = self.text.trim().to_owned();
            return format!("{{\"$text\":{}}}", quoted(&text));
        }
        self.into_json()
    }
}

/// Returns the texts of the records under a path of element names, the root left out. A last step
/// `[*]` changes nothing: elements that repeat are all taken anyway.
///
/// # Errors
///
/// Stops where the text is not XML.
pub(super) fn records(text: &str, path: &JsonPath) -> Result<Vec<String>, Error> {
    let way: Vec<&str> = path
        .steps
        .iter()
        .filter_map(|step| match step {
            PathStep::Key(key) => Some(key.as_str()),
            PathStep::All | PathStep::Index(_) => None,
        })
        .collect();
    let mut reader = Reader::from_str(text);
    let mut records = Vec::new();
    // Names of the open elements outside of records, the root included.
    let mut around: Vec<String> = Vec::new();
    let mut open: Vec<Element> = Vec::new();
    let mut rooted = false;
    loop {
        let at = reader.buffer_position();
        let broken = |what: &str| {
            Error::stop(
                format!("the answer is not XML at byte {at}: {what}"),
                "see what the API sends, or set `format`",
            )
        };
        let event =
            reader.read_event().map_err(|cause| broken("it is malformed").because(cause))?;
        rooted |= matches!(event, Event::Start(_) | Event::Empty(_));
        match event {
            Event::Start(start) => {
                let element = begin(&start).ok_or_else(|| broken("an attribute is malformed"))?;
                if open.len() + around.len() > DEPTH {
                    return Err(broken("elements lie in each other too deep"));
                }
                if !open.is_empty() || is_record(&around, &element.name, &way) {
                    open.push(element);
                } else {
                    around.push(element.name);
                }
            }
            Event::Empty(start) => {
                let element = begin(&start).ok_or_else(|| broken("an attribute is malformed"))?;
                if let Some(parent) = open.last_mut() {
                    let name = element.name.clone();
                    parent.add(&name, element.into_json());
                } else if is_record(&around, &element.name, &way) {
                    records.push(element.into_record());
                }
            }
            Event::End(_) => match open.pop() {
                None => drop(around.pop()),
                Some(element) => match open.last_mut() {
                    Some(parent) => {
                        let name = element.name.clone();
                        parent.add(&name, element.into_json());
                    }
                    None => records.push(element.into_record()),
                },
            },
            Event::Text(piece) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&piece.xml10_content());
                }
            }
            Event::CData(piece) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&piece.xml10_content());
                }
            }
            Event::GeneralRef(reference) => {
                if let Some(element) = open.last_mut() {
                    let character = match reference.resolve_char_ref() {
                        Ok(Some(character)) => Some(character.to_string()),
                        Ok(None) => quick_xml::escape::resolve_predefined_entity(&reference)
                            .map(str::to_owned),
                        Err(_) => None,
                    };
                    let character = character.ok_or_else(|| broken("an unknown entity"))?;
                    element.text.push_str(&character);
                }
            }
            // Declared entities are not resolved, so they cannot grow.
            Event::DocType(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof if rooted && open.is_empty() && around.is_empty() => return Ok(records),
            Event::Eof => return Err(broken("it ends too early")),
        }
    }
}

fn is_record(around: &[String], name: &str, way: &[&str]) -> bool {
    match way {
        // The children of the root.
        [] => around.len() == 1,
        [outer @ .., last] => {
            around.len() == outer.len() + 1
                && name == *last
                && around[1..].iter().zip(outer).all(|(found, wanted)| found == wanted)
        }
    }
}

fn begin(start: &BytesStart<'_>) -> Option<Element> {
    let mut element =
        Element { name: start.local_name().as_ref().to_owned(), ..Element::default() };
    for attribute in start.attributes() {
        let attribute = attribute.ok()?;
        if attribute.key.as_ref().starts_with("xmlns") {
            continue;
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).ok()?;
        let local = attribute.key.local_name().as_ref().to_owned();
        if local == "nil" && matches!(&*value, "true" | "1") {
            element.nil = true;
            continue;
        }
        element.add(&local, quoted(&value));
    }
    Some(element)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, path: &str) -> Vec<String> {
        records(text, &JsonPath::parse(path).unwrap()).unwrap()
    }

    #[test]
    fn what_is_no_xml_stops() {
        for text in ["<a><b></a>", "<a><b>", "<a><b>&bad;</b></a>", "<a><b x=1></b></a>"] {
            assert!(records(text, &JsonPath::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn elements_become_members() {
        let text = r#"<?xml version="1.0"?><r xmlns:x="u"><meta>1</meta><list><order id="7">
            <total>1.10</total><x:tag>a &amp; b</x:tag><tag><![CDATA[<c>]]></tag>
            <note nil="true"/><at v="1">t</at></order><order id="8"/></list></r>"#;
        assert_eq!(
            read(text, "list.order"),
            [
                r#"{"id":"7","total":"1.10","tag":["a & b","<c>"],"note":null,"at":{"v":"1","$text":"t"}}"#,
                r#"{"id":"8"}"#
            ]
        );
        assert_eq!(read("<r><a>1</a><a>2</a></r>", ""), [r#"{"$text":"1"}"#, r#"{"$text":"2"}"#]);
        assert!(read("<r/>", "").is_empty());
    }
}
