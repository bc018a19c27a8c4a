//! How far a run is: a bar per stage on a terminal, a line per change elsewhere.

use std::{collections::HashMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use wire::control::{Ledger, Run};

use super::table::grouped;

/// Shows the progress of one run on stderr.
pub(crate) enum Progress {
    /// Bars that move.
    Bars(Bars),
    /// The last line that was printed.
    Lines(String),
}

impl Progress {
    pub(crate) fn new(terminal: bool) -> Self {
        if terminal { Self::Bars(Bars::default()) } else { Self::Lines(String::new()) }
    }

    /// Shows where the run stands now.
    pub(crate) fn show(&mut self, run: &Run) {
        let ledger = run.ledger.clone().unwrap_or_default();
        match self {
            Self::Bars(bars) => bars.show(&stages(&ledger), &run.reason),
            Self::Lines(last) => {
                let line = line(run, &ledger);
                if *last != line {
                    eprintln!("{line}");
                    *last = line;
                }
            }
        }
    }

    /// Takes the bars away; lines stay.
    pub(crate) fn end(&self) {
        if let Self::Bars(bars) = self {
            for bar in bars.by_stage.values() {
                bar.finish_and_clear();
            }
        }
    }
}

/// Where a stage stands: `done` of `total`, which may still grow.
#[derive(Debug, PartialEq)]
struct Stage {
    name: String,
    done: u64,
    total: u64,
    total_is_final: bool,
    unit: &'static str,
}

fn stages(ledger: &Ledger) -> Vec<Stage> {
    let stage = |name: &str, done, total, unit| Stage {
        name: name.to_owned(),
        done,
        total,
        total_is_final: ledger.extraction_ended,
        unit,
    };
    let mut stages = vec![
        stage("extracted", ledger.extracted, ledger.extracted, "records"),
        stage("transformed", ledger.batches_transformed, ledger.batches, "batches"),
    ];
    let wanted = ledger.extracted.saturating_sub(ledger.filtered + ledger.quarantined);
    for target in &ledger.targets {
        let done = target.loaded + target.unchanged + target.quarantined;
        stages.push(stage(&format!("loaded {}", target.target), done, wanted, "records"));
    }
    stages
}

fn line(run: &Run, ledger: &Ledger) -> String {
    let mut parts: Vec<String> = stages(ledger)
        .iter()
        .map(|stage| format!("{} {}/{}", stage.name, grouped(stage.done), grouped(stage.total)))
        .collect();
    if !run.reason.is_empty() {
        parts.push(run.reason.clone());
    }
    format!("{}: {}", super::json::state(run.state()), parts.join(", "))
}

/// One bar per stage, made when the stage first shows up.
#[derive(Default)]
pub(crate) struct Bars {
    all: MultiProgress,
    by_stage: HashMap<String, ProgressBar>,
}

impl Bars {
    fn show(&mut self, stages: &[Stage], waits_for: &str) {
        for stage in stages {
            let bar = self.by_stage.entry(stage.name.clone()).or_insert_with(|| {
                let bar = self.all.add(ProgressBar::new(0).with_style(style()));
                bar.enable_steady_tick(Duration::from_millis(200));
                bar.set_prefix(stage.name.clone());
                bar
            });
            bar.set_length(stage.total);
            bar.set_position(stage.done);
            let more = if stage.total_is_final { "" } else { ", reading" };
            let last = if waits_for.is_empty() { String::new() } else { format!("; {waits_for}") };
            // At the speed of the last seconds.
            let left = if stage.total_is_final && stage.done > 0 && stage.done < stage.total {
                format!(", about {} s left", bar.eta().as_secs().max(1))
            } else {
                String::new()
            };
            bar.set_message(format!("{}{more}{left}{last}", stage.unit));
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:<24!} {wide_bar} {human_pos}/{human_len} {msg}")
        .expect("the template is constant and right")
}

#[cfg(test)]
mod tests {
    use wire::control::{RunState, TargetLedger};

    use super::*;

    #[test]
    fn a_line_tells_every_stage() {
        let ledger = Ledger {
            extracted: 1000,
            batches: 4,
            batches_transformed: 2,
            filtered: 10,
            quarantined: 1,
            targets: vec![TargetLedger {
                target: "store".to_owned(),
                loaded: 400,
                unchanged: 80,
                quarantined: 2,
                ..TargetLedger::default()
            }],
            ..Ledger::default()
        };
        let run = Run { state: RunState::Running.into(), ..Run::default() };
        assert_eq!(
            line(&run, &ledger),
            "running: extracted 1,000/1,000, transformed 2/4, loaded store 482/989"
        );
    }
}
