//! Takes the records out of an answer.

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use bytes::Bytes;
use connect::{Error, Limits};
use memchr::memchr;
use model::FieldType;
use spec::{Answer, AnswerFormat, CsvSource, JsonPath, PathStep, quoted};

use super::{
    select::{items, select},
    xml,
};
use crate::{csv, files::Cut, json};

/// Returns the records in chunks. Positions count them from 1; `extra` are fields that all get.
///
/// # Errors
///
/// Stops where the answer does not have its format, or leads to no records.
pub(super) fn cuts(
    answer: &Answer,
    place: &str,
    body: &Bytes,
    extra: &[(String, String)],
    limits: Limits,
) -> Result<Vec<Cut>, Error> {
    if let AnswerFormat::Csv { delimiter, quote, encoding, null_values } = &answer.format {
        if body.is_empty() {
            return Ok(Vec::new());
        }
        let config = CsvSource {
            path: String::new(),
            delimiter: *delimiter,
            quote: *quote,
            encoding: *encoding,
            null_values: null_values.clone(),
        };
        return table(place, body, &config, extra, limits);
    }
    let elements = elements(answer, place, body)?;
    let elements: Vec<&[u8]> = elements.iter().map(|element| element.as_ref()).collect();
    Ok(json::cuts(&elements, extra, limits))
}

/// A record's text.
pub(super) enum Element<'a> {
    Borrowed(&'a [u8]),
    Made(String),
}

impl AsRef<[u8]> for Element<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text.as_bytes(),
        }
    }
}

/// Returns the JSON texts of the records of any format but CSV.
pub(super) fn elements<'a>(
    answer: &Answer,
    place: &str,
    body: &'a [u8],
) -> Result<Vec<Element<'a>>, Error> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    match answer.format {
        AnswerFormat::Lines => return Ok(lines(body)),
        AnswerFormat::Xml => {
            let text = utf8(place, body)?;
            let records = xml::records(text, &answer.records)?;
            return Ok(records.into_iter().map(Element::Made).collect());
        }
        AnswerFormat::Json | AnswerFormat::Csv { .. } => {}
    }
    let text = utf8(place, body)?;
    let malformed = |cause: serde_json::Error| {
        Error::stop(
            format!(
                "{place}: the answer is not JSON at line {}, column {}",
                cause.line(),
                cause.column()
            ),
            "see what the API sends, or set `format`",
        )
    };
    let found = select(text, &answer.records).map_err(malformed)?;
    if found.is_empty() && !leads_through_lists(&answer.records) {
        return Err(Error::stop(
            format!("{place}: there is nothing at `{}` in the answer", answer.records),
            "set `records` to the way to the records",
        ));
    }
    let mut elements = Vec::new();
    for value in found {
        match value.as_bytes().first() {
            Some(b'[') => elements.extend(
                items(value)
                    .map_err(malformed)?
                    .into_iter()
                    .map(|item| Element::Borrowed(item.as_bytes())),
            ),
            Some(b'{') => elements.push(Element::Borrowed(value.as_bytes())),
            Some(b'n') => {}
            _ => {
                return Err(Error::stop(
                    format!("{place}: `{}` is neither a list nor an object", answer.records),
                    "set `records` to the way to the records",
                ));
            }
        }
    }
    Ok(elements)
}

/// An empty list on the way leads to nothing, which is right.
fn leads_through_lists(path: &JsonPath) -> bool {
    path.steps.iter().any(|step| !matches!(step, PathStep::Key(_)))
}

fn utf8<'a>(place: &str, body: &'a [u8]) -> Result<&'a str, Error> {
    std::str::from_utf8(body).map_err(|cause| {
        Error::stop(
            format!("{place}: the answer is not UTF-8 at byte {}", cause.valid_up_to()),
            "see what the API sends",
        )
    })
}

fn lines(body: &[u8]) -> Vec<Element<'_>> {
    let mut lines = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest[..end].trim_ascii();
        if !line.is_empty() {
            lines.push(Element::Borrowed(line));
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    lines
}

fn table(
    place: &str,
    body: &Bytes,
    config: &CsvSource,
    extra: &[(String, String)],
    limits: Limits,
) -> Result<Vec<Cut>, Error> {
    let named = |mut error: Error| {
        error.what = error.what.replacen("file ", "", 1);
        error
    };
    let mut text = csv::text(place, body.clone(), config, limits).map_err(named)?;
    let mut cuts: Vec<Cut> = Vec::new();
    let mut before = 0;
    while let Some(mut cut) = text.next().map_err(named)? {
        // Lines become ordinals, refused ones included.
        let mut lines: Vec<u64> =
            cut.positions.iter().copied().chain(cut.refused.iter().map(|r| r.position)).collect();
        lines.sort_unstable();
        let ordinal = |line: u64| before + lines.partition_point(|other| *other < line) as u64 + 1;
        cut.positions.iter_mut().for_each(|position| *position = ordinal(*position));
        cut.refused.iter_mut().for_each(|refused| refused.position = ordinal(refused.position));
        before += lines.len() as u64;
        add(&mut cut, extra);
        cuts.push(cut);
    }
    Ok(cuts)
}

/// Adds fields with the same JSON value in every record.
fn add(cut: &mut Cut, extra: &[(String, String)]) {
    if extra.is_empty() {
        return;
    }
    let schema = cut.columns.schema();
    let mut fields: Vec<arrow_schema::Field> = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (field, array) in schema.fields().iter().zip(cut.columns.columns()) {
        if !extra.iter().any(|(name, _)| name == field.name()) {
            fields.push(field.as_ref().clone());
            arrays.push(std::sync::Arc::clone(array));
        }
    }
    let rows = cut.columns.num_rows();
    for (name, value) in extra {
        fields.push(FieldType::Json.arrow_field(name));
        let value = (value != "null").then_some(value.as_str());
        arrays.push(std::sync::Arc::new(StringArray::from(vec![value; rows])));
    }
    cut.columns =
        RecordBatch::try_new(std::sync::Arc::new(arrow_schema::Schema::new(fields)), arrays)
            .expect("every column has an entry per record");
    cut.presence = Vec::new();
}

/// Returns the JSON text of the value that a path leads to in a record; nothing for null and absent.
pub(super) fn value_in(cut: &Cut, row: usize, path: &JsonPath) -> Option<String> {
    let [PathStep::Key(name), rest @ ..] = &path.steps[..] else { return None };
    let (index, field) = cut.columns.schema_ref().column_with_name(name)?;
    let texts = cut.columns.column(index).as_any().downcast_ref::<StringArray>()?;
    if texts.is_null(row) {
        return None;
    }
    let text = texts.value(row);
    if FieldType::of(field) != Some(FieldType::Json) {
        return rest.is_empty().then(|| quoted(text));
    }
    let rest = JsonPath { steps: rest.to_vec() };
    super::select::first(text, &rest).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: AnswerFormat, records: &str, body: &str) -> Result<Vec<String>, Error> {
        let answer = Answer { format, records: JsonPath::parse(records).unwrap() };
        let cuts = cuts(
            &answer,
            "GET `h`",
            &Bytes::from(body.to_owned()),
            &[("p".to_owned(), "7".to_owned())],
            Limits::default(),
        )?;
        let path = |name: &str| JsonPath::of_keys(&[name]);
        Ok(cuts
            .iter()
            .flat_map(|cut| {
                (0..cut.positions.len()).map(|row| {
                    let value = |name| value_in(cut, row, &path(name)).unwrap_or_default();
                    format!("{}:{}:{}", cut.positions[row], value("n"), value("p"))
                })
            })
            .collect())
    }

    fn csv() -> AnswerFormat {
        AnswerFormat::Csv {
            delimiter: b',',
            quote: Some(b'"'),
            encoding: spec::Encoding::Utf8,
            null_values: Vec::new(),
        }
    }

    #[test]
    fn what_is_not_as_declared_stops() {
        for (format, records, body) in [
            (AnswerFormat::Json, "", "<html>"),
            (AnswerFormat::Json, "data", r#"{"data":[{"n":1}"#),
            (AnswerFormat::Json, "data", r#"{"error":"no"}"#),
            (AnswerFormat::Json, "data", r#"{"data":7}"#),
            (AnswerFormat::Xml, "", "{}"),
        ] {
            assert!(read(format.clone(), records, body).is_err(), "{format:?} {body}");
        }
    }

    #[test]
    fn every_format_gives_the_same_records() {
        let expected = ["1:1.10:7".to_owned(), "2:2:7".to_owned()];
        let quoted = ["1:\"1.10\":7".to_owned(), "2:\"2\":7".to_owned()];
        let json = r#"{"data":{"items":[{"n":1.10},{"n":2}]}}"#;
        assert_eq!(read(AnswerFormat::Json, "data.items", json).unwrap(), expected);
        let deep = r#"[{"o":[{"n":1.10}]},{"o":[]},{"o":[{"n":2}]}]"#;
        assert_eq!(read(AnswerFormat::Json, "[*].o", deep).unwrap(), expected);
        let lines = "\u{FEFF}{\"n\":1.10}\r\n\n{\"n\":2}";
        assert_eq!(read(AnswerFormat::Lines, "", lines).unwrap(), expected);
        assert_eq!(read(csv(), "", "n\n1.10\n\n2\n").unwrap(), quoted);
        let xml = "<r><i><n>1.10</n></i><i n='2'/></r>";
        assert_eq!(read(AnswerFormat::Xml, "i", xml).unwrap(), quoted);
    }

    #[test]
    fn nothing_is_no_error() {
        for body in ["", " \n", "[]", "null"] {
            assert!(read(AnswerFormat::Json, "", body).unwrap().is_empty(), "{body}");
        }
        assert!(read(AnswerFormat::Json, "[*].o", "[]").unwrap().is_empty());
        assert!(read(csv(), "", "").unwrap().is_empty());
    }
}
