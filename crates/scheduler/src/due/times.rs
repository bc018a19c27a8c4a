//! When runs are due: at intervals from an anchor, and by the calendar.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use model::PipelineName;
use spec::{Every, Triggers};
use store::Trigger;
use twox_hash::XxHash3_64;

/// A due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) at: DateTime<Utc>,
    pub(crate) trigger: Trigger,
}

/// What makes the due times of a pipeline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times<'a> {
    pub(crate) pipeline: &'a PipelineName,
    pub(crate) triggers: &'a Triggers,
    /// Intervals are counted from here; it is a due time itself.
    pub(crate) anchor: DateTime<Utc>,
}

impl Times<'_> {
    /// Returns the first due time after `after`.
    pub(crate) fn next(&self, after: DateTime<Utc>) -> Option<Time> {
        let interval = self.triggers.every.and_then(|every| self.next_interval(every, after));
        let interval = interval.map(|at| Time { at, trigger: Trigger::Interval });
        let zone = self.triggers.timezone;
        let cron = self.triggers.cron.iter().filter_map(|cron| {
            // The calendar knows whole seconds only, and repeats the second it starts in otherwise.
            let next = cron.schedule().find_next_occurrence(&after.with_timezone(&zone), false);
            Some(Time { at: next.ok()?.with_timezone(&Utc), trigger: Trigger::Cron })
        });
        cron.filter(|time| time.at > after).chain(interval).min_by_key(|time| time.at)
    }

    /// Returns the due times after `after` up to and with `until`, at most `most`, in order.
    pub(crate) fn between(
        &self,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
        most: usize,
    ) -> Vec<Time> {
        let mut times = Vec::new();
        let mut last = after;
        while times.len() < most {
            let Some(time) = self.next(last).filter(|time| time.at <= until) else { break };
            last = time.at;
            times.push(time);
        }
        times
    }

    fn next_interval(&self, every: Every, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if after < self.anchor {
            return Some(self.anchor);
        }
        let interval = i64::try_from(every.interval.as_micros()).ok()?;
        let passed = (after - self.anchor).num_microseconds()? / interval;
        // The jitter of the one before may be still to come.
        (passed.max(1)..=passed + 1).find_map(|number| {
            let nominal = self
                .anchor
                .checked_add_signed(TimeDelta::microseconds(interval.checked_mul(number)?))?;
            let at = nominal + self.jitter(every.jitter, nominal);
            (at > after).then_some(at)
        })
    }

    /// The same for a due time whoever asks.
    fn jitter(&self, most: Duration, nominal: DateTime<Utc>) -> TimeDelta {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        if most == 0 {
            return TimeDelta::zero();
        }
        let what = format!("{} {}", self.pipeline, nominal.timestamp_micros());
        let share = XxHash3_64::oneshot(what.as_bytes()) % (most + 1);
        TimeDelta::milliseconds(i64::try_from(share).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDateTime;
    use chrono_tz::Tz;
    use spec::Cron;

    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap().and_utc()
    }

    fn crons(texts: &[&str], zone: Tz) -> Triggers {
        let cron = texts.iter().map(|text| Cron::parse(text).unwrap()).collect();
        Triggers { cron, timezone: zone, ..Triggers::default() }
    }

    fn found(triggers: &Triggers, from: &str, to: &str) -> Vec<String> {
        let pipeline = "shop".parse().unwrap();
        let times = Times { pipeline: &pipeline, triggers, anchor: utc(from) };
        times
            .between(utc(from), utc(to), 100)
            .iter()
            .map(|time| time.at.format("%d %H:%M:%S").to_string())
            .collect()
    }

    #[test]
    fn a_night_job_comes_once_when_the_clocks_change() {
        for (zone, spring, autumn) in [
            (
                Tz::Europe__Berlin,
                ("2026-03-28 12:00:00", "2026-03-30 12:00:00", ["29 01:00:00", "30 00:30:00"]),
                ("2026-10-24 12:00:00", "2026-10-26 12:00:00", ["25 00:30:00", "26 01:30:00"]),
            ),
            (
                Tz::America__New_York,
                ("2026-03-07 12:00:00", "2026-03-09 12:00:00", ["08 07:00:00", "09 06:30:00"]),
                ("2026-10-31 12:00:00", "2026-11-02 12:00:00", ["01 07:30:00", "02 07:30:00"]),
            ),
        ] {
            let night = crons(&["30 2 * * *"], zone);
            assert_eq!(found(&night, spring.0, spring.1), spring.2, "{zone} in spring");
            assert_eq!(found(&night, autumn.0, autumn.1), autumn.2, "{zone} in autumn");
        }
    }

    #[test]
    fn every_quarter_of_an_hour_comes_as_often_as_there_are_quarters() {
        for (zone, spring, autumn) in [
            (Tz::Europe__Berlin, "2026-03-29", "2026-10-25"),
            (Tz::America__New_York, "2026-03-08", "2026-11-01"),
        ] {
            let quarters = crons(&["*/15 * * * *"], zone);
            for day in [spring, autumn] {
                let times =
                    found(&quarters, &format!("{day} 00:00:00"), &format!("{day} 08:00:00"));
                assert_eq!(times.len(), 32, "{zone} {day}: {times:?}");
            }
        }
    }

    #[test]
    fn seconds_may_be_given_and_lists_are_joined() {
        let triggers = crons(&["*/20 * * * * *", "0 1 * * *"], Tz::UTC);
        let times = found(&triggers, "2026-01-01 00:59:30", "2026-01-01 01:00:20");
        assert_eq!(times, ["01 00:59:40", "01 01:00:00", "01 01:00:20"]);
    }

    #[test]
    fn intervals_are_counted_from_the_anchor_and_begin_with_it() {
        let every = Some(Every { interval: Duration::from_secs(600), jitter: Duration::ZERO });
        let triggers = Triggers { every, ..Triggers::default() };
        let pipeline = "shop".parse().unwrap();
        let anchor = utc("2026-01-01 00:03:00");
        let times = Times { pipeline: &pipeline, triggers: &triggers, anchor };
        let found = times.between(utc("2026-01-01 00:00:00"), utc("2026-01-01 00:25:00"), 9);
        let minutes: Vec<i64> = found.iter().map(|time| (time.at - anchor).num_minutes()).collect();
        assert_eq!(minutes, [0, 10, 20]);
        assert!(found.iter().all(|time| time.trigger == Trigger::Interval));
    }

    #[test]
    fn jitter_is_the_same_for_everybody_and_keeps_the_order() {
        let every =
            Some(Every { interval: Duration::from_secs(60), jitter: Duration::from_secs(50) });
        let triggers = Triggers { every, ..Triggers::default() };
        let pipeline = "shop".parse().unwrap();
        let anchor = utc("2026-01-01 00:00:00");
        let times = Times { pipeline: &pipeline, triggers: &triggers, anchor };
        let all = times.between(anchor, anchor + TimeDelta::minutes(100), 1_000);
        assert!(all.len() >= 99, "{}", all.len());
        let late: Vec<i64> = all
            .iter()
            .enumerate()
            .map(|(index, time)| {
                let nominal = anchor + TimeDelta::minutes(i64::try_from(index).unwrap() + 1);
                (time.at - nominal).num_milliseconds()
            })
            .collect();
        assert!(late.iter().all(|late| (0..=50_000).contains(late)), "{late:?}");
        assert!(late.iter().any(|late| *late > 40_000) && late.iter().any(|late| *late < 10_000));
        // Asked from any moment, the answer is the same.
        for (index, time) in all.iter().enumerate().skip(1) {
            let between = all[index - 1].at + (time.at - all[index - 1].at) / 2;
            assert_eq!(times.next(between), Some(*time));
        }
    }
}
