//! What an answer means.

use std::time::Duration;

use chrono::Utc;
use connect::Error;
use regex::Regex;
use reqwest::header::HeaderMap;
use serde_json::Value;
use spec::{AnswerRule, JsonPath, PathStep, TextTest, Verdict};

use super::super::{client::header, delay};

/// Greatest wait that an answer may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// What became of a record, or of all records of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is there.
    Done,
    /// It is refused.
    Rejected(String),
    /// It did not happen, or may be repeated without harm.
    Failed(Failed),
    /// It may have happened, and a second call could do harm.
    Unknown(String),
    /// Nothing gets through until somebody has acted: what happened, and what to do.
    Stopped(String, String),
}

/// A call that may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) reason: String,
    /// Delay that the API asked for.
    pub(crate) after: Option<Duration>,
    /// Others will fail as well.
    pub(crate) whole: bool,
}

/// The rules of a target.
pub(crate) struct Judge {
    rules: Vec<(AnswerRule, Option<Regex>, Option<Regex>)>,
    idempotent: bool,
}

/// An answer, or the part of it that speaks of one record.
pub(crate) struct Told<'a> {
    pub(crate) status: u16,
    pub(crate) headers: &'a HeaderMap,
    /// The JSON that speaks of the record, if there is any.
    pub(crate) body: Option<&'a Value>,
    pub(crate) delete: bool,
}

impl Judge {
    /// Takes the rules of a target.
    ///
    /// # Errors
    ///
    /// When a regular expression cannot be used.
    pub(crate) fn new(rules: &[AnswerRule], idempotent: bool) -> Result<Self, Error> {
        let regex = |test: Option<&TextTest>| match test {
            Some(TextTest::Matches(pattern)) => {
                spec::format::whole_text(pattern).map(Some).map_err(|cause| {
                    Error::stop("a rule of `answers` cannot be used", "correct it").because(cause)
                })
            }
            Some(TextTest::Present | TextTest::Equals(_)) | None => Ok(None),
        };
        let rules = rules.iter().map(|rule| {
            let header = regex(rule.header.as_ref().map(|(_, test)| test))?;
            let body = regex(rule.body.as_ref().map(|(_, test)| test))?;
            Ok((rule.clone(), header, body))
        });
        Ok(Self { rules: rules.collect::<Result<_, Error>>()?, idempotent })
    }

    /// Says what an answer means.
    ///
    /// # Errors
    ///
    /// Stops the run where nobody gets through any more.
    pub(crate) fn judge(&self, told: &Told<'_>) -> Result<Fate, Error> {
        let rule = self.rules.iter().find(|(rule, header, body)| {
            fits_status(&rule.status, told.status)
                && rule.header.as_ref().is_none_or(|(name, test)| {
                    fits(test, header.as_ref(), self::header(told.headers, name))
                })
                && rule.body.as_ref().is_none_or(|(path, test)| {
                    let found = told.body.and_then(|body| select(body, path));
                    let text = found.filter(|value| !value.is_null()).map(ToString::to_string);
                    fits(test, body.as_ref(), text.as_deref().map(spec::text_of).as_deref())
                })
        });
        let status = told.status;
        let reason = format!("the API answered {status}");
        let failed = |whole| {
            Fate::Failed(Failed {
                reason: reason.clone(),
                after: delay::retry_after(told.headers, Utc::now())
                    .map(|wait| wait.min(LONGEST_WAIT)),
                whole,
            })
        };
        let verdict = match rule {
            Some((rule, ..)) => rule.then,
            None => match status {
                200..=299 => Verdict::Success,
                404 | 410 if told.delete => Verdict::Success,
                408 | 425 | 429 => Verdict::Retry,
                500..=599 if status != 503 && !self.idempotent => {
                    return Ok(Fate::Unknown(reason));
                }
                500..=599 => Verdict::Retry,
                401 | 403 | 407 | 300..=399 => Verdict::Stop,
                _ => Verdict::Reject,
            },
        };
        match verdict {
            Verdict::Success => Ok(Fate::Done),
            Verdict::Retry => Ok(failed(matches!(status, 429 | 502..=504))),
            Verdict::Reject => Ok(Fate::Rejected(reason)),
            Verdict::Stop => Err(Error::stop(
                reason,
                match status {
                    300..=399 => "redirects are not followed: name the final address in `base_url`",
                    _ => "correct the credentials or the request, then run the pipeline again",
                },
            )),
        }
    }
}

fn fits_status(ranges: &[(u16, u16)], status: u16) -> bool {
    ranges.is_empty() || ranges.iter().any(|(from, to)| (*from..=*to).contains(&status))
}

fn fits(test: &TextTest, regex: Option<&Regex>, found: Option<&str>) -> bool {
    let Some(found) = found else { return false };
    match test {
        TextTest::Present => true,
        TextTest::Equals(text) => text == found,
        TextTest::Matches(_) => regex.is_some_and(|regex| regex.is_match(found)),
    }
}

/// Returns the first value at a path.
pub(crate) fn select<'a>(value: &'a Value, path: &JsonPath) -> Option<&'a Value> {
    path.steps.iter().try_fold(value, |value, step| match step {
        PathStep::Key(key) => value.get(key),
        PathStep::Index(index) => {
            let items = value.as_array()?;
            let index = match usize::try_from(*index) {
                Ok(index) => index,
                Err(_) => items.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
            };
            items.get(index)
        }
        PathStep::All => match value {
            Value::Array(items) => items.first(),
            Value::Object(members) => members.values().next(),
            _ => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: u16, body: Option<&Value>) -> Told<'_> {
        static NONE: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
        Told { status, headers: &NONE, body, delete: false }
    }

    #[test]
    fn what_may_have_happened_is_unknown_only_where_it_could_do_harm() {
        let judge = |idempotent| Judge::new(&[], idempotent).unwrap();
        for status in [500, 502, 504] {
            assert!(matches!(judge(false).judge(&told(status, None)), Ok(Fate::Unknown(_))));
            assert!(matches!(judge(true).judge(&told(status, None)), Ok(Fate::Failed(_))));
        }
        for status in [429, 503] {
            assert!(matches!(
                judge(false).judge(&told(status, None)),
                Ok(Fate::Failed(Failed { whole: true, .. }))
            ));
        }
        for status in [302, 401, 403] {
            assert!(judge(true).judge(&told(status, None)).is_err(), "{status}");
        }
        assert!(matches!(judge(true).judge(&told(422, None)), Ok(Fate::Rejected(_))));
        let gone = Told { delete: true, ..told(404, None) };
        assert_eq!(judge(true).judge(&gone).unwrap(), Fate::Done);
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rule = |status, body: Option<(&str, TextTest)>, then| AnswerRule {
            status,
            header: None,
            body: body.map(|(path, test)| (JsonPath::parse(path).unwrap(), test)),
            then,
        };
        let rules = [
            rule(vec![(409, 409)], None, Verdict::Success),
            rule(
                vec![(200, 200)],
                Some(("error.code", TextTest::Matches("rate_.*".to_owned()))),
                Verdict::Retry,
            ),
            rule(vec![], Some(("error", TextTest::Present)), Verdict::Reject),
        ];
        let judge = Judge::new(&rules, true).unwrap();
        let fate = |status, body: Value| judge.judge(&told(status, Some(&body))).unwrap();
        assert_eq!(fate(409, json!({"error": 1})), Fate::Done);
        assert!(matches!(fate(200, json!({"error": {"code": "rate_limited"}})), Fate::Failed(_)));
        assert!(matches!(fate(200, json!({"error": {"code": "a"}})), Fate::Rejected(_)));
        assert_eq!(fate(200, json!({"error": null})), Fate::Done);
    }
}
