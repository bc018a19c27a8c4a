//! Finds out from the first answer how an API leads to the next page.

use spec::{AnswerPlace, JsonPath, PageKind, text_of};

use super::{cursor::Page, paging::Answered, select::first};

/// Ways to links, outermost key first.
const LINKS: [&[&str]; 14] = [
    &["next"],
    &["links", "next"],
    &["links", "next", "href"],
    &["_links", "next"],
    &["_links", "next", "href"],
    &["@odata.nextLink"],
    &["paging", "next"],
    &["paging", "next", "link"],
    &["pagination", "next"],
    &["meta", "next"],
    &["next_page_url"],
    &["nextLink"],
    &["next_url"],
    &["next_page"],
];

/// Ways to tokens, with the parameter that takes them.
const TOKENS: [(&[&str], &str); 17] = [
    (&["next_cursor"], "cursor"),
    (&["nextCursor"], "cursor"),
    (&["meta", "next_cursor"], "cursor"),
    (&["meta", "nextCursor"], "cursor"),
    (&["pagination", "next_cursor"], "cursor"),
    (&["pagination", "nextCursor"], "cursor"),
    (&["response_metadata", "next_cursor"], "cursor"),
    (&["cursor", "next"], "cursor"),
    (&["paging", "next", "after"], "after"),
    (&["paging", "cursors", "after"], "after"),
    (&["nextPageToken"], "pageToken"),
    (&["next_page_token"], "page_token"),
    (&["next_token"], "next_token"),
    (&["nextToken"], "nextToken"),
    (&["continuation_token"], "continuation_token"),
    (&["continuationToken"], "continuationToken"),
    (&["next"], "cursor"),
];

/// Ways to the number of the next page.
const NEXT_NUMBERS: [&[&str]; 5] = [
    &["next"],
    &["next_page"],
    &["nextPage"],
    &["meta", "next_page"],
    &["pagination", "next_page"],
];

/// Objects that may hold numbers of pages.
const HOLDERS: [&[&str]; 5] = [&[], &["meta"], &["pagination"], &["paging"], &["page"]];

const PAGE_NUMBERS: [&str; 6] =
    ["page", "current_page", "currentPage", "page_number", "pageNumber", "number"];
const PAGE_TOTALS: [&str; 7] =
    ["total_pages", "totalPages", "last_page", "lastPage", "pages", "page_count", "pageCount"];
const PAGE_PARAMS: [&str; 5] = ["page", "_page", "page_number", "pageNumber", "p"];

/// Returns the way on, or [`PageKind::Single`] where nothing leads on.
pub(super) fn find(answered: &Answered<'_>) -> PageKind {
    if super::paging::next_link(answered.headers).is_some() {
        return PageKind::LinkHeader;
    }
    let Some(body) = answered.body.filter(|body| body.trim_start().starts_with('{')) else {
        return PageKind::Single;
    };
    let at = |keys: &[&str]| first(body, &JsonPath::of_keys(keys));
    for keys in LINKS {
        if at(keys).is_some_and(|value| value.starts_with('"') && is_link(&text_of(value))) {
            return PageKind::NextLink(JsonPath::of_keys(keys));
        }
    }
    let page_param = || {
        let used = PAGE_PARAMS.iter().find(|name| answered.query.iter().any(|q| q == *name));
        (*used.unwrap_or(&"page")).to_owned()
    };
    for keys in NEXT_NUMBERS {
        if at(keys).is_some_and(|value| value.bytes().all(|b| b.is_ascii_digit())) {
            let from = AnswerPlace::Body(JsonPath::of_keys(keys));
            return PageKind::Cursor { from, param: Some(page_param()) };
        }
    }
    for (keys, param) in TOKENS {
        if at(keys).is_some_and(|value| value.starts_with('"') && value.len() > 2) {
            let from = AnswerPlace::Body(JsonPath::of_keys(keys));
            return PageKind::Cursor { from, param: Some(param.to_owned()) };
        }
    }
    if at(&["object"]) == Some("\"list\"") && at(&["has_more"]) == Some("true") {
        return PageKind::LastKey {
            field: JsonPath::of_keys(&["id"]),
            param: Some("starting_after".to_owned()),
        };
    }
    if let Some((number, _)) = pages(body) {
        return PageKind::Number { param: Some(page_param()), first: number };
    }
    if offsets(body).is_some() {
        return PageKind::Offset { param: Some("offset".to_owned()) };
    }
    PageKind::Single
}

/// Tells whether an answer says that it is the last one, by numbers.
pub(super) fn ended(answered: &Answered<'_>, page: &Page) -> Option<bool> {
    let body = answered.body?;
    if let Some((number, total)) = pages(body) {
        // Pages count from 0 or from 1, and the first answer has told which.
        let from_zero = number <= page.index;
        return Some(if from_zero { number + 1 >= total } else { number >= total });
    }
    let (_, total) = offsets(body)?;
    Some(page.records + answered.records >= total)
}

fn is_link(text: &str) -> bool {
    ["http://", "https://", "/", "?"].iter().any(|start| text.starts_with(start))
}

fn number(body: &str, holder: &[&str], names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| {
        let path = JsonPath::of_keys(&[holder, &[*name]].concat());
        text_of(first(body, &path)?).parse().ok()
    })
}

/// Returns the number of the page and of all pages.
fn pages(body: &str) -> Option<(u64, u64)> {
    HOLDERS.iter().find_map(|holder| {
        Some((number(body, holder, &PAGE_NUMBERS)?, number(body, holder, &PAGE_TOTALS)?))
    })
}

/// Returns the offset of the page and the number of all records.
fn offsets(body: &str) -> Option<(u64, u64)> {
    HOLDERS.iter().find_map(|holder| {
        let total = number(body, holder, &["total", "total_count", "totalCount", "count"])?;
        number(body, holder, &["limit", "page_size", "per_page"])?;
        Some((number(body, holder, &["offset", "skip"])?, total))
    })
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    fn found(link: Option<&str>, query: &[&str], body: &str) -> String {
        let mut headers = HeaderMap::new();
        if let Some(link) = link {
            headers.insert("link", link.parse().unwrap());
        }
        let query: Vec<String> = query.iter().map(|name| (*name).to_owned()).collect();
        let answered =
            Answered { headers: &headers, body: Some(body), records: 2, last: None, query: &query };
        match find(&answered) {
            PageKind::Single => "single".to_owned(),
            PageKind::LinkHeader => "header".to_owned(),
            PageKind::NextLink(path) => format!("link {path}"),
            PageKind::Cursor { from: AnswerPlace::Body(path), param } => {
                format!("token {path} {}", param.unwrap())
            }
            PageKind::Number { param, first } => format!("number {} {first}", param.unwrap()),
            PageKind::Offset { param } => format!("offset {}", param.unwrap()),
            PageKind::LastKey { field, param } => format!("last {field} {}", param.unwrap()),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_ways_of_known_apis_are_recognised() {
        for (body, way) in [
            (r#"{"data":[],"next":"/a?p=2"}"#, "link $.next"),
            (r#"{"data":[],"_links":{"next":{"href":"https://h/a"}}}"#, "link $._links.next.href"),
            (r#"{"value":[],"@odata.nextLink":"https://h/a"}"#, "link $[\"@odata.nextLink\"]"),
            (
                r#"{"ok":true,"response_metadata":{"next_cursor":"dXNl"}}"#,
                "token $.response_metadata.next_cursor cursor",
            ),
            (r#"{"nextPageToken":"x"}"#, "token $.nextPageToken pageToken"),
            (
                r#"{"results":[],"paging":{"next":{"after":"5"}}}"#,
                "token $.paging.next.after after",
            ),
            (r#"{"object":"list","has_more":true,"data":[]}"#, "last $.id starting_after"),
            (r#"{"meta":{"current_page":1,"last_page":4}}"#, "number page 1"),
            (r#"{"offset":0,"limit":20,"total":45}"#, "offset offset"),
            (r#"{"first":1,"prev":null,"next":2,"data":[]}"#, "token $.next page"),
            (r#"{"data":[],"next":null,"next_cursor":""}"#, "single"),
            (r#"[{"next":"/a"}]"#, "single"),
            ("not JSON", "single"),
        ] {
            assert_eq!(found(None, &[], body), way, "{body}");
        }
        assert_eq!(found(Some("</a>; rel=next"), &[], "[]"), "header");
        assert_eq!(found(None, &["_page"], r#"{"next":2}"#), "token $.next _page");
    }

    #[test]
    fn numbers_tell_the_end() {
        let headers = HeaderMap::new();
        let ended = |body: &str, page: &Page| {
            let answered = Answered {
                headers: &headers,
                body: Some(body),
                records: 5,
                last: None,
                query: &[],
            };
            ended(&answered, page)
        };
        let page = |index, records| Page { index, records, ..Page::default() };
        assert_eq!(ended(r#"{"page":1,"pages":2}"#, &page(0, 0)), Some(false));
        assert_eq!(ended(r#"{"page":2,"pages":2}"#, &page(1, 5)), Some(true));
        assert_eq!(ended(r#"{"page":0,"pages":2}"#, &page(0, 0)), Some(false));
        assert_eq!(ended(r#"{"page":1,"pages":2}"#, &page(1, 5)), Some(true));
        assert_eq!(ended(r#"{"offset":5,"limit":5,"total":10}"#, &page(1, 5)), Some(true));
        assert_eq!(ended("{}", &page(1, 5)), None);
    }
}
