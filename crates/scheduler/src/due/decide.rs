//! What becomes of the due times of one pipeline: which take place, which are skipped and why. Pure:
//! the clock and what goes on come from outside, and all schedulers that see the same decide the
//! same.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use model::PipelineName;
use spec::{CatchUp, Overlap, Triggers};
use store::{Schedule, Skip, Trigger};

use super::{
    times::{Time, Times},
    windows::{is_open, opens_at, shown},
};

/// Due times that are looked at together. What is left is looked at next.
const MOST_TIMES: usize = 1_000;

/// Runs of a pipeline that may wait for each other.
const MOST_WAITING: usize = 100;

/// What a decision is made of.
#[derive(Debug)]
pub(crate) struct Situation<'a> {
    pub(crate) pipeline: &'a PipelineName,
    pub(crate) triggers: &'a Triggers,
    /// The schedule as it is stored.
    pub(crate) schedule: Option<&'a Schedule>,
    /// When the last run of each pipeline in `after` has succeeded.
    pub(crate) successes: &'a BTreeMap<PipelineName, DateTime<Utc>>,
    /// The run of the pipeline that goes on or pauses, by id.
    pub(crate) going: Option<String>,
    /// Runs of the pipeline that wait.
    pub(crate) waiting: usize,
    pub(crate) now: DateTime<Utc>,
    /// A due time that is seen later was missed.
    pub(crate) on_time: Duration,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The schedule from now on.
    pub(crate) then: Schedule,
    /// Runs that take place, in order.
    pub(crate) runs: Vec<Due>,
    pub(crate) skips: Vec<(Skip, Trigger)>,
    /// The older runs of the pipeline give way.
    pub(crate) cancel: bool,
}

/// A run that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) at: DateTime<Utc>,
    pub(crate) trigger: Trigger,
    /// The same for everybody.
    pub(crate) key: String,
}

impl Due {
    fn timed(time: Time) -> Self {
        let micros = time.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        Self { at: time.at, trigger: time.trigger, key: format!("at {micros}") }
    }
}

/// Decides. `None`: there is nothing to do.
pub(crate) fn decide(of: &Situation<'_>) -> Option<Decision> {
    if of.triggers.every.is_none() && of.triggers.cron.is_empty() && of.triggers.after.is_empty() {
        return None;
    }
    let written = written(of.triggers);
    let known = of.schedule.filter(|schedule| schedule.triggers == written);
    // New triggers begin now: an interval with a run at once, the others with what comes.
    let known = known.filter(|schedule| !was_set_back(of, schedule));
    let before = known.cloned().unwrap_or_else(|| Schedule {
        triggers: written,
        anchor_at: of.now,
        handled_until: of.now - TimeDelta::microseconds(1),
        after_seen: of.successes.clone(),
    });
    let mut decision =
        Decision { then: before.clone(), runs: Vec::new(), skips: Vec::new(), cancel: false };
    by_time(of, &before, &mut decision);
    by_success(of, &before, &mut decision);
    (known.is_none() || decision.then != before).then_some(decision)
}

/// Times that are handled lie too far ahead: they were by a clock that has been set back. Waiting until
/// they come again would stop an interval for as long. A time of the calendar keeps its key and does not
/// take place twice.
fn was_set_back(of: &Situation<'_>, schedule: &Schedule) -> bool {
    (schedule.handled_until - of.now).to_std().is_ok_and(|ahead| ahead > of.on_time)
}

/// What tells whether the triggers are those that a schedule was kept for.
fn written(triggers: &Triggers) -> String {
    let mut parts = Vec::new();
    if let Some(every) = triggers.every {
        parts.push(format!("every {} {}", every.interval.as_millis(), every.jitter.as_millis()));
    }
    for cron in &triggers.cron {
        parts.push(format!("cron {} {}", cron.as_str(), triggers.timezone));
    }
    for name in &triggers.after {
        parts.push(format!("after {name}"));
    }
    parts.join("; ")
}

fn by_time(of: &Situation<'_>, before: &Schedule, decision: &mut Decision) {
    let times = Times { pipeline: of.pipeline, triggers: of.triggers, anchor: before.anchor_at };
    let times = times.between(before.handled_until, of.now, MOST_TIMES);
    let Some(last) = times.last() else { return };
    let all = times.len() < MOST_TIMES;
    decision.then.handled_until = if all { of.now } else { last.at };

    let (open, closed): (Vec<Time>, Vec<Time>) = times
        .into_iter()
        .partition(|time| is_open(&of.triggers.windows, of.triggers.timezone, time.at));
    for time in closed {
        let (reason, cause) = closed_until(of, time.at);
        decision.skip(time, reason, Some(cause));
    }
    let is_missed =
        |time: &Time| (of.now - time.at).to_std().unwrap_or(Duration::ZERO) > of.on_time || !all;
    let (missed, on_time): (Vec<Time>, Vec<Time>) = open.into_iter().partition(is_missed);
    match of.triggers.catch_up {
        CatchUp::None => {
            for time in missed {
                decision.skip(time, "no scheduler was there at that time".to_owned(), None);
            }
            decision.last_of(of, on_time);
        }
        CatchUp::One if all => {
            decision.last_of(of, missed.into_iter().chain(on_time).collect());
        }
        CatchUp::One => {
            for time in missed {
                decision.skip(time, REPLACED.to_owned(), None);
            }
        }
        CatchUp::All => {
            for time in missed.into_iter().chain(on_time) {
                if missed_or_alone(of, decision, time) {
                    decision.queue(of, time);
                } else {
                    decision.take(of, time);
                }
            }
        }
    }
}

/// Whether a run that is caught up waits for the others; the first that is on time does not.
fn missed_or_alone(of: &Situation<'_>, decision: &Decision, time: Time) -> bool {
    !decision.runs.is_empty() || (of.now - time.at).to_std().unwrap_or(Duration::ZERO) > of.on_time
}

const REPLACED: &str = "a later due time took its place";

fn by_success(of: &Situation<'_>, before: &Schedule, decision: &mut Decision) {
    let after = &of.triggers.after;
    let news: Option<BTreeMap<PipelineName, DateTime<Utc>>> = after
        .iter()
        .map(|name| {
            let success = of.successes.get(name)?;
            let is_new = before.after_seen.get(name).is_none_or(|seen| success > seen);
            is_new.then(|| (name.clone(), *success))
        })
        .collect();
    let Some(news) = news.filter(|news| !news.is_empty()) else { return };
    let Some(at) = news.values().max().copied() else { return };
    let key = news
        .iter()
        .map(|(name, at)| format!("{name} {}", at.timestamp_micros()))
        .collect::<Vec<_>>()
        .join(", ");
    decision.then.after_seen = news;
    let due = Due { at, trigger: Trigger::After, key: format!("after {key}") };
    decision.place(of, due);
}

/// Why a time is outside of the windows, and what it shares with other such times.
fn closed_until(of: &Situation<'_>, at: DateTime<Utc>) -> (String, String) {
    let (windows, zone) = (&of.triggers.windows, of.triggers.timezone);
    match opens_at(windows, zone, at) {
        Some(opens) => (
            format!("outside of its windows, the next of which begins at {}", shown(opens, zone)),
            format!("closed until {}", opens.timestamp()),
        ),
        None => ("outside of its windows".to_owned(), "closed".to_owned()),
    }
}

impl Decision {
    /// Takes the last of some due times; the others are skipped for it.
    fn last_of(&mut self, of: &Situation<'_>, times: Vec<Time>) {
        let Some((last, others)) = times.split_last() else { return };
        for time in others {
            self.skip(*time, REPLACED.to_owned(), None);
        }
        self.take(of, *last);
    }

    fn take(&mut self, of: &Situation<'_>, time: Time) {
        self.place(of, Due::timed(time));
    }

    /// Takes a due time as the overlap policy says.
    fn place(&mut self, of: &Situation<'_>, due: Due) {
        let ahead = of.going.is_some() || of.waiting > 0 || !self.runs.is_empty();
        let time = Time { at: due.at, trigger: due.trigger };
        match of.triggers.overlap {
            _ if !ahead => self.runs.push(due),
            Overlap::Skip => {
                let (reason, cause) = match &of.going {
                    Some(run) => (format!("run `{run}` was still going"), Some(run.clone())),
                    None => ("another run was waiting already".to_owned(), None),
                };
                self.skip(time, reason, cause);
            }
            Overlap::Queue => self.wait_in_line(of, due),
            Overlap::Cancel => {
                self.cancel = true;
                self.runs.clear();
                self.runs.push(due);
            }
        }
    }

    fn queue(&mut self, of: &Situation<'_>, time: Time) {
        self.wait_in_line(of, Due::timed(time));
    }

    fn wait_in_line(&mut self, of: &Situation<'_>, due: Due) {
        if of.waiting + self.runs.len() < MOST_WAITING {
            self.runs.push(due);
        } else {
            let reason = format!("{MOST_WAITING} runs were waiting already");
            self.skip(Time { at: due.at, trigger: due.trigger }, reason, None);
        }
    }

    /// Records a due time as skipped, together with the one before if that was for the same reason.
    fn skip(&mut self, time: Time, reason: String, cause: Option<String>) {
        if let Some((last, trigger)) = self.skips.last_mut()
            && *trigger == time.trigger
            && last.reason == reason
            && last.cause == cause
        {
            last.last = time.at;
            last.number += 1;
            return;
        }
        let skip = Skip { first: time.at, last: time.at, number: 1, reason, cause };
        self.skips.push((skip, time.trigger));
    }
}

#[cfg(test)]
mod tests;
