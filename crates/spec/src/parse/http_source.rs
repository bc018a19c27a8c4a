//! The source `http`.

use std::time::Duration;

use super::{
    http::{self, CLIENT_KEYS},
    http_news, http_rules, optional,
    source::byte,
};
use crate::{
    Answer, AnswerFormat, AnswerPlace, Encoding, Fetch, HttpBody, HttpRequest, HttpRetry,
    HttpSource, JsonPath, PageKind, Pagination, Parent,
    reader::{At, Keys},
};

const REQUEST_KEYS: [&str; 5] = ["path", "method", "query", "headers", "body"];
const ANSWER_KEYS: [&str; 3] = ["records", "format", "csv"];
const SOURCE_KEYS: [&str; 10] = [
    "config",
    "key",
    "paginate",
    "incremental",
    "parent",
    "fetch",
    "errors",
    "retry",
    "slow_down_factor",
    "conditional",
];
const SLOW_DOWN_FACTOR: f64 = 4.0;

pub(super) fn source(at: &At<'_>) -> Option<HttpSource> {
    let known = [&CLIENT_KEYS[..], &REQUEST_KEYS, &ANSWER_KEYS, &SOURCE_KEYS].concat();
    let keys = at.keys(&known)?;
    let client = http::client(&keys);
    let config = optional(&keys, "config", |at| {
        let entries = at.entries("write `name: value`")?;
        entries.iter().map(|(name, at)| Some((name.clone(), at.text()?))).collect()
    });
    let names: &[&str] = match keys.get("parent") {
        Some(_) => &["config", "run", "cursor", "page", "parent"],
        None => &["config", "run", "cursor", "page"],
    };
    let request = request(&keys, names);
    let answer = answer(&keys);
    let key = optional(&keys, "key", |at| {
        at.names("list the fields that identify a record: `key: [id]`")
    });
    let paginate = paginate(&keys);
    let incremental = optional(&keys, "incremental", |at| http_news::incremental(at).map(Some));
    let parent = optional(&keys, "parent", |at| parent(at).map(Some));
    let fetch = optional(&keys, "fetch", |at| fetch(at).map(Some));
    let errors = optional(&keys, "errors", |at| {
        let rules: Vec<_> = at
            .items("list the rules: `errors: [{status: 404, then: ignore}]`")?
            .iter()
            .map(http_rules::rule)
            .collect();
        rules.into_iter().collect()
    });
    let retry = optional(&keys, "retry", retry);
    let slow_down_factor = match keys.get("slow_down_factor") {
        None => Some(SLOW_DOWN_FACTOR),
        Some(at) => factor(&at),
    };
    let conditional = match keys.get("conditional") {
        Some(at) => at.boolean(),
        None => Some(true),
    };
    Some(HttpSource {
        client: client?,
        config: config?,
        request: request?,
        answer: answer?,
        key: key?,
        paginate: paginate?,
        incremental: incremental?,
        parent: parent?,
        fetch: fetch?,
        errors: errors?,
        retry: retry?,
        slow_down_factor: slow_down_factor?,
        conditional: conditional?,
    })
}

fn request(keys: &Keys<'_>, names: &[&str]) -> Option<HttpRequest> {
    let path = keys.require("path", "add `path: /orders`").and_then(|at| {
        let path = http::template(&at, names)?;
        if path.as_written().contains(['?', '#']) || path.as_written().contains("://") {
            at.problem(
                "a path has neither host nor query",
                "put the host into `base_url` and parameters into `query`",
            );
            return None;
        }
        Some(path)
    });
    let method = match keys.get("method") {
        Some(at) => {
            at.word(&[("GET", "GET"), ("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH")])
        }
        None => Some("GET"),
    };
    let query = optional(keys, "query", |at| http::templates(at, names));
    let headers = optional(keys, "headers", |at| {
        let headers = http::templates(at, names)?;
        let entries = at.entries("write headers as `Name: value`")?;
        let names = entries.iter().map(|(name, at)| http::header_name(name, at));
        let names: Option<Vec<String>> = names.collect::<Vec<_>>().into_iter().collect();
        Some(names?.into_iter().zip(headers.into_iter().map(|(_, value)| value)).collect())
    });
    let body = optional(keys, "body", |at| {
        let keys = at.keys(&["json", "form"])?;
        let (kind, at) = keys.only(&["json", "form"], "kind of body")?;
        match kind {
            "json" => http::json_template(&at, names).map(|json| Some(HttpBody::Json(json))),
            _ => http::templates(&at, names).map(|form| Some(HttpBody::Form(form))),
        }
    });
    let (method, body) = (method?, body?);
    if body.is_some() && method == "GET" {
        keys.at().problem("a GET has no body", "add `method: POST`, or use `query`");
        return None;
    }
    Some(HttpRequest {
        method: method.to_owned(),
        path: path?,
        query: query?,
        headers: headers?,
        body,
    })
}

pub(super) fn json_path(at: &At<'_>) -> Option<JsonPath> {
    let text = at.text()?;
    match JsonPath::parse(&text) {
        Ok(path) => Some(path),
        Err(what) => {
            at.problem(what, "write a path such as `data.items` or `$.data[*].order`");
            None
        }
    }
}

fn answer(keys: &Keys<'_>) -> Option<Answer> {
    let records = optional(keys, "records", json_path);
    let format = match keys.get("format") {
        Some(at) => at.word(&[("json", 0), ("ndjson", 1), ("csv", 2), ("xml", 3)]),
        None if keys.get("csv").is_some() => Some(2),
        None => Some(0),
    };
    if let (Some(at), Some(found)) = (keys.get("csv"), format)
        && found != 2
    {
        at.problem(
            "these are settings of CSV, and the format is another one",
            "write `format: csv`",
        );
        return None;
    }
    let format = match format? {
        0 => AnswerFormat::Json,
        1 => AnswerFormat::Lines,
        2 => csv(keys.get("csv").as_ref())?,
        _ => AnswerFormat::Xml,
    };
    let records = records?;
    let rows = matches!(format, AnswerFormat::Lines | AnswerFormat::Csv { .. });
    if rows && !records.steps.is_empty() {
        keys.at().problem(
            "an answer of rows has nothing that `records` could lead through",
            "remove `records`",
        );
        return None;
    }
    Some(Answer { format, records })
}

fn csv(at: Option<&At<'_>>) -> Option<AnswerFormat> {
    let Some(at) = at else {
        return Some(AnswerFormat::Csv {
            delimiter: b',',
            quote: Some(b'"'),
            encoding: Encoding::Utf8,
            null_values: Vec::new(),
        });
    };
    let keys = at.keys(&["delimiter", "quote", "encoding", "null_values"])?;
    let delimiter = match keys.get("delimiter") {
        Some(at) => byte(&at),
        None => Some(b','),
    };
    let quote = match keys.get("quote") {
        Some(at) if at.text().as_deref() == Some("") => Some(None),
        Some(at) => byte(&at).map(Some),
        None => Some(Some(b'"')),
    };
    let encoding = match keys.get("encoding") {
        Some(at) => at.word(&[
            ("utf-8", Encoding::Utf8),
            ("latin-1", Encoding::Latin1),
            ("windows-1252", Encoding::Windows1252),
        ]),
        None => Some(Encoding::Utf8),
    };
    let null_values = optional(&keys, "null_values", |at| {
        at.names("list the texts that mean null: `null_values: [\"NULL\"]`")
    });
    Some(AnswerFormat::Csv {
        delimiter: delimiter?,
        quote: quote?,
        encoding: encoding?,
        null_values: null_values?,
    })
}

pub(super) fn answer_place(keys: &Keys<'_>) -> Option<AnswerPlace> {
    match keys.only(&["body", "header"], "place in the answer")? {
        ("body", at) => json_path(&at).map(AnswerPlace::Body),
        (_, at) => http::header_name(&at.name()?, &at).map(AnswerPlace::Header),
    }
}

fn paginate(keys: &Keys<'_>) -> Option<Pagination> {
    const KINDS: [&str; 6] = ["page", "offset", "cursor", "next_link", "link_header", "last_key"];
    let plain = |kind| Pagination { kind, size_param: None, size: None, more: None };
    let Some(at) = keys.get("paginate") else { return Some(plain(PageKind::Auto)) };
    if !at.is_map() {
        let kind = at.word(&[("auto", 0), ("none", 1), ("link_header", 2)])?;
        return Some(plain(match kind {
            0 => PageKind::Auto,
            1 => PageKind::Single,
            _ => PageKind::LinkHeader,
        }));
    }
    let keys = at.keys(&[&KINDS[..], &["size", "size_param", "more"]].concat())?;
    let size = optional(&keys, "size", |at| {
        let size: u64 = at.number("a number of records")?;
        if size == 0 {
            at.problem("a page without records leads nowhere", "write at least 1");
            return None;
        }
        Some(Some(size))
    });
    let size_param = optional(&keys, "size_param", |at| at.name().map(Some));
    let more = optional(&keys, "more", |at| json_path(at).map(Some));
    let (kind, at) = keys.only(&KINDS, "way to the next page")?;
    let kind = match kind {
        "page" => {
            let keys = at.keys(&["param", "first"])?;
            let first = match keys.get("first") {
                Some(at) => at.number("the number of the first page"),
                None => Some(1),
            };
            PageKind::Number { param: param(&keys)?, first: first? }
        }
        "offset" => PageKind::Offset { param: param(&at.keys(&["param"])?)? },
        "cursor" => {
            let keys = at.keys(&["param", "body", "header"])?;
            PageKind::Cursor { from: answer_place(&keys)?, param: param(&keys)? }
        }
        "next_link" => PageKind::NextLink(json_path(&at)?),
        "link_header" => {
            at.boolean()?;
            PageKind::LinkHeader
        }
        _ => {
            let keys = at.keys(&["param", "field"])?;
            let field = keys.require("field", "name the field of the last record");
            PageKind::LastKey { field: json_path(&field?)?, param: param(&keys)? }
        }
    };
    let (size, size_param) = (size?, size_param?);
    if size_param.is_some() && size.is_none() {
        at.problem(
            "`size_param` says where the size of a page goes, and there is none",
            "add `size: 100`",
        );
        return None;
    }
    Some(Pagination { kind, size_param, size, more: more? })
}

pub(super) fn param(keys: &Keys<'_>) -> Option<Option<String>> {
    optional(keys, "param", |at| at.name().map(Some))
}

fn parent(at: &At<'_>) -> Option<Parent> {
    let keys =
        at.keys(&[&REQUEST_KEYS[..], &ANSWER_KEYS, &["key", "include", "paginate"]].concat())?;
    let request = request(&keys, &["config", "run", "page"]);
    let answer = answer(&keys);
    let paginate = paginate(&keys);
    let key = match keys.get("key") {
        Some(at) => json_path(&at),
        None => JsonPath::parse("id").ok(),
    };
    let include = optional(&keys, "include", |at| {
        let entries = at.entries("write `field: path.in.parent`")?;
        entries.iter().map(|(name, at)| Some((name.clone(), json_path(at)?))).collect()
    });
    let answer = answer?;
    if matches!(answer.format, AnswerFormat::Csv { .. }) {
        at.problem("parents are read as JSON, NDJSON or XML", "use one of these formats");
        return None;
    }
    Some(Parent { request: request?, answer, paginate: paginate?, key: key?, include: include? })
}

fn fetch(at: &At<'_>) -> Option<Fetch> {
    let keys = at.keys(&[&REQUEST_KEYS[..], &["records", "id_field"]].concat())?;
    let request = request(&keys, &["config", "id"]);
    let records = optional(&keys, "records", json_path);
    let id_field = optional(&keys, "id_field", |at| at.name().map(Some));
    Some(Fetch { request: request?, records: records?, id_field: id_field? })
}

fn retry(at: &At<'_>) -> Option<HttpRetry> {
    let keys = at.keys(&["attempts", "first", "most", "most_asked"])?;
    let given = HttpRetry::default();
    let attempts = match keys.get("attempts") {
        Some(at) => {
            let attempts: u32 = at.number("a number of calls")?;
            if !(1..=100).contains(&attempts) {
                at.problem("calls are repeated 1 to 100 times", "write such a number");
                return None;
            }
            Some(attempts)
        }
        None => Some(given.attempts),
    };
    let duration = |name, otherwise: Duration| match keys.get(name) {
        Some(at) => at.duration(),
        None => Some(otherwise),
    };
    let first = duration("first", given.first);
    let most = duration("most", given.most);
    let most_asked = duration("most_asked", given.most_asked);
    Some(HttpRetry { attempts: attempts?, first: first?, most: most?, most_asked: most_asked? })
}

fn factor(at: &At<'_>) -> Option<f64> {
    let factor: f64 = at.number("a factor")?;
    if factor != 0.0 && !(1.5..=1000.0).contains(&factor) {
        at.problem(
            "a factor below 1.5 would take every answer for slow",
            "write at least 1.5, or 0 to never slow down",
        );
        return None;
    }
    Some(factor)
}
