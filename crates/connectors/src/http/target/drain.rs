//! After an outage what has piled up is sent at a multiple of the rate from before, and not as fast
//! as it can be: an API that has just come back has its daily work to do as well.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A failure that is over sooner is no outage.
const SHORTEST: Duration = Duration::from_secs(3);
/// The live rate is that of so much time before the outage.
const LIVE: Duration = Duration::from_secs(60);
/// Fewest calls a second: who was rarely called can be called so often.
const LEAST: f64 = 10.0;

/// How fast a target that was away is called.
#[derive(Debug)]
pub(super) struct Drain {
    times: f64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Calls that got through, by the second in which they did, oldest first.
    live: VecDeque<(Instant, u32)>,
    /// When the calls began to fail.
    away: Option<Instant>,
    draining: Option<Draining>,
}

#[derive(Debug)]
struct Draining {
    /// What was extracted until then has piled up: nanoseconds since 1970-01-01 UTC.
    until_ns: i64,
    /// Calls a second before the outage.
    live: f64,
    every: Duration,
    /// When the next call may be made.
    next: Instant,
}

impl Drain {
    /// Makes the pace of a target that is called at most so many times as often as before an outage,
    /// and ten times a second at least.
    pub(super) fn new(times: f64) -> Self {
        Self { times, state: Mutex::default() }
    }

    /// A call got through.
    pub(super) fn called(&self, now: Instant) {
        let mut state = self.state();
        // The drain is no measure of the daily work.
        if state.draining.is_some() || state.away.is_some() {
            return;
        }
        match state.live.back_mut() {
            Some((second, calls)) if now - *second < Duration::from_secs(1) => *calls += 1,
            _ => state.live.push_back((now, 1)),
        }
        while state.live.front().is_some_and(|(second, _)| now - *second > LIVE) {
            state.live.pop_front();
        }
    }

    /// The target is away.
    pub(super) fn fails(&self, now: Instant) {
        let mut state = self.state();
        state.away.get_or_insert(now);
    }

    /// The target works at `now_ns`, nanoseconds since 1970-01-01 UTC. Returns how many calls a second
    /// are made of what has piled up, when that begins.
    pub(super) fn works(&self, now: Instant, now_ns: i64) -> Option<f64> {
        let mut state = self.state();
        let away = state.away.take()?;
        if now.saturating_duration_since(away) < SHORTEST {
            return None;
        }
        let calls: u32 = state
            .live
            .iter()
            .filter(|(second, _)| away.saturating_duration_since(*second) <= LIVE)
            .map(|(_, calls)| *calls)
            .sum();
        // While something was still piled up, the daily work was not seen.
        let before = state.draining.as_ref().map_or(0.0, |draining| draining.live);
        let live = (f64::from(calls) / LIVE.as_secs_f64()).max(before);
        let per_second = (live * self.times).max(LEAST);
        let every = Duration::from_secs_f64(1.0 / per_second);
        state.draining = Some(Draining { until_ns: now_ns, live, every, next: now });
        Some(per_second)
    }

    /// Returns when a record may be sent that was extracted at `extracted_ns`. One that is newer than
    /// the outage need not wait.
    pub(super) fn turn(&self, now: Instant, extracted_ns: i64) -> Instant {
        let mut state = self.state();
        let Some(draining) = &mut state.draining else { return now };
        if extracted_ns > draining.until_ns {
            // Nobody has had a turn for a while: what comes late is the odd replay.
            if now.saturating_duration_since(draining.next) > LIVE {
                state.draining = None;
            }
            return now;
        }
        let turn = draining.next.max(now);
        draining.next = turn + draining.every;
        turn
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Calls at a steady rate for a minute, and is away for ten. Returns when it is back, and the pace
    /// from there on.
    fn after_an_outage(
        drain: &Drain,
        began: Instant,
        calls_per_second: u32,
    ) -> (Instant, Option<f64>) {
        for second in 0..60 {
            for _ in 0..calls_per_second {
                drain.called(began + SECOND * second);
            }
        }
        drain.fails(began + SECOND * 60);
        drain.fails(began + SECOND * 600);
        let back = began + SECOND * 660;
        (back, drain.works(back, 1_000))
    }

    /// The wait before the last of so many records that are sent together.
    fn wait(drain: &Drain, now: Instant, records: u32, extracted_ns: i64) -> Duration {
        let turns = (0..records).map(|_| drain.turn(now, extracted_ns));
        turns.last().unwrap() - now
    }

    #[test]
    fn the_backlog_is_sent_at_a_multiple_of_the_rate_before_and_news_at_once() {
        let drain = Drain::new(4.0);
        let (back, pace) = after_an_outage(&drain, Instant::now(), 5);
        assert_eq!(pace, Some(20.0));
        assert_eq!(wait(&drain, back, 200, 900).as_secs_f64().round(), 10.0);
        assert_eq!(wait(&drain, back, 200, 1_001), Duration::ZERO);
    }

    #[test]
    fn an_outage_in_the_middle_of_a_drain_forgets_no_rate() {
        let drain = Drain::new(4.0);
        let (back, _) = after_an_outage(&drain, Instant::now(), 5);
        drain.turn(back, 900);
        drain.called(back);
        drain.fails(back + SECOND);
        assert_eq!(drain.works(back + SECOND * 600, 2_000), Some(20.0));
    }

    #[test]
    fn who_was_hardly_called_is_called_ten_times_a_second() {
        let drain = Drain::new(4.0);
        assert_eq!(after_an_outage(&drain, Instant::now(), 0).1, Some(LEAST));
    }

    #[test]
    fn a_short_failure_changes_nothing_and_a_drain_ends() {
        let (drain, now) = (Drain::new(2.0), Instant::now());
        drain.fails(now);
        assert_eq!(drain.works(now + SECOND, 1_000), None);
        assert_eq!(wait(&drain, now + SECOND, 50, 0), Duration::ZERO);
        let (back, _) = after_an_outage(&drain, now, 10);
        assert!(wait(&drain, back, 3, 0) > Duration::ZERO);
        let later = back + SECOND * 120;
        assert_eq!(wait(&drain, later, 1, 2_000), Duration::ZERO);
        assert_eq!(wait(&drain, later, 50, 0), Duration::ZERO, "it is over");
    }
}
