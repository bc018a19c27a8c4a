//! How long to wait before a call is repeated.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::Rng;
use reqwest::header::HeaderMap;
use spec::HttpRetry;

/// Returns the wait before the repetition number `repetition`, from 1: a random time below a bound
/// that doubles.
pub(crate) fn backoff(retry: &HttpRetry, repetition: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(repetition.saturating_sub(1).min(30));
    let bound = retry.first.saturating_mul(doubled).min(retry.most);
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rand::rng().random_range(0..=nanos))
}

/// Returns the wait that an answer asks for: in seconds, or until a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds >= 0.0)
            .then(|| Duration::try_from_secs_f64(seconds.min(1e9)).unwrap_or(Duration::MAX));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?.with_timezone(&Utc);
    Some((date - now).to_std().unwrap_or(Duration::ZERO))
}

/// Returns how many calls an answer says are left.
pub(crate) fn remaining(headers: &HeaderMap) -> Option<u64> {
    number(headers, &["x-ratelimit-remaining", "ratelimit-remaining", "x-rate-limit-remaining"])
}

/// Returns when an answer says that its count of calls begins again.
pub(crate) fn reset(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let number = number(headers, &["x-ratelimit-reset", "ratelimit-reset", "x-rate-limit-reset"])?;
    // Some name the moment, others the distance.
    let now = u64::try_from(now.timestamp()).unwrap_or(0);
    let seconds = if number > now / 2 { number.saturating_sub(now) } else { number };
    Some(Duration::from_secs(seconds.min(24 * 60 * 60)))
}

fn number(headers: &HeaderMap, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| headers.get(*name)?.to_str().ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            reqwest::header::HeaderName::from_static(name),
            value.parse().unwrap(),
        )])
    }

    #[test]
    fn a_wait_is_a_number_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-11-23T22:00:00Z").unwrap().with_timezone(&Utc);
        for (text, seconds) in [
            ("soon", None),
            ("-5", None),
            ("", None),
            ("NaN", None),
            ("7", Some(7)),
            ("Mon, 23 Nov 2026 22:00:30 GMT", Some(30)),
            ("Mon, 23 Nov 2026 21:00:30 GMT", Some(0)),
        ] {
            let found = retry_after(&headers("retry-after", text), now);
            assert_eq!(found.map(|wait| wait.as_secs()), seconds, "{text}");
        }
        assert!(retry_after(&headers("retry-after", "1e300"), now).is_some());
    }

    #[test]
    fn a_reset_is_a_moment_or_a_distance() {
        let now = DateTime::parse_from_rfc3339("2026-11-23T22:00:00Z").unwrap().with_timezone(&Utc);
        let moment = (now.timestamp() + 40).to_string();
        assert_eq!(reset(&headers("x-ratelimit-reset", &moment), now).unwrap().as_secs(), 40);
        assert_eq!(reset(&headers("ratelimit-reset", "12"), now).unwrap().as_secs(), 12);
    }

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let retry = HttpRetry::default();
        let longest = (0..200).map(|_| backoff(&retry, 30)).max().unwrap();
        assert!(longest <= retry.most && longest > retry.most / 2);
        assert!((0..200).all(|_| backoff(&retry, 1) <= retry.first));
        assert_ne!(backoff(&retry, 9), backoff(&retry, 9));
    }
}
