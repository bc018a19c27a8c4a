//! What an answer means.

use connect::Error;
use spec::{ErrorAction, ErrorRule, JsonPath, TextTest, format::whole_text, text_of};

use super::{
    client::{Response, header, setting},
    select::first,
};

/// The rules of a pipeline, and what holds without them.
#[derive(Clone, Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
}

#[derive(Clone)]
struct Rule {
    status: Vec<(u16, u16)>,
    header: Option<(String, Test)>,
    body: Option<(JsonPath, Test)>,
    then: ErrorAction,
}

#[derive(Clone)]
enum Test {
    Present,
    Equals(String),
    Matches(regex::Regex),
}

impl Test {
    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Equals(expected) => expected == text,
            Self::Matches(pattern) => pattern.is_match(text),
        }
    }
}

impl Rules {
    /// Prepares the rules.
    ///
    /// # Errors
    ///
    /// When a pattern is none.
    pub(crate) fn new(rules: &[ErrorRule]) -> Result<Self, Error> {
        let test = |test: &TextTest| {
            Ok::<_, Error>(match test {
                TextTest::Present => Test::Present,
                TextTest::Equals(text) => Test::Equals(text.clone()),
                TextTest::Matches(pattern) => Test::Matches(whole_text(pattern).map_err(setting)?),
            })
        };
        let rules = rules.iter().map(|rule| {
            let header = match &rule.header {
                Some((name, expected)) => Some((name.clone(), test(expected)?)),
                None => None,
            };
            let body = match &rule.body {
                Some((path, expected)) => Some((path.clone(), test(expected)?)),
                None => None,
            };
            Ok(Rule { status: rule.status.clone(), header, body, then: rule.then })
        });
        Ok(Self { rules: rules.collect::<Result<_, Error>>()? })
    }

    /// Tells what is to be done about an answer; nothing: it is a good one.
    pub(crate) fn judge(&self, response: &Response) -> Option<ErrorAction> {
        let ruled = self.rules.iter().find(|rule| rule.fits(response));
        if let Some(rule) = ruled {
            return Some(rule.then);
        }
        match response.status {
            200..=299 | 304 => None,
            408 | 425 | 429 | 500 | 502..=504 => Some(ErrorAction::Retry),
            _ => Some(ErrorAction::Fail),
        }
    }
}

impl Rule {
    fn fits(&self, response: &Response) -> bool {
        let status = response.status;
        let status_fits = self.status.is_empty()
            || self.status.iter().any(|(from, to)| (*from..=*to).contains(&status));
        status_fits
            && self.header.as_ref().is_none_or(|(name, test)| {
                header(&response.headers, name).is_some_and(|text| test.fits(text))
            })
            && self.body.as_ref().is_none_or(|(path, test)| {
                std::str::from_utf8(&response.body)
                    .ok()
                    .and_then(|body| first(body, path))
                    .is_some_and(|value| test.fits(&text_of(value)))
            })
    }
}

/// Tells in words what an answer says about a failure, without values.
pub(crate) fn told(place: &str, response: &Response) -> Error {
    let status = response.status;
    let hint = match status {
        300..=399 => "redirects are not followed: set `base_url` and `path` to where it leads",
        401 | 403 => "see whether the credentials are right and may read this",
        404 | 410 => "see whether `base_url` and `path` are right",
        429 => "the API wants fewer calls: give the pipeline a `quota`",
        _ => "see what the API expects, or say what this means with a rule under `errors`",
    };
    Error::stop(format!("{place} answered {status}"), hint)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reqwest::header::HeaderMap;

    use super::*;

    fn response(status: u16, body: &'static str) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert("x-code", "E7".parse().unwrap());
        Response {
            status,
            headers,
            body: Bytes::from_static(body.as_bytes()),
            took: std::time::Duration::ZERO,
            counted: false,
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rule = |status, header, body, then| ErrorRule { status, header, body, then };
        let code = JsonPath::parse("error.code").unwrap();
        let rules = Rules::new(&[
            rule(
                vec![],
                None,
                Some((code.clone(), TextTest::Matches("page_.*".to_owned()))),
                ErrorAction::RestartPaging,
            ),
            rule(vec![(404, 404), (410, 410)], None, None, ErrorAction::Ignore),
            rule(
                vec![(400, 499)],
                Some(("x-code".to_owned(), TextTest::Equals("E7".to_owned()))),
                None,
                ErrorAction::Retry,
            ),
        ])
        .unwrap();
        for (status, body, expected) in [
            (200, "[]", None),
            (200, r#"{"error":{"code":"page_gone"}}"#, Some(ErrorAction::RestartPaging)),
            (200, r#"{"error":{"code":"other"}}"#, None),
            (404, "not JSON", Some(ErrorAction::Ignore)),
            (418, "", Some(ErrorAction::Retry)),
            (503, "", Some(ErrorAction::Retry)),
            (501, "", Some(ErrorAction::Fail)),
            (302, "", Some(ErrorAction::Fail)),
        ] {
            assert_eq!(rules.judge(&response(status, body)), expected, "{status} {body}");
        }
    }
}
