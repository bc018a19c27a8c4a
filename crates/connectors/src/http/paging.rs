//! From one page to the next.

use connect::Error;
use reqwest::header::HeaderMap;
use spec::{AnswerPlace, PageKind, Pagination, quoted, text_of};

use super::{auto, client::header, cursor::Page, select::first};

/// What an answer tells about the way on.
pub(super) struct Answered<'a> {
    pub(super) headers: &'a HeaderMap,
    /// The body, if it is JSON.
    pub(super) body: Option<&'a str>,
    /// Number of its records.
    pub(super) records: u64,
    /// Key of its last record, as JSON.
    pub(super) last: Option<String>,
    /// Names of the parameters of the query.
    pub(super) query: &'a [String],
}

/// Returns the way of a page: as declared, or as found out.
pub(super) fn way<'a>(pagination: &'a Pagination, page: &'a Page) -> &'a PageKind {
    page.way.as_ref().unwrap_or(&pagination.kind)
}

/// Returns the value of `{{ page.… }}`, as JSON.
pub(super) fn value(pagination: &Pagination, page: &Page, name: &str) -> Option<String> {
    match name {
        "size" => pagination.size.map(|size| size.to_string()),
        "number" => match way(pagination, page) {
            PageKind::Number { first, .. } => Some((first + page.index).to_string()),
            _ => Some((page.index + 1).to_string()),
        },
        "offset" => Some(page.records.to_string()),
        "cursor" => match way(pagination, page) {
            PageKind::Cursor { .. } => page.by.as_deref().map(quoted),
            _ => None,
        },
        "last" => match way(pagination, page) {
            PageKind::LastKey { .. } => page.by.clone(),
            _ => None,
        },
        _ => None,
    }
}

/// Returns the parameters that ask for a page.
pub(super) fn query(pagination: &Pagination, page: &Page) -> Vec<(String, String)> {
    let mut query = Vec::new();
    if let (Some(param), Some(size)) = (&pagination.size_param, pagination.size) {
        query.push((param.clone(), size.to_string()));
    }
    let (param, name) = match way(pagination, page) {
        // The way was found out from an answer to a call without the parameter.
        PageKind::Number { .. } | PageKind::Offset { .. }
            if page.way.is_some() && page.index == 0 =>
        {
            return query;
        }
        PageKind::Number { param, .. } => (param, "number"),
        PageKind::Offset { param } => (param, "offset"),
        PageKind::Cursor { param, .. } => (param, "cursor"),
        PageKind::LastKey { param, .. } => (param, "last"),
        PageKind::Single | PageKind::Auto | PageKind::NextLink(_) | PageKind::LinkHeader => {
            return query;
        }
    };
    if let Some(param) = param
        && let Some(value) = value(pagination, page, name)
    {
        query.push((param.clone(), text_of(&value).into_owned()));
    }
    query
}

/// Returns the link that leads to a page, if it is reached by one.
pub(super) fn link<'a>(pagination: &Pagination, page: &'a Page) -> Option<&'a str> {
    match way(pagination, page) {
        PageKind::NextLink(_) | PageKind::LinkHeader => page.by.as_deref(),
        _ => None,
    }
}

/// Returns the page behind an answer; nothing behind the last one.
pub(super) fn next(
    pagination: &Pagination,
    page: &Page,
    answered: &Answered<'_>,
) -> Result<Option<Page>, Error> {
    let found = match (&pagination.kind, &page.way) {
        (PageKind::Auto, None) => Some(auto::find(answered)),
        (_, way) => way.clone(),
    };
    let kind = found.as_ref().unwrap_or(&pagination.kind);
    let more = pagination
        .more
        .as_ref()
        .and_then(|path| first(answered.body?, path))
        .map(|value| matches!(&*text_of(value), "true" | "1"));
    if more == Some(false) {
        return Ok(None);
    }
    let count = answered.records;
    // Without a word about more, a page that is not full is the last one, and an empty one always is.
    let full = more == Some(true) || pagination.size.map_or(count > 0, |size| count >= size);
    let text = |value: &str| {
        let text = text_of(value).into_owned();
        (!text.is_empty() && text != "false").then_some(text)
    };
    let by = match kind {
        PageKind::Single | PageKind::Auto => return Ok(None),
        PageKind::Number { .. } | PageKind::Offset { .. } => {
            let known = found.as_ref().and_then(|_| auto::ended(answered, page));
            if !full || known == Some(true) {
                return Ok(None);
            }
            None
        }
        PageKind::Cursor { from, .. } => match from {
            AnswerPlace::Body(path) => {
                answered.body.and_then(|body| first(body, path)).and_then(text)
            }
            AnswerPlace::Header(name) => {
                header(answered.headers, name).filter(|value| !value.is_empty()).map(str::to_owned)
            }
        },
        PageKind::NextLink(path) => answered.body.and_then(|body| first(body, path)).and_then(text),
        PageKind::LinkHeader => next_link(answered.headers),
        PageKind::LastKey { .. } if !full => None,
        PageKind::LastKey { field, .. } => match (&answered.last, count) {
            (_, 0) => None,
            (Some(last), _) => Some(last.clone()),
            (None, _) => {
                return Err(Error::stop(
                    format!("the last record of a page has no value at `{field}`"),
                    "set `paginate.last_key.field` to a field that every record has",
                ));
            }
        },
    };
    let counts = matches!(kind, PageKind::Number { .. } | PageKind::Offset { .. });
    if by.is_none() && !counts {
        return Ok(None);
    }
    Ok(Some(Page { index: page.index + 1, records: page.records + count, by, way: found }))
}

/// Returns the target of the link with the relation `next`.
pub(super) fn next_link(headers: &HeaderMap) -> Option<String> {
    headers.get_all("link").iter().filter_map(|value| value.to_str().ok()).find_map(|value| {
        let mut rest = value;
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>')?;
            let target = &rest[start + 1..end];
            rest = &rest[end + 1..];
            let parameters = &rest[..rest.find('<').unwrap_or(rest.len())];
            let is_next = parameters.split([';', ',']).any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split_ascii_whitespace()
                        .any(|relation| relation.eq_ignore_ascii_case("next"))
            });
            if is_next {
                return Some(target.to_owned());
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use spec::JsonPath;

    use super::*;

    fn plain(kind: PageKind) -> Pagination {
        Pagination { kind, size_param: None, size: None, more: None }
    }

    fn headers(link: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("link", link.parse().unwrap());
        headers
    }

    fn after(pagination: &Pagination, page: &Page, body: &str, records: u64) -> Option<Page> {
        let headers = HeaderMap::new();
        let answered = Answered {
            headers: &headers,
            body: Some(body),
            records,
            last: Some("\"k9\"".to_owned()),
            query: &[],
        };
        next(pagination, page, &answered).unwrap()
    }

    #[test]
    fn a_link_header_is_read_whatever_stands_around() {
        for (link, next) in [
            (
                r#"<https://h/a?p=2>; rel="next", <https://h/a?p=9>; rel="last""#,
                Some("https://h/a?p=2"),
            ),
            (
                r#"<https://h/a?x=1,2>; rel="prev", </b?p=3>; title="a"; rel="foo next""#,
                Some("/b?p=3"),
            ),
            (r"<https://h/a>; rel=next", Some("https://h/a")),
            (r#"<https://h/a>; rel="prev""#, None),
            ("", None),
            ("<broken", None),
        ] {
            assert_eq!(next_link(&headers(link)).as_deref(), next, "{link}");
        }
    }

    #[test]
    fn a_page_that_is_not_full_is_the_last_one() {
        let number = PageKind::Number { param: Some("page".to_owned()), first: 1 };
        let mut pagination = plain(number);
        let first = Page::default();
        assert_eq!(query(&pagination, &first), [("page".to_owned(), "1".to_owned())]);
        let second = after(&pagination, &first, "[]", 3).unwrap();
        assert_eq!(query(&pagination, &second), [("page".to_owned(), "2".to_owned())]);
        assert_eq!(after(&pagination, &second, "[]", 0), None);
        pagination.size = Some(4);
        assert_eq!(after(&pagination, &first, "[]", 3), None);
        pagination.more = Some(JsonPath::parse("more").unwrap());
        assert!(after(&pagination, &first, r#"{"more":true}"#, 3).is_some());
        assert_eq!(after(&pagination, &first, r#"{"more":false}"#, 4), None);
    }

    #[test]
    fn tokens_lead_on_until_there_is_none() {
        let from = AnswerPlace::Body(JsonPath::parse("next").unwrap());
        let pagination = plain(PageKind::Cursor { from, param: Some("after".to_owned()) });
        let first = Page::default();
        assert!(query(&pagination, &first).is_empty());
        let second = after(&pagination, &first, r#"{"next":"a=b"}"#, 0).unwrap();
        assert_eq!(query(&pagination, &second), [("after".to_owned(), "a=b".to_owned())]);
        for body in [r#"{"next":null}"#, r#"{"next":""}"#, r#"{"next":false}"#, "{}", "no"] {
            assert_eq!(after(&pagination, &second, body, 9), None, "{body}");
        }
        let last = plain(PageKind::LastKey {
            field: JsonPath::parse("id").unwrap(),
            param: Some("after".to_owned()),
        });
        let second = after(&last, &first, "[]", 2).unwrap();
        assert_eq!(query(&last, &second), [("after".to_owned(), "k9".to_owned())]);
        assert_eq!(after(&last, &second, "[]", 0), None);
    }
}
