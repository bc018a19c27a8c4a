//! What polling costs and brings, and what another interval would have cost and brought, by the
//! history.

use std::time::Duration;

use chrono::{DateTime, Utc};
use model::Ages;
use store::{Run, Trigger};

/// Other intervals, as factors of the present one.
const FACTORS: [f64; 7] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const SHORTEST: Duration = Duration::from_secs(1);
const DAY: f64 = 86_400.0;

/// What the polls of a pipeline have cost and brought.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct History {
    /// When the first counted poll started.
    pub(crate) since: Option<DateTime<Utc>>,
    /// Usual time between two polls.
    pub(crate) interval: Option<Duration>,
    pub(crate) polls: u64,
    pub(crate) without_news: u64,
    /// Records that changed a target.
    pub(crate) changes: u64,
    pub(crate) calls: u64,
    pub(crate) received_bytes: u64,
    /// How old changes were when they were loaded.
    pub(crate) ages: Ages,
    pub(crate) estimates: Vec<Estimate>,
}

/// What an interval would have cost and brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) interval: Duration,
    pub(crate) polls_per_day: f64,
    pub(crate) calls_per_day: f64,
    pub(crate) received_bytes_per_day: f64,
    /// Share of the polls without news.
    pub(crate) share_without_news: f64,
    /// Age that half, and that 95 of 100 changes would not have exceeded.
    pub(crate) median: Duration,
    pub(crate) p95: Duration,
    pub(crate) present: bool,
}

/// One poll.
#[derive(Debug, Clone, Default)]
struct Poll {
    started_at: DateTime<Utc>,
    took: Duration,
    changes: u64,
    calls: u64,
    received_bytes: u64,
}

/// Looks at the runs of a pipeline that have ended, oldest first. `declared` is the interval that its
/// triggers name, if there are too few runs to tell. What a user has started has cost and brought
/// something as well, but says nothing of intervals.
pub(crate) fn history(runs: &[Run], declared: Option<Duration>) -> History {
    let polls: Vec<Poll> = runs.iter().map(poll).collect();
    let is_due = |run: &&Run| run.trigger != Trigger::Manual;
    let due: Vec<Poll> = runs.iter().filter(is_due).map(poll).collect();
    let mut history = History {
        since: polls.first().map(|poll| poll.started_at),
        interval: usual_interval(&due).or(declared),
        polls: polls.len() as u64,
        without_news: polls.iter().filter(|poll| poll.changes == 0).count() as u64,
        changes: polls.iter().map(|poll| poll.changes).sum(),
        calls: polls.iter().map(|poll| poll.calls).sum(),
        received_bytes: polls.iter().map(|poll| poll.received_bytes).sum(),
        ..History::default()
    };
    // The first one may have found all that there ever was.
    for run in runs.iter().skip(1) {
        history.ages.merge(&run.ages);
    }
    if let Some(interval) = history.interval
        && due.len() > 1
    {
        let of_history = Estimating::new(&due, &history.ages, interval);
        history.estimates = FACTORS
            .into_iter()
            .filter(|factor| interval.mul_f64(*factor) >= SHORTEST)
            .map(|factor| of_history.estimate(factor))
            .collect();
    }
    history
}

fn poll(run: &Run) -> Poll {
    let ended_at = run.ended_at.unwrap_or(run.started_at);
    Poll {
        started_at: run.started_at,
        took: (ended_at - run.started_at).to_std().unwrap_or_default(),
        changes: run.books.targets.iter().map(|target| target.loaded).max().unwrap_or(0),
        calls: run.usage.calls,
        received_bytes: run.usage.received_bytes,
    }
}

fn usual_interval(polls: &[Poll]) -> Option<Duration> {
    let between = polls.windows(2).map(|pair| pair[1].started_at - pair[0].started_at);
    median(between.filter_map(|between| between.to_std().ok()).collect())
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[expect(clippy::cast_precision_loss, reason = "counts are small against 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

/// What a poll costs for itself, and what every change adds.
#[derive(Debug, Clone, Copy)]
struct Cost {
    of_poll: f64,
    of_change: f64,
}

impl Cost {
    fn new(polls: &[Poll], changes: u64, of: impl Fn(&Poll) -> u64) -> Self {
        let empty = median(polls.iter().filter(|poll| poll.changes == 0).map(&of).collect());
        // Without an empty one, the cheapest comes nearest.
        let of_poll = empty.or_else(|| polls.iter().map(&of).min()).unwrap_or(0);
        let total: u64 = polls.iter().map(&of).sum();
        let rest = total.saturating_sub(of_poll * polls.len() as u64);
        let of_change = if changes == 0 { 0.0 } else { float(rest) / float(changes) };
        Self { of_poll: float(of_poll), of_change }
    }

    fn per_day(&self, polls: f64, changes: f64) -> f64 {
        self.of_poll * polls + self.of_change * changes
    }
}

struct Estimating<'a> {
    polls: &'a [Poll],
    interval: Duration,
    calls: Cost,
    bytes: Cost,
    changes_per_day: f64,
    /// From the moment that a poll starts until a change is loaded.
    latency: Duration,
    measured: Option<(Duration, Duration)>,
}

impl<'a> Estimating<'a> {
    fn new(polls: &'a [Poll], ages: &Ages, interval: Duration) -> Self {
        let took = median(polls.iter().map(|poll| poll.took).collect()).unwrap_or_default();
        let measured = ages.quantile(0.5).zip(ages.quantile(0.95));
        let changes = polls.iter().map(|poll| poll.changes).sum();
        let days = interval.as_secs_f64() * float(polls.len() as u64) / DAY;
        Self {
            polls,
            interval,
            calls: Cost::new(polls, changes, |poll| poll.calls),
            bytes: Cost::new(polls, changes, |poll| poll.received_bytes),
            changes_per_day: float(changes) / days,
            // A change waits half of an interval on average; what is more comes after that.
            latency: measured.map_or(took, |(median, _)| median.saturating_sub(interval / 2)),
            measured,
        }
    }

    fn estimate(&self, factor: f64) -> Estimate {
        let interval = self.interval.mul_f64(factor);
        let polls_per_day = DAY / interval.as_secs_f64();
        let present = (factor - 1.0).abs() < f64::EPSILON;
        let computed =
            (interval.div_f64(2.0) + self.latency, interval.mul_f64(0.95) + self.latency);
        let (median, p95) = self.measured.filter(|_| present).unwrap_or(computed);
        Estimate {
            interval,
            polls_per_day,
            calls_per_day: self.calls.per_day(polls_per_day, self.changes_per_day),
            received_bytes_per_day: self.bytes.per_day(polls_per_day, self.changes_per_day),
            share_without_news: self.share_without_news(factor),
            median,
            p95,
            present,
        }
    }

    /// Longer intervals join the polls of the history; in shorter ones the changes of a poll spread.
    fn share_without_news(&self, factor: f64) -> f64 {
        if factor >= 1.0 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "factors are small and positive"
            )]
            let joined = (factor.round() as usize).min(self.polls.len());
            let groups = self.polls.chunks(joined);
            let number = float(groups.len() as u64);
            let empty = groups.filter(|group| group.iter().all(|poll| poll.changes == 0)).count();
            return float(empty as u64) / number;
        }
        let pieces = 1.0 / factor;
        let with_news: f64 = self
            .polls
            .iter()
            .map(|poll| pieces * (1.0 - (1.0 - 1.0 / pieces).powf(float(poll.changes))))
            .sum();
        1.0 - with_news / (pieces * float(self.polls.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polls(changes: &[u64]) -> Vec<Poll> {
        changes
            .iter()
            .zip(0..)
            .map(|(changes, index)| Poll {
                started_at: DateTime::UNIX_EPOCH + Duration::from_secs(600 * index),
                took: Duration::from_secs(2),
                changes: *changes,
                calls: 1 + changes.div_ceil(100),
                received_bytes: 500 + 100 * changes,
            })
            .collect()
    }

    fn estimating<'a>(polls: &'a [Poll], ages: &Ages) -> Estimating<'a> {
        Estimating::new(polls, ages, Duration::from_secs(600))
    }

    #[test]
    fn nothing_gives_no_estimates() {
        let history = history(&[], Some(Duration::from_secs(60)));
        assert_eq!((history.polls, history.estimates.len()), (0, 0));
        assert_eq!(history.interval, Some(Duration::from_secs(60)));
    }

    #[test]
    fn joined_polls_have_the_news_of_all() {
        let polls = polls(&[0, 3, 0, 0, 0, 0, 0, 9, 0, 0]);
        let of = estimating(&polls, &Ages::default());
        assert!((of.share_without_news(1.0) - 0.8).abs() < 1e-9);
        assert!((of.share_without_news(2.0) - 0.6).abs() < 1e-9);
        assert!((of.share_without_news(5.0) - 0.0).abs() < 1e-9);
        // Three changes in ten pieces: 2.71 of these have one; nine: 6.13.
        assert!((of.share_without_news(0.1) - (1.0 - 8.836 / 100.0)).abs() < 1e-3);
    }

    #[test]
    fn polling_half_as_often_saves_the_empty_calls_and_costs_freshness() {
        let polls = polls(&[0, 100, 0, 0, 200, 0]);
        let of = estimating(&polls, &Ages::default());
        let (present, rare) = (of.estimate(1.0), of.estimate(2.0));
        assert!((present.polls_per_day - 144.0).abs() < 1e-9);
        // Of a day: 144 polls with a call each, and 7,200 changes in hundreds.
        assert!((present.calls_per_day - (144.0 + 72.0)).abs() < 1e-6, "{present:?}");
        assert!((rare.calls_per_day - (72.0 + 72.0)).abs() < 1e-6, "{rare:?}");
        assert_eq!(present.median, Duration::from_secs(302));
        assert_eq!(rare.median, Duration::from_secs(602));
        assert!(present.present && !rare.present);
    }

    #[test]
    fn what_was_measured_wins() {
        let polls = polls(&[0, 3, 0]);
        let mut ages = Ages::default();
        for _ in 0..100 {
            ages.add(330_000);
        }
        let of = estimating(&polls, &ages);
        let present = of.estimate(1.0);
        assert_eq!(Some(present.median), ages.quantile(0.5));
        let latency = present.median.checked_sub(Duration::from_secs(300)).unwrap();
        assert_eq!(of.estimate(0.5).median, Duration::from_secs(150) + latency);
    }
}
