use std::{collections::BTreeMap, time::Duration};

use model::{Limit, Matching, PipelineName, Quota};

use super::optional;
use crate::{
    Connection, NamedQuota, Places, Problem, Shared,
    problem::Problems,
    reader::At,
    yaml::{self, Value},
};

const KEYS: [&str; 2] = ["quotas", "connections"];

const QUOTA_REMEDY: &str = "write `<name>: {limits: [5000/min]}`";
const LIMIT_REMEDY: &str = "write calls and window: `5000/min`, `100/s`, `1000/h`, `20000/day` or \
                            `300/30s`";

const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(31 * 24 * 3600);
const MAX_CALLS: u32 = 1_000_000_000;
const MAX_WEIGHT: u32 = 1_000;

/// Tells whether a text holds what pipelines share, and not a pipeline.
#[must_use]
pub fn is_shared(yaml: &str) -> bool {
    let problems = Problems::new("");
    let Some(document) = yaml::read(yaml, &problems) else { return false };
    let Value::Map(entries) = &document.value else { return false };
    entries.first().is_some_and(|first| KEYS.contains(&first.key.as_str()))
}

/// Reads and checks what pipelines share. `file` names the text in messages.
///
/// # Errors
///
/// At least one problem, in the order of their lines. A text that is not YAML gives only the first
/// one.
pub fn parse_shared(file: &str, yaml: &str) -> Result<Shared, Vec<Problem>> {
    let problems = Problems::new(file);
    let shared = yaml::read(yaml, &problems).and_then(|document| {
        let mut lines = BTreeMap::new();
        yaml::lines(&document, "", &mut lines);
        let keys = At::root(&document, &problems).keys(&KEYS)?;
        let quotas = optional(&keys, "quotas", quotas);
        let connections = optional(&keys, "connections", connections);
        let places = Places::new(file, lines);
        Some(Shared { quotas: quotas?, connections: connections?, places })
    });
    match shared {
        Some(shared) if problems.is_empty() => Ok(shared),
        _ => Err(problems.into_vec()),
    }
}

/// Returns the entries of a map by name, without those whose name is noted as a problem.
fn named<'a>(at: &At<'a>, remedy: &str) -> Option<Vec<(PipelineName, At<'a>)>> {
    let entries = at.entries(remedy)?;
    Some(entries.into_iter().filter_map(|(key, at)| Some((name(key, &at)?, at))).collect())
}

fn name(text: String, at: &At<'_>) -> Option<PipelineName> {
    PipelineName::try_from(text)
        .map_err(|error| at.problem(error.to_string(), "choose another name"))
        .ok()
}

fn quotas(at: &At<'_>) -> Option<Vec<NamedQuota>> {
    let entries = named(at, QUOTA_REMEDY)?;
    let quotas: Vec<_> = entries
        .into_iter()
        .map(|(name, at)| Some(NamedQuota { name, quota: quota(&at)? }))
        .collect();
    quotas.into_iter().collect()
}

fn quota(at: &At<'_>) -> Option<Quota> {
    let keys = at.keys(&["limits", "concurrency", "match", "weights", "adaptive"])?;
    let limits = optional(&keys, "limits", limits);
    let concurrency = optional(&keys, "concurrency", |at| count(at, "calls").map(Some));
    let matching = optional(&keys, "match", matching);
    let weights = optional(&keys, "weights", weights);
    let adaptive = optional(&keys, "adaptive", At::boolean);
    let (limits, concurrency) = (limits?, concurrency?);
    if limits.is_empty() && concurrency.is_none() {
        at.problem("the quota limits nothing", "give `limits` or `concurrency`");
        return None;
    }
    Some(Quota { limits, concurrency, matching: matching?, weights: weights?, adaptive: adaptive? })
}

fn limits(at: &At<'_>) -> Option<Vec<Limit>> {
    let items = at.items("list the limits: `limits: [5000/min, 100/s]`")?;
    if items.is_empty() || items.len() > Quota::MAX_LIMITS {
        let message = format!("1 to {} limits are expected", Quota::MAX_LIMITS);
        at.problem(message, LIMIT_REMEDY);
        return None;
    }
    let mut limits: Vec<Limit> = Vec::new();
    let mut complete = true;
    for item in items {
        match limit(&item) {
            Some(limit) if limits.iter().any(|other| other.window_ms == limit.window_ms) => {
                item.problem("a second limit has the same window", "keep the lower one");
                complete = false;
            }
            Some(limit) => limits.push(limit),
            None => complete = false,
        }
    }
    complete.then_some(limits)
}

fn limit(at: &At<'_>) -> Option<Limit> {
    let text = at.text()?;
    let Some((calls, window)) = text.split_once('/').or_else(|| text.split_once(" per ")) else {
        at.problem(format!("`{text}` is not a limit"), LIMIT_REMEDY);
        return None;
    };
    let Some(calls) = calls.trim().parse().ok().filter(|calls| (1..=MAX_CALLS).contains(calls))
    else {
        at.problem(format!("`{calls}` is no number of calls from 1 to {MAX_CALLS}"), LIMIT_REMEDY);
        return None;
    };
    let window = match window.trim() {
        "s" | "second" => Some(Duration::from_secs(1)),
        "m" | "min" | "minute" => Some(Duration::from_secs(60)),
        "h" | "hour" => Some(Duration::from_secs(3600)),
        "d" | "day" => Some(Duration::from_secs(24 * 3600)),
        text => crate::reader::parse_duration(text),
    };
    let Some(window) = window.filter(|window| (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(window))
    else {
        at.problem(format!("`{text}` has no window of 1s to 31d"), LIMIT_REMEDY);
        return None;
    };
    let window_ms = u64::try_from(window.as_millis()).expect("31 days fit");
    Some(Limit { calls, window_ms })
}

fn count(at: &At<'_>, what: &str) -> Option<u32> {
    let number: u32 = at.number(&format!("a number of {what}"))?;
    if number == 0 {
        at.problem(format!("0 {what} would stop everything"), "write at least 1");
        return None;
    }
    Some(number)
}

fn matching(at: &At<'_>) -> Option<Matching> {
    let keys = at.keys(&["methods", "paths"])?;
    let methods = optional(&keys, "methods", |at| {
        let methods = at.names("list methods: `methods: [POST, PUT]`")?;
        if let Some(odd) = methods.iter().find(|m| !m.bytes().all(|b| b.is_ascii_uppercase())) {
            at.problem(format!("`{odd}` is no method"), "write methods in capitals: `[POST, PUT]`");
            return None;
        }
        Some(methods)
    });
    let paths = optional(&keys, "paths", |at| {
        let paths = at.names("list paths: `paths: [\"/v1/coupons/*\"]`")?;
        if let Some(odd) = paths.iter().find(|path| !path.starts_with(['/', '*'])) {
            at.problem(format!("`{odd}` is no path"), "begin paths with `/` or `*`");
            return None;
        }
        Some(paths)
    });
    Some(Matching { methods: methods?, paths: paths? })
}

fn weights(at: &At<'_>) -> Option<BTreeMap<PipelineName, u32>> {
    let entries = named(at, "write `weights: {<pipeline>: 3}`")?;
    let mut weights = BTreeMap::new();
    for (name, at) in entries {
        let weight = count(&at, "shares")?;
        if weight > MAX_WEIGHT {
            at.problem(format!("{weight} is too great a weight"), "write 1 to 1000");
            return None;
        }
        weights.insert(name, weight);
    }
    Some(weights)
}

fn connections(at: &At<'_>) -> Option<Vec<Connection>> {
    let entries = named(at, "write `<name>: {concurrent_runs: 1}`")?;
    let connections: Vec<_> = entries
        .into_iter()
        .map(|(name, at)| {
            let keys = at.keys(&["concurrent_runs"])?;
            let runs = keys.require("concurrent_runs", "write `concurrent_runs: 1`")?;
            Some(Connection { name, concurrent_runs: count(&runs, "runs")? })
        })
        .collect();
    connections.into_iter().collect()
}
