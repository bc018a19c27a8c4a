//! What certain answers of an HTTP source mean.

use super::{http, http_source::json_path, optional};
use crate::{
    ErrorAction, ErrorRule, TextTest, format,
    reader::{At, Keys},
};

pub(super) fn rule(at: &At<'_>) -> Option<ErrorRule> {
    let keys = at.keys(&["status", "header", "body", "then"])?;
    let status = optional(&keys, "status", statuses);
    let header = optional(&keys, "header", |at| {
        let keys = at.keys(&["name", "equals", "matches"])?;
        let at = keys.require("name", "name the header")?;
        Some(Some((http::header_name(&at.name()?, &at)?, test(&keys)?)))
    });
    let body = optional(&keys, "body", |at| {
        let keys = at.keys(&["path", "equals", "matches"])?;
        let path = json_path(&keys.require("path", "say where in the body: `path: error.code`")?)?;
        Some(Some((path, test(&keys)?)))
    });
    let then = keys.require("then", "add `then: retry`").and_then(|at| {
        at.word(&[
            ("retry", ErrorAction::Retry),
            ("ignore", ErrorAction::Ignore),
            ("skip", ErrorAction::Skip),
            ("refresh_login", ErrorAction::RefreshLogin),
            ("restart_paging", ErrorAction::RestartPaging),
            ("fail", ErrorAction::Fail),
        ])
    });
    let rule = ErrorRule { status: status?, header: header?, body: body?, then: then? };
    if rule.status.is_empty() && rule.header.is_none() && rule.body.is_none() {
        at.problem("the rule fits every answer", "add `status`, `header` or `body`");
        return None;
    }
    Some(rule)
}

pub(super) fn statuses(at: &At<'_>) -> Option<Vec<(u16, u16)>> {
    let one = |at: &At<'_>| {
        let text = at.text()?;
        let range = match text.split_once('-') {
            Some((from, to)) => from.parse().ok().zip(to.parse().ok()),
            None => text.parse().ok().map(|status: u16| (status, status)),
        };
        match range {
            Some((from, to)) if (100..=599).contains(&from) && from <= to && to <= 599 => {
                Some((from, to))
            }
            _ => {
                at.problem(
                    format!("`{text}` is not a status"),
                    "write a number from 100 to 599, or a range such as `500-599`",
                );
                None
            }
        }
    };
    match at.shape() {
        crate::reader::Shape::List(items) => {
            items.iter().map(one).collect::<Vec<_>>().into_iter().collect()
        }
        _ => one(at).map(|range| vec![range]),
    }
}

pub(super) fn test(keys: &Keys<'_>) -> Option<TextTest> {
    match (keys.get("equals"), keys.get("matches")) {
        (None, None) => Some(TextTest::Present),
        (Some(at), None) => at.text().map(TextTest::Equals),
        (None, Some(at)) => {
            let pattern = at.text()?;
            if let Err(reason) = format::whole_text(&pattern) {
                at.problem(
                    format!("`{pattern}` is not a regular expression: {reason}"),
                    "correct it, or use `equals`",
                );
                return None;
            }
            Some(TextTest::Matches(pattern))
        }
        (Some(_), Some(at)) => {
            at.problem("`equals` and `matches` are two tests", "keep one of them");
            None
        }
    }
}
