use bytes::Bytes;
use chrono::DateTime;
use connect::Limits;
use reqwest::header::HeaderMap;
use serde_json::Value;
use spec::{Answer, AnswerFormat, HttpSource};

use super::{answer, cursor::Page, delay, paging};

/// Reads an answer of any content as a source does, and finds the way to the next page.
///
/// # Panics
///
/// When what is read depends on the size of the chunks, or is no record.
pub fn read_answer(source: &HttpSource, headers: &HeaderMap, body: &Bytes) {
    let _ = (delay::retry_after(headers, DateTime::UNIX_EPOCH), delay::remaining(headers));
    let _ = delay::reset(headers, DateTime::UNIX_EPOCH);
    let format = &source.answer;
    if format.format == AnswerFormat::Xml
        && let Ok(elements) = answer::elements(format, "an answer", body)
    {
        for element in elements {
            let record: Value = serde_json::from_slice(element.as_ref()).expect("it is JSON");
            assert!(record.is_object(), "a record of XML is an object");
        }
    }
    let whole = places(format, body, Limits::default());
    let few = places(format, body, Limits { chunk_records: 1, ..Limits::default() });
    assert_eq!(whole, few, "however it is cut");
    let text = std::str::from_utf8(body).ok().filter(|_| format.format == AnswerFormat::Json);
    let records = whole.map_or(0, |(read, _)| read.len() as u64);
    let answered = paging::Answered { headers, body: text, records, last: None, query: &[] };
    let mut page = Page::default();
    for _ in 0..3 {
        match paging::next(&source.paginate, &page, &answered) {
            Ok(Some(next)) => page = next,
            Ok(None) | Err(_) => break,
        }
        let _ = paging::query(&source.paginate, &page);
    }
}

/// The positions of records that were read, and refused; `None`: the answer is refused.
fn places(format: &Answer, body: &Bytes, limits: Limits) -> Option<(Vec<u64>, Vec<u64>)> {
    let extra = [("shop".to_owned(), "\"eu\"".to_owned())];
    let (mut read, mut refused) = (Vec::new(), Vec::new());
    for cut in answer::cuts(format, "an answer", body, &extra, limits).ok()? {
        assert_eq!(cut.columns.num_rows(), cut.positions.len(), "each record has its place");
        read.extend(cut.positions);
        refused.extend(cut.refused.iter().map(|refused| refused.position));
    }
    Some((read, refused))
}
