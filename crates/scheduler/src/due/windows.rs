//! Windows: spans of time as the clock on the wall shows them. A window is open whenever that clock
//! shows a time in it: one that falls into the hour that a spring skips does not open that day, and
//! one in the hour that an autumn repeats opens twice.

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use spec::{Window, Windows};

/// How far ahead a change is looked for, minute by minute.
const AHEAD: TimeDelta = TimeDelta::days(9);

/// Tells whether runs may start and read.
pub(crate) fn is_open(windows: &Windows, zone: Tz, at: DateTime<Utc>) -> bool {
    let shown = at.with_timezone(&zone).naive_local();
    let any = |windows: &[Window]| windows.iter().any(|window| holds(window, shown));
    (windows.allowed.is_empty() || any(&windows.allowed)) && !any(&windows.forbidden)
}

fn holds(window: &Window, shown: NaiveDateTime) -> bool {
    match window {
        Window::Once { from, to } => (from..to).contains(&&shown),
        Window::Weekly { days, from, to } => {
            let today = shown.weekday().num_days_from_monday() as usize;
            let yesterday = (today + 6) % 7;
            let minute = shown.num_seconds_from_midnight() / 60;
            let (from, to) = (u32::from(*from), u32::from(*to));
            if from < to {
                days[today] && (from..to).contains(&minute)
            } else {
                (days[today] && minute >= from) || (days[yesterday] && minute < to)
            }
        }
    }
}

/// Returns the first minute after `at` at which runs may start again. `None`: not within the next days
/// or after what is declared once.
pub(crate) fn opens_at(windows: &Windows, zone: Tz, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let once = windows.allowed.iter().chain(&windows.forbidden).filter_map(|window| match window {
        Window::Once { from, to } => Some([*from, *to]),
        Window::Weekly { .. } => None,
    });
    // A zone is less than a day away from UTC.
    let declared = once.flatten().map(|change| change.and_utc() - TimeDelta::days(1));
    let mut starts: Vec<DateTime<Utc>> = declared.filter(|start| *start > at).collect();
    starts.push(at);
    starts.sort_unstable();
    starts.into_iter().find_map(|start| {
        let mut minute = start.with_second(0)?.with_nanosecond(0)?;
        let end = minute + AHEAD;
        while minute < end {
            minute += TimeDelta::minutes(1);
            if is_open(windows, zone, minute) {
                return Some(minute);
            }
        }
        None
    })
}

/// Writes a time as the clock on the wall shows it.
pub(crate) fn shown(at: DateTime<Utc>, zone: Tz) -> String {
    format!("{} ({zone})", at.with_timezone(&zone).format("%Y-%m-%d %H:%M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(allowed: &[&str], forbidden: &[&str], zone: &str) -> (Windows, Tz) {
        let list = |key: &str, texts: &[&str]| match texts {
            [] => String::new(),
            texts => format!("{key}: {texts:?}, "),
        };
        let yaml = format!(
            "pipeline: a\nsource: {{csv: {{path: a}}}}\nkey: [a]\n\
             triggers: {{timezone: {zone}, windows: {{{}{}}}}}\n\
             targets: {{t: {{sqlite: {{path: a, table: a}}}}}}",
            list("allowed", allowed),
            list("forbidden", forbidden)
        );
        let triggers = spec::parse("a", &yaml).unwrap().triggers;
        (triggers.windows, triggers.timezone)
    }

    fn utc(text: &str) -> DateTime<Utc> {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc()
    }

    /// The UTC minutes of a span at which it opens or closes.
    fn changes(of: &(Windows, Tz), from: &str, to: &str) -> Vec<String> {
        let (mut at, to) = (utc(from), utc(to));
        let mut open = is_open(&of.0, of.1, at);
        let mut changes = Vec::new();
        while at < to {
            at += TimeDelta::minutes(1);
            if is_open(&of.0, of.1, at) != open {
                open = !open;
                let sign = if open { '+' } else { '-' };
                changes.push(format!("{sign}{}", at.format("%d %H:%M")));
            }
        }
        changes
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        // 2026-01-05 is a Monday.
        let of = windows(&["mon-fri 22:00-05:00"], &[], "UTC");
        let found = changes(&of, "2026-01-08 12:00", "2026-01-12 23:00");
        assert_eq!(found, ["+08 22:00", "-09 05:00", "+09 22:00", "-10 05:00", "+12 22:00"]);
    }

    #[test]
    fn a_night_is_an_hour_shorter_in_spring_and_longer_in_autumn() {
        let berlin = windows(&["22:00-05:00"], &[], "Europe/Berlin");
        let spring = changes(&berlin, "2026-03-28 12:00", "2026-03-29 12:00");
        assert_eq!(spring, ["+28 21:00", "-29 03:00"]);
        let autumn = changes(&berlin, "2026-10-24 12:00", "2026-10-25 12:00");
        assert_eq!(autumn, ["+24 20:00", "-25 04:00"]);
        let new_york = windows(&["22:00-05:00"], &[], "America/New_York");
        let spring = changes(&new_york, "2026-03-07 12:00", "2026-03-08 20:00");
        assert_eq!(spring, ["+08 03:00", "-08 09:00"]);
        let autumn = changes(&new_york, "2026-10-31 12:00", "2026-11-01 20:00");
        assert_eq!(autumn, ["+01 02:00", "-01 10:00"]);
    }

    #[test]
    fn the_hour_that_is_skipped_never_opens_and_the_one_that_is_repeated_opens_twice() {
        for (zone, spring, autumn, twice) in [
            (
                "Europe/Berlin",
                "2026-03-29",
                "2026-10-25",
                ["+25 00:15", "-25 00:45", "+25 01:15", "-25 01:45"],
            ),
            (
                "America/New_York",
                "2026-03-08",
                "2026-11-01",
                ["+01 05:15", "-01 05:45", "+01 06:15", "-01 06:45"],
            ),
        ] {
            let window = if zone == "Europe/Berlin" { "02:15-02:45" } else { "01:15-01:45" };
            let skipped = windows(&["02:15-02:45"], &[], zone);
            let none = changes(&skipped, &format!("{spring} 00:00"), &format!("{spring} 20:00"));
            assert!(none.is_empty(), "{zone}: {none:?}");
            let repeated = windows(&[window], &[], zone);
            let found = changes(&repeated, &format!("{autumn} 00:00"), &format!("{autumn} 20:00"));
            assert_eq!(found, twice, "{zone}");
        }
    }

    #[test]
    fn what_is_forbidden_is_closed_whatever_is_allowed() {
        let of = windows(
            &["00:00-24:00"],
            &["2026-12-24 00:00-2026-12-26 24:00", "sun 10:00-11:00"],
            "Europe/Berlin",
        );
        let found = changes(&of, "2026-12-23 12:00", "2026-12-27 12:00");
        assert_eq!(found, ["-23 23:00", "+26 23:00", "-27 09:00", "+27 10:00"]);
    }

    #[test]
    fn the_next_opening_is_found_also_far_ahead() {
        let nights = windows(&["mon-fri 22:00-05:00"], &[], "Europe/Berlin");
        let next = |of: &(Windows, Tz), at| opens_at(&of.0, of.1, utc(at));
        assert_eq!(next(&nights, "2026-01-10 12:00"), Some(utc("2026-01-12 21:00")));
        let holidays = windows(&[], &["2026-06-01 00:00-2026-09-01 00:00"], "UTC");
        assert_eq!(next(&holidays, "2026-06-10 12:00"), Some(utc("2026-09-01 00:00")));
        let once = windows(&["2026-06-01 00:00-2026-06-02 00:00"], &[], "UTC");
        assert_eq!(next(&once, "2026-01-01 00:00"), Some(utc("2026-06-01 00:00")));
        assert_eq!(next(&once, "2026-07-01 00:00"), None);
    }
}
