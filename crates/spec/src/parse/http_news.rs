//! How an HTTP source asks for news only.

use super::{
    http_source::{answer_place, json_path, param},
    optional,
};
use crate::{
    Incremental, NewsBy, NewsKind, TimeFormat, format,
    reader::{At, Keys},
    text,
};

const MICROS: i64 = 1_000_000;
const DAY: i64 = 24 * 60 * 60;

pub(super) fn incremental(at: &At<'_>) -> Option<Incremental> {
    let keys = at.keys(&[
        "field",
        "type",
        "format",
        "param",
        "until_param",
        "start",
        "end",
        "lookback",
        "step",
        "filter",
        "token",
    ])?;
    let by = match keys.get("token") {
        Some(at) => {
            for other in ["field", "type", "format", "start", "end", "lookback", "step", "filter"] {
                if let Some(at) = keys.get(other) {
                    at.problem("a token has no values that could be compared", "remove this key");
                    return None;
                }
            }
            answer_place(&at.keys(&["body", "header"])?).map(NewsBy::Token)
        }
        None => field(&keys),
    };
    let param = param(&keys);
    let until_param = optional(&keys, "until_param", |at| at.name().map(Some));
    Some(Incremental { by: by?, param: param?, until_param: until_param? })
}

fn field(keys: &Keys<'_>) -> Option<NewsBy> {
    let field = keys.require("field", "name the field that grows with every change, or a `token`");
    let kind = match keys.get("type") {
        Some(at) => at.word(&[("timestamp", 0), ("date", 1), ("number", 2)]),
        None => Some(0),
    }?;
    let written = optional(keys, "format", |at| at.name().map(|text| Some((text, at.clone()))))?;
    let kind = match (kind, written) {
        (0, None) => NewsKind::Timestamp(TimeFormat::Iso),
        (0, Some((text, at))) => NewsKind::Timestamp(match text.as_str() {
            "seconds" => TimeFormat::Seconds,
            "milliseconds" => TimeFormat::Milliseconds,
            _ => TimeFormat::Format(checked(text, &at, true)?),
        }),
        (1, written) => NewsKind::Date(match written {
            Some((text, at)) => Some(checked(text, &at, false)?),
            None => None,
        }),
        (_, None) => NewsKind::Number,
        (_, Some((_, at))) => {
            at.problem("numbers have no format", "remove `format`");
            return None;
        }
    };
    let limit = |name| optional(keys, name, |at| moment(at, &kind).map(Some));
    let (start, end) = (limit("start"), limit("end"));
    let lookback = optional(keys, "lookback", |at| distance(at, &kind));
    let step = optional(keys, "step", |at| match distance(at, &kind)? {
        0 => {
            at.problem("a step of nothing leads nowhere", "write a longer step");
            None
        }
        step => Some(Some(step)),
    });
    let filter = optional(keys, "filter", At::boolean);
    let (start, end, step) = (start?, end?, step?);
    if step.is_some() && start.is_none() {
        keys.at().problem("`step` needs a place to start from", "add `start`");
        return None;
    }
    if step.is_some() && end.is_none() && kind == NewsKind::Number {
        keys.at().problem("`step` over numbers needs an end", "add `end`");
        return None;
    }
    Some(NewsBy::Field {
        field: json_path(&field?)?,
        kind,
        start,
        end,
        lookback: lookback?,
        step,
        filter: filter?,
    })
}

fn checked(text: String, at: &At<'_>, timestamp: bool) -> Option<String> {
    if let Err(reason) = format::check(&text, timestamp) {
        at.problem(
            format!("`{text}` {reason}"),
            "write strftime letters such as %Y-%m-%d, or `seconds` or `milliseconds`",
        );
        return None;
    }
    Some(text)
}

fn moment(at: &At<'_>, kind: &NewsKind) -> Option<i64> {
    let written = at.text()?;
    let value = match kind {
        NewsKind::Timestamp(_) => text::timestamp(&written),
        NewsKind::Date(_) => text::date(&written).map(i64::from),
        NewsKind::Number => written.parse().ok(),
    };
    if value.is_none() {
        at.problem(
            format!("`{written}` is not a value of this type"),
            "write `2026-01-31T00:00:00Z` for a timestamp, `2026-01-31` for a date, or a number",
        );
    }
    value
}

fn distance(at: &At<'_>, kind: &NewsKind) -> Option<i64> {
    if *kind == NewsKind::Number {
        let number: i64 = at.number("a number")?;
        if number < 0 {
            at.problem("the number is below zero", "write a number from 0 on");
            return None;
        }
        return Some(number);
    }
    let seconds = i64::try_from(at.duration()?.as_millis()).ok()?;
    match kind {
        NewsKind::Date(_) => Some((seconds / 1000 + DAY - 1) / DAY),
        _ => seconds.checked_mul(MICROS / 1000),
    }
}
