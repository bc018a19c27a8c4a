//! The table for people and the file for programs.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use serde_json::{Value, json};

use crate::measure::Measured;

/// All rounds of one case.
#[derive(Debug)]
pub(crate) struct Case {
    name: &'static str,
    limit_name: &'static str,
    rows: u64,
    /// What we took, round by round.
    pub(crate) ours: Vec<Measured>,
    /// What PostgreSQL alone took.
    pub(crate) limit: Vec<Measured>,
}

impl Case {
    pub(crate) fn new(name: &'static str, limit_name: &'static str, rows: u64) -> Self {
        Self { name, limit_name, rows, ours: Vec::new(), limit: Vec::new() }
    }

    fn ours_s(&self) -> f64 {
        median(self.ours.iter().map(|round| round.seconds))
    }

    fn limit_s(&self) -> f64 {
        median(self.limit.iter().map(|round| round.seconds))
    }

    fn json(&self) -> Value {
        json!({
            "case": self.name,
            "rows": self.rows,
            "ours_s": rounded(self.ours_s()),
            "limit_s": rounded(self.limit_s()),
            "limit": self.limit_name,
            "ratio": rounded(self.ours_s() / self.limit_s()),
            "rounds": {
                "ours_s": self.ours.iter().map(|round| rounded(round.seconds)).collect::<Vec<_>>(),
                "limit_s": self.limit.iter().map(|round| rounded(round.seconds)).collect::<Vec<_>>(),
            },
            "cpu_s": medians(&self.ours, |round| &round.cpu_s),
            "peak_rss_mb": medians(&self.ours, |round| &round.peak_mib),
            "limit_cpu_s": medians(&self.limit, |round| &round.cpu_s)["postgres"],
            "processes": "one of each service, as separate processes",
        })
    }
}

/// Prints the medians as a table.
#[expect(clippy::print_stdout, reason = "the table is the result")]
pub(crate) fn print(cases: &[Case]) {
    println!("{:<42}{:>9}{:>9}{:>8}{:>12}", "case", "ours", "limit", "ratio", "rows/s");
    for case in cases {
        let (ours, limit) = (case.ours_s(), case.limit_s());
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let speed = case.rows as f64 / ours;
        println!("{:<42}{ours:>7.2} s{limit:>7.2} s{:>8.2}{speed:>12.0}", case.name, ours / limit);
    }
    for case in cases {
        println!("\n{}: CPU seconds and peak MiB of every process", case.name);
        let (cpu, peak) = (
            medians(&case.ours, |round| &round.cpu_s),
            medians(&case.ours, |round| &round.peak_mib),
        );
        for (name, seconds) in &cpu {
            println!("  {name:<14}{seconds:>8.2} s{:>9.1} MiB", peak[name]);
        }
        let alone = medians(&case.limit, |round| &round.cpu_s)["postgres"];
        println!("  limit ({}): postgres {alone:.2} s of CPU", case.limit_name);
    }
}

/// Writes the medians and all rounds as JSON.
pub(crate) fn write(cases: &[Case], path: &Path) -> anyhow::Result<()> {
    let list: Vec<Value> = cases.iter().map(Case::json).collect();
    let text = serde_json::to_string_pretty(&list)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Adds a case of another kind to what was written.
pub(crate) fn add(path: &Path, case: Value) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut list: Vec<Value> = serde_json::from_str(&text)?;
    list.push(case);
    let text = serde_json::to_string_pretty(&list)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn medians(
    rounds: &[Measured],
    of: impl Fn(&Measured) -> &BTreeMap<String, f64>,
) -> BTreeMap<String, f64> {
    let names = rounds.first().map(|round| of(round).keys().cloned().collect::<Vec<_>>());
    let median_of = |name: String| {
        let value = median(rounds.iter().filter_map(|round| of(round).get(&name).copied()));
        (name, rounded(value))
    };
    names.unwrap_or_default().into_iter().map(median_of).collect()
}

/// Returns the middle of the values.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
