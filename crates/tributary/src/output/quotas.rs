//! Quotas and what was applied besides pipelines, for people and as JSON.

use prost_types::Duration;
use serde_json::{Value, json};
use wire::control::{AppliedShared, ListQuotasResponse, Quota};

use super::{
    json::change,
    table::{draw, grouped},
};

pub(crate) fn json(answer: &ListQuotasResponse) -> Value {
    json!({ "quotas": answer.quotas.iter().map(quota).collect::<Value>() })
}

fn quota(quota: &Quota) -> Value {
    let limits = quota.limits.iter().map(|limit| {
        json!({
            "limit": limit.limit,
            "calls": limit.calls,
            "window_seconds": seconds(limit.window.as_ref()),
            "used": limit.used,
        })
    });
    let waiting = quota
        .waiting
        .iter()
        .map(|waiting| json!({ "pipeline": waiting.pipeline, "calls": waiting.calls }));
    json!({
        "name": quota.name,
        "limits": limits.collect::<Value>(),
        "concurrency": (quota.concurrency > 0).then_some(quota.concurrency),
        "outstanding": quota.outstanding,
        "waiting": waiting.collect::<Value>(),
        "estimate_seconds": seconds(quota.estimate.as_ref()),
        "paused_seconds": seconds(quota.paused.as_ref()),
        "left": quota.left,
        "share": quota.share,
        "calls": quota.calls,
        "refused": quota.refused,
        "processes": quota.processes,
        "pipelines": quota.pipelines,
        "unknown": (!quota.unknown.is_empty()).then_some(&quota.unknown),
    })
}

#[expect(clippy::cast_precision_loss, reason = "seconds are few")]
fn seconds(duration: Option<&Duration>) -> Option<f64> {
    duration.map(|duration| duration.seconds as f64 + f64::from(duration.nanos) / 1e9)
}

pub(crate) fn text(answer: &ListQuotasResponse) -> String {
    if answer.quotas.is_empty() {
        return "there are no quotas; declare some under `quotas` in a file beside the pipelines\n"
            .to_owned();
    }
    let mut rows = Vec::new();
    let mut remarks = Vec::new();
    for quota in &answer.quotas {
        let waiting: u64 = quota.waiting.iter().map(|waiting| waiting.calls).sum();
        let known = quota.unknown.is_empty();
        let number = |number: u64| if known { grouped(number) } else { "?".to_owned() };
        let mut uses: Vec<(String, String)> = quota
            .limits
            .iter()
            .map(|limit| {
                let percent = limit.used * 100 / u64::from(limit.calls.max(1));
                let used = format!("{} ({percent}%)", number(limit.used));
                (limit.limit.clone(), if known { used } else { "?".to_owned() })
            })
            .collect();
        if quota.concurrency > 0 {
            let limit = format!("{} at a time", quota.concurrency);
            uses.push((limit, number(quota.outstanding)));
        }
        for (index, (limit, used)) in uses.into_iter().enumerate() {
            let first = |text: String| if index == 0 { text } else { String::new() };
            rows.push(vec![
                first(quota.name.clone()),
                limit,
                used,
                first(number(waiting)),
                first(quota.estimate.as_ref().map_or_else(String::new, span)),
                first(number(quota.calls)),
                first(number(quota.refused)),
                first(quota.pipelines.join(", ")),
            ]);
        }
        remarks.extend(remark(quota));
    }
    let heading = ["QUOTA", "LIMIT", "USED", "WAITING", "DONE IN", "CALLS", "REFUSED", "PIPELINES"];
    let mut text = draw(&heading, &[2, 3, 4, 5, 6], rows);
    text.extend(remarks);
    text
}

/// What a table has no place for.
fn remark(quota: &Quota) -> Vec<String> {
    let name = &quota.name;
    let mut remarks = Vec::new();
    if !quota.unknown.is_empty() {
        remarks.push(format!("{name}: the use is not known: {}\n", quota.unknown));
    }
    for waiting in &quota.waiting {
        let calls = if waiting.calls == 1 { "call waits" } else { "calls wait" };
        let count = grouped(waiting.calls);
        remarks.push(format!("{name}: {count} {calls} for pipeline {}\n", waiting.pipeline));
    }
    if let Some(paused) = &quota.paused {
        remarks.push(format!("{name}: paused for {}, as the peer asked\n", span(paused)));
    }
    if let Some(left) = quota.left {
        remarks.push(format!("{name}: the peer leaves {} calls until its reset\n", grouped(left)));
    }
    if quota.share < 1.0 {
        let percent = quota.share * 100.0;
        remarks.push(format!("{name}: the peer seems to take {percent:.0}% of the limits\n"));
    }
    remarks
}

/// A span of time for people.
fn span(duration: &Duration) -> String {
    let tenths = duration.nanos / 100_000_000;
    match duration.seconds.max(0) {
        seconds if seconds < 60 => format!("{seconds}.{tenths}s"),
        seconds if seconds < 3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}

pub(crate) fn shared_json(shared: &[AppliedShared]) -> Value {
    shared
        .iter()
        .map(|shared| {
            json!({
                "kind": shared.kind,
                "name": shared.name,
                "change": change(shared.change()),
            })
        })
        .collect()
}

pub(crate) fn shared_text(shared: &[AppliedShared]) -> String {
    if shared.is_empty() {
        return String::new();
    }
    let rows =
        shared.iter().map(|s| vec![s.name.clone(), s.kind.clone(), change(s.change()).to_owned()]);
    draw(&["SHARED", "KIND", "CHANGE"], &[], rows.collect())
}

#[cfg(test)]
mod tests {
    use wire::control::{QuotaLimit, QuotaWaiting};

    use super::*;

    fn mail() -> Quota {
        let duration = |seconds| Some(Duration { seconds, nanos: 500_000_000 });
        let limit = |limit: &str, calls, used| QuotaLimit {
            limit: limit.to_owned(),
            calls,
            window: duration(60),
            used,
        };
        Quota {
            name: "mail".to_owned(),
            limits: vec![limit("5000/min", 5_000, 4_200), limit("100/s", 100, 7)],
            concurrency: 8,
            outstanding: 3,
            waiting: vec![QuotaWaiting { pipeline: "coupons".to_owned(), calls: 1_200 }],
            estimate: duration(75),
            share: 0.7,
            calls: 9_001,
            pipelines: vec!["coupons".to_owned()],
            ..Quota::default()
        }
    }

    #[test]
    fn a_quota_has_a_line_per_limit_and_tells_what_waits() {
        let text = text(&ListQuotasResponse { quotas: vec![mail()] });
        let words: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let first =
            ["mail", "5000/min", "4,200", "(84%)", "1,200", "1m15s", "9,001", "0", "coupons"];
        assert_eq!(words[1], first);
        assert_eq!(words[2], ["100/s", "7", "(7%)"]);
        assert_eq!(words[3], ["8", "at", "a", "time", "3"]);
        assert!(text.contains("mail: 1,200 calls wait for pipeline coupons\n"), "{text}");
        assert!(text.contains("70%"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_shown_as_nothing() {
        let quota = Quota { unknown: "the broker is away".to_owned(), ..mail() };
        let text = text(&ListQuotasResponse { quotas: vec![quota] });
        assert!(text.contains("the broker is away") && text.contains('?'), "{text}");
    }
}
