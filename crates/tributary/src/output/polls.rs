//! What polling costs and brings, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};
use wire::control::{PollEstimate, PolledPipeline};

use super::table::{draw, grouped, indented};

pub(crate) fn json(polled: &[PolledPipeline]) -> Value {
    json!({ "pipelines": polled.iter().map(pipeline).collect::<Value>() })
}

fn pipeline(polled: &PolledPipeline) -> Value {
    json!({
        "pipeline": polled.pipeline,
        "triggers": polled.triggers,
        "interval_seconds": seconds(polled.interval.as_ref()),
        "polls": polled.polls,
        "polls_without_news": polled.polls_without_news,
        "changes": polled.changes,
        "calls": polled.calls,
        "received_bytes": polled.received_bytes,
        "freshness": polled.freshness.as_ref().map(|freshness| json!({
            "median_seconds": seconds(freshness.median.as_ref()),
            "p95_seconds": seconds(freshness.p95.as_ref()),
            "measured": freshness.measured,
        })),
        "estimates": polled.estimates.iter().map(|estimate| json!({
            "interval_seconds": seconds(estimate.interval.as_ref()),
            "polls_per_day": estimate.polls_per_day,
            "calls_per_day": estimate.calls_per_day,
            "received_bytes_per_day": estimate.received_bytes_per_day,
            "share_without_news": estimate.share_without_news,
            "freshness_median_seconds": seconds(estimate.freshness_median.as_ref()),
            "freshness_p95_seconds": seconds(estimate.freshness_p95.as_ref()),
            "present": estimate.present,
        })).collect::<Value>(),
    })
}

pub(crate) fn text(polled: &[PolledPipeline]) -> String {
    if polled.is_empty() {
        return "no pipeline is polled; give one `triggers: {every: 10m}`\n".to_owned();
    }
    polled.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn one(polled: &PolledPipeline) -> String {
    let share = match polled.polls {
        0 => String::new(),
        polls => format!(" ({:.0} %)", percent(polled.polls_without_news, polls)),
    };
    let freshness = polled.freshness.as_ref().map_or_else(
        || "unknown: no `newest_by` tells when a record has changed".to_owned(),
        |freshness| {
            format!(
                "half of {} changes within {}, 95 % within {}",
                grouped(freshness.measured),
                words(freshness.median.as_ref()),
                words(freshness.p95.as_ref())
            )
        },
    );
    let rows = [
        ("polls", grouped(polled.polls)),
        ("without news", format!("{}{share}", grouped(polled.polls_without_news))),
        ("changes", grouped(polled.changes)),
        ("calls", grouped(polled.calls)),
        ("received", bytes(polled.received_bytes)),
        ("freshness", freshness),
    ];
    let mut text = format!("{}: {}\n", polled.pipeline, polled.triggers);
    for (name, value) in rows {
        text.push_str(&format!("  {name:<13} {value}\n"));
    }
    if !polled.estimates.is_empty() {
        text.push_str("  other intervals, by this history:\n");
        let heading =
            ["INTERVAL", "CALLS/DAY", "RECEIVED/DAY", "WITHOUT NEWS", "HALF WITHIN", "95 % WITHIN"];
        let rows = polled.estimates.iter().map(estimate).collect();
        text.push_str(&indented(&draw(&heading, &[1, 2, 3, 4, 5], rows), 4));
    }
    text
}

fn estimate(estimate: &PollEstimate) -> Vec<String> {
    let present = if estimate.present { " (now)" } else { "" };
    vec![
        format!("{}{present}", words(estimate.interval.as_ref())),
        grouped(whole(estimate.calls_per_day)),
        bytes(whole(estimate.received_bytes_per_day)),
        format!("{:.0} %", estimate.share_without_news * 100.0),
        words(estimate.freshness_median.as_ref()),
        words(estimate.freshness_p95.as_ref()),
    ]
}

fn seconds(duration: Option<&prost_types::Duration>) -> Option<f64> {
    let duration = Duration::try_from(*duration?).ok()?;
    Some(duration.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "a share needs few digits")]
fn percent(part: u64, of: u64) -> f64 {
    part as f64 * 100.0 / of as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "estimates are finite and not negative"
)]
fn whole(number: f64) -> u64 {
    number.round().max(0.0) as u64
}

/// A duration with two digits that count: `850ms`, `4.2s`, `3m 20s`, `2h 5m`.
fn words(duration: Option<&prost_types::Duration>) -> String {
    let Some(seconds) = seconds(duration) else { return "-".to_owned() };
    let parts = |large: u64, small: u64, names: (&str, &str)| match small {
        0 => format!("{large}{}", names.0),
        _ => format!("{large}{} {small}{}", names.0, names.1),
    };
    let all = whole(seconds);
    match seconds {
        ..1.0 => format!("{:.0}ms", seconds * 1_000.0),
        ..60.0 if seconds.fract() < 0.05 => format!("{all}s"),
        ..60.0 => format!("{seconds:.1}s"),
        ..3_600.0 => parts(all / 60, all % 60, ("m", "s")),
        ..86_400.0 => parts(all / 3_600, all % 3_600 / 60, ("h", "m")),
        _ => parts(all / 86_400, all % 86_400 / 3_600, ("d", "h")),
    }
}

/// A size in its largest unit.
fn bytes(size: u64) -> String {
    let mut size_in_unit = percent(size, 100);
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size_in_unit < 1_024.0 {
            return if unit == "B" {
                format!("{size} B")
            } else {
                format!("{size_in_unit:.1} {unit}")
            };
        }
        size_in_unit /= 1_024.0;
    }
    format!("{size_in_unit:.1} TiB")
}

#[cfg(test)]
mod tests {
    use prost_types::Duration as Wire;

    use super::*;

    #[test]
    fn durations_and_sizes_are_short() {
        let of = |ms| words(Some(&Wire::try_from(Duration::from_millis(ms)).unwrap()));
        let found = [850, 4_000, 4_230, 200_000, 7_500_000, 90_000_000].map(of);
        assert_eq!(found, ["850ms", "4s", "4.2s", "3m 20s", "2h 5m", "1d 1h"]);
        assert_eq!([0, 1_023, 2_048, 5 << 20].map(bytes), ["0 B", "1023 B", "2.0 KiB", "5.0 MiB"]);
    }

    #[test]
    fn an_unmeasured_pipeline_says_why() {
        let polled = PolledPipeline {
            pipeline: "orders".to_owned(),
            triggers: "every 10m".to_owned(),
            polls: 4,
            polls_without_news: 3,
            calls: 5,
            ..PolledPipeline::default()
        };
        let text = text(&[polled]);
        assert!(text.contains("without news  3 (75 %)"), "{text}");
        assert!(text.contains("no `newest_by`"), "{text}");
    }
}
