use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::PipelineName;

/// A named call budget, shared by everything that calls the same system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Limits that hold at once, with different windows, at most [`Quota::MAX_LIMITS`]. Empty only
    /// if `concurrency` is given.
    pub limits: Vec<Limit>,
    /// Calls that may be going on at a time; at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Which calls count; the others are not held back.
    #[serde(default, skip_serializing_if = "Matching::is_everything")]
    pub matching: Matching,
    /// Share of each pipeline in comparison with the others while several wait: 1 to 1000, 1 for a
    /// pipeline that is not named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<PipelineName, u32>,
    /// Find out by the answers how much less than the limits the system takes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adaptive: bool,
}

/// So many calls in any window of time of a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Calls, at least one.
    pub calls: u32,
    /// Length of the window, one second to 31 days, in milliseconds.
    pub window_ms: u64,
}

/// Which calls a quota counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Matching {
    /// Methods in capitals; empty: all.
    pub methods: Vec<String>,
    /// Paths, in which `*` stands for any text; empty: all.
    pub paths: Vec<String>,
}

impl Quota {
    /// Most limits that one quota may have.
    pub const MAX_LIMITS: usize = 8;

    /// Returns the weight of a pipeline.
    #[must_use]
    pub fn weight(&self, pipeline: &str) -> u32 {
        self.weights.iter().find(|(name, _)| name.as_str() == pipeline).map_or(1, |(_, w)| *w)
    }
}

impl Limit {
    /// Returns the length of the window.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms)
    }
}

/// As in YAML: `5000/min`, `100/30s`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.calls)?;
        let units = [(86_400_000, "day", "d"), (3_600_000, "h", "h"), (60_000, "min", "m")];
        let units = units.into_iter().chain([(1_000, "s", "s"), (1, "ms", "ms")]);
        for (length, one, many) in units {
            if self.window_ms == length {
                return f.write_str(one);
            }
            if self.window_ms.is_multiple_of(length) {
                return write!(f, "{}{many}", self.window_ms / length);
            }
        }
        Ok(())
    }
}

impl Matching {
    /// Tells whether every call counts.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.methods.is_empty() && self.paths.is_empty()
    }

    /// Tells whether a call counts. The path has no query.
    #[must_use]
    pub fn matches(&self, method: &str, path: &str) -> bool {
        let methods = &self.methods;
        let of_method =
            methods.is_empty() || methods.iter().any(|m| m.eq_ignore_ascii_case(method));
        let paths = &self.paths;
        of_method && (paths.is_empty() || paths.iter().any(|pattern| is_like(pattern, path)))
    }
}

/// Tells whether a text fits a pattern in which `*` stands for any text.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [
            ("/v1/coupons", "/v1/coupons/7"),
            ("/v1/*", "/v2/coupons"),
            ("/v1/*/send", "/v1/7/sent"),
            ("*/a/*/a", "/x/a/a"),
            ("", "/"),
        ] {
            assert!(!is_like(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("/v1/coupons", "/v1/coupons"),
            ("/v1/coupons/*", "/v1/coupons/7/send"),
            ("/v1/*/send", "/v1/7/send"),
            ("*", ""),
            ("/*/b/*/b", "/b/b/b/b"),
        ] {
            assert!(is_like(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_quota_counts_what_matches_in_method_and_path() {
        let matching = Matching { methods: vec!["POST".into()], paths: vec!["/a/*".into()] };
        assert!(matching.matches("post", "/a/b"));
        assert!(!matching.matches("GET", "/a/b"));
        assert!(!matching.matches("POST", "/b"));
        assert!(Matching::default().matches("GET", "/"));
    }

    #[test]
    fn a_limit_reads_as_it_is_written() {
        for (window_ms, text) in [
            (1_000, "5/s"),
            (60_000, "5/min"),
            (3_600_000, "5/h"),
            (86_400_000, "5/day"),
            (30_000, "5/30s"),
            (172_800_000, "5/2d"),
        ] {
            assert_eq!(Limit { calls: 5, window_ms }.to_string(), text);
        }
    }
}
