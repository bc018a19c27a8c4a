use std::{str::FromStr, time::Duration};

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use model::PipelineName;

use super::{optional, push};
use crate::{
    CatchUp, Cron, Every, Overlap, Pipeline, Triggers, Window, Windows, problem::Problems,
    reader::At,
};

const KEYS: [&str; 11] = [
    "every",
    "cron",
    "timezone",
    "windows",
    "after",
    "continuous",
    "overlap",
    "catch_up",
    "priority",
    "max_duration",
    "push",
];

const SHORTEST: Duration = Duration::from_secs(1);
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const WINDOW_REMEDY: &str = "write days and times as `mon-fri 22:00-05:00`, times of every day as \
                             `22:00-05:00`, or once `2026-12-24 00:00-2026-12-26 24:00`";

pub(super) fn triggers(at: &At<'_>) -> Option<Triggers> {
    let keys = at.keys(&KEYS)?;
    let every = optional(&keys, "every", |at| every(at).map(Some));
    let cron = optional(&keys, "cron", crons);
    let timezone = match keys.get("timezone") {
        Some(at) => timezone(&at),
        None => Some(Tz::UTC),
    };
    let windows = optional(&keys, "windows", windows);
    let after = optional(&keys, "after", after);
    let continuous = optional(&keys, "continuous", At::boolean);
    let overlap = optional(&keys, "overlap", |at| {
        at.word(&[("skip", Overlap::Skip), ("queue", Overlap::Queue), ("cancel", Overlap::Cancel)])
    });
    let catch_up = optional(&keys, "catch_up", |at| {
        at.word(&[("one", CatchUp::One), ("all", CatchUp::All), ("none", CatchUp::None)])
    });
    let priority = match keys.get("priority") {
        Some(at) => priority(&at),
        None => Some(Triggers::USUAL_PRIORITY),
    };
    let max_duration = optional(&keys, "max_duration", |at| duration(at).map(Some));
    let push = optional(&keys, "push", |at| push::push(at).map(Some));
    let triggers = Triggers {
        every: every?,
        cron: cron?,
        timezone: timezone?,
        windows: windows?,
        after: after?,
        continuous: continuous?,
        overlap: overlap?,
        catch_up: catch_up?,
        priority: priority?,
        max_duration: max_duration?,
        push: push?,
    };
    let timed = triggers.every.is_some() || !triggers.cron.is_empty() || !triggers.after.is_empty();
    if triggers.continuous && timed {
        at.problem(
            "`continuous` starts a run as soon as the last one has ended, which leaves nothing for \
             `every`, `cron` or `after`",
            "keep one of them",
        );
        return None;
    }
    Some(triggers)
}

/// Checks what needs the rest of the pipeline.
pub(super) fn check(pipeline: &Pipeline, problems: &Problems) {
    if pipeline.triggers.after.contains(&pipeline.name) {
        let place = "triggers.after";
        problems.add(
            pipeline.places.line(place),
            place,
            "the pipeline would start after itself",
            "name other pipelines, or write `continuous: true`",
        );
    }
}

fn duration(at: &At<'_>) -> Option<Duration> {
    let duration = at.duration()?;
    if duration < SHORTEST {
        at.problem("a run cannot start more than once a second", "write at least `1s`");
        return None;
    }
    Some(duration)
}

fn every(at: &At<'_>) -> Option<Every> {
    if !at.is_map() {
        return Some(Every { interval: duration(at)?, jitter: Duration::ZERO });
    }
    let keys = at.keys(&["every", "jitter"])?;
    let interval = keys.require("every", "add `every: 10m`").and_then(|at| duration(&at));
    let jitter = optional(&keys, "jitter", At::duration);
    let (interval, jitter) = (interval?, jitter?);
    if jitter >= interval {
        keys.at().problem(
            "`jitter` is not shorter than `every`, so due times would change places",
            "write a shorter jitter",
        );
        return None;
    }
    Some(Every { interval, jitter })
}

fn crons(at: &At<'_>) -> Option<Vec<Cron>> {
    const REMEDY: &str = "write one expression, or a list of them: `[\"0 2 * * *\"]`";
    if !at.is_list() {
        return cron(at).map(|cron| vec![cron]);
    }
    let items = at.items(REMEDY)?;
    if items.is_empty() {
        at.problem("the list is empty", REMEDY);
        return None;
    }
    let crons: Vec<Option<Cron>> = items.iter().map(cron).collect();
    crons.into_iter().collect()
}

fn cron(at: &At<'_>) -> Option<Cron> {
    const REMEDY: &str = "write minute, hour, day of the month, month, day of the week, such as \
                          `\"0 2 * * *\"`; a sixth field in front is the second";
    let text = at.text()?;
    let cron = match Cron::parse(&text) {
        Ok(cron) => cron,
        Err(error) => {
            at.problem(format!("`{text}` is not a cron expression: {error}"), REMEDY);
            return None;
        }
    };
    // From any time on: an expression that comes at all comes again and again.
    let start = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(365 * 50);
    if cron.schedule().find_next_occurrence(&start, false).is_err() {
        at.problem(format!("`{text}` never comes"), "look at the day and the month");
        return None;
    }
    Some(cron)
}

fn timezone(at: &At<'_>) -> Option<Tz> {
    let text = at.text()?;
    let zone = Tz::from_str(&text).ok();
    if zone.is_none() {
        at.problem(
            format!("`{text}` is not a time zone"),
            "write a name of the tz database, such as `Europe/Berlin`",
        );
    }
    zone
}

fn after(at: &At<'_>) -> Option<Vec<PipelineName>> {
    let names = at.names("list the pipelines: `after: [customers]`")?;
    let names: Vec<Option<PipelineName>> = names
        .into_iter()
        .map(|name| match PipelineName::try_from(name) {
            Ok(name) => Some(name),
            Err(error) => {
                at.problem(error.to_string(), "name pipelines");
                None
            }
        })
        .collect();
    names.into_iter().collect()
}

fn priority(at: &At<'_>) -> Option<u8> {
    let priority: u8 = at.number("a number from 0 to 9")?;
    if priority > 9 {
        at.problem("the greatest priority is 9", "write a number from 0 to 9");
        return None;
    }
    Some(priority)
}

fn windows(at: &At<'_>) -> Option<Windows> {
    let keys = at.keys(&["allowed", "forbidden"])?;
    let allowed = optional(&keys, "allowed", window_list);
    let forbidden = optional(&keys, "forbidden", window_list);
    Some(Windows { allowed: allowed?, forbidden: forbidden? })
}

fn window_list(at: &At<'_>) -> Option<Vec<Window>> {
    let items = at.items(WINDOW_REMEDY)?;
    if items.is_empty() {
        at.problem("the list is empty", "write at least one window, or remove the key");
        return None;
    }
    let windows: Vec<Option<Window>> = items
        .iter()
        .map(|at| {
            let text = at.text()?;
            let window = window(&text);
            if let Err(why) = &window {
                at.problem(format!("`{text}` is not a window: {why}"), WINDOW_REMEDY);
            }
            window.ok()
        })
        .collect();
    windows.into_iter().collect()
}

/// Reads a window; the error says what is wrong.
fn window(text: &str) -> Result<Window, String> {
    let text = text.trim();
    let dated = text.len() > 4 && text.bytes().take(4).all(|byte| byte.is_ascii_digit());
    if dated && text.as_bytes()[4] == b'-' {
        return once(text);
    }
    let (days, times) = match text.split_once(' ') {
        Some((days, times)) => (self::days(days)?, times.trim()),
        None => ([true; 7], text),
    };
    let (from, to) = times
        .split_once('-')
        .ok_or_else(|| format!("`{times}` is not two times with `-` between them"))?;
    match (minute(from.trim())?, minute(to.trim())?) {
        (1440, _) => Err("it begins at 24:00, which is 00:00 of the next day".to_owned()),
        (_, 0) => Err("it ends at 00:00, which is 24:00 of the day before".to_owned()),
        (from, to) if from == to => {
            Err("it ends when it begins; the whole day is 00:00-24:00".to_owned())
        }
        (from, to) => Ok(Window::Weekly { days, from, to }),
    }
}

fn once(text: &str) -> Result<Window, String> {
    const LENGTH: usize = "2026-12-24 00:00".len();
    let split = text.get(..LENGTH).zip(text.get(LENGTH..));
    let (from, rest) = split.ok_or("the time of day is missing")?;
    let to = rest.trim_start().strip_prefix('-').ok_or("the end is missing")?;
    let (from, to) = (moment(from)?, moment(to.trim_start())?);
    if from < to {
        Ok(Window::Once { from, to })
    } else {
        Err("it ends before it begins".to_owned())
    }
}

fn moment(text: &str) -> Result<NaiveDateTime, String> {
    let wrong = || format!("`{text}` is not a date and a time such as `2026-12-24 18:00`");
    let (date, time) = text.split_once(' ').ok_or_else(wrong)?;
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").map_err(|_| wrong())?;
    let minutes = minute(time.trim())?;
    Ok(date.and_time(NaiveTime::MIN) + TimeDelta::minutes(minutes.into()))
}

/// The minute of the day, up to 24:00.
fn minute(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{text}` is not a time of day such as `22:00`");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| match text.len() {
        1..=2 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u16>().ok(),
        _ => None,
    };
    match (number(hour), number(minute)) {
        (Some(24), Some(0)) => Ok(1440),
        (Some(hour @ 0..=23), Some(minute @ 0..=59)) => Ok(hour * 60 + minute),
        _ => Err(wrong()),
    }
}

/// Days such as `mon-fri`, `sat,sun` or `fri-mon`.
fn days(text: &str) -> Result<[bool; 7], String> {
    let mut days = [false; 7];
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let day = |name: &str| {
            let name = name.trim().to_lowercase();
            DAYS.iter()
                .position(|day| *day == name)
                .ok_or_else(|| format!("`{name}` is not a day; use {}", DAYS.join(", ")))
        };
        let (mut at, last) = (day(first)?, day(last)?);
        days[at] = true;
        while at != last {
            at = (at + 1) % DAYS.len();
            days[at] = true;
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_window_is_said() {
        for (text, why) in [
            ("22:00", "two times"),
            ("mon-frj 22:00-05:00", "`frj` is not a day"),
            ("22:00-25:00", "not a time of day"),
            ("5:60-6:00", "not a time of day"),
            ("22:00-22:00", "ends when it begins"),
            ("22:00-00:00", "24:00"),
            ("24:00-05:00", "next day"),
            ("2026-12-24 00:00", "end is missing"),
            ("2026-12-24 00:00-2026-12-23 00:00", "ends before"),
            ("2026-02-30 00:00-2026-12-23 00:00", "not a date"),
            ("", "two times"),
        ] {
            let found = window(text).unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
    }

    #[test]
    fn days_may_pass_the_end_of_the_week() {
        assert_eq!(days("fri-mon"), Ok([true, false, false, false, true, true, true]));
        assert_eq!(days("sat,Sun"), Ok([false, false, false, false, false, true, true]));
    }

    #[test]
    fn a_window_over_midnight_ends_before_it_begins() {
        let window = window("mon-fri 22:00-05:00").unwrap();
        let days = [true, true, true, true, true, false, false];
        assert_eq!(window, Window::Weekly { days, from: 22 * 60, to: 5 * 60 });
    }

    #[test]
    fn the_end_of_a_day_is_the_beginning_of_the_next() {
        let Ok(Window::Once { to, .. }) = window("2026-12-24 00:00-2026-12-26 24:00") else {
            panic!("no window");
        };
        assert_eq!(to.to_string(), "2026-12-27 00:00:00");
    }
}
