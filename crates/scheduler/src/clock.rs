//! The time of day that all schedulers agree on.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Instant,
};

use chrono::{DateTime, Utc};
use runtime::clock::Clock;

/// A clock that moves by more against another has been set.
const MOVED_US: u64 = 2_000_000;

/// The clock of the database. Between two looks at it the monotonic clock of this machine keeps it
/// going, so that nothing is decided by a machine whose time of day was just set.
#[derive(Debug)]
pub(crate) struct SharedClock {
    machine: Clock,
    origin: Instant,
    /// What it showed at the origin, in microseconds since 1970.
    at_origin_us: AtomicI64,
    /// How far it was ahead of the machine's at the last look.
    ahead_us: AtomicI64,
}

impl SharedClock {
    /// Takes the time of day of the machine until the first look at the database.
    pub(crate) fn new(machine: Clock) -> Self {
        let at_origin_us = AtomicI64::new(machine.now_ns() / 1_000);
        Self { machine, origin: Instant::now(), at_origin_us, ahead_us: AtomicI64::new(0) }
    }

    /// The time of day, to the microsecond, which is what the database keeps.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        let now_us =
            self.at_origin_us.load(Ordering::Relaxed) + self.since_origin_us(Instant::now());
        DateTime::from_timestamp_micros(now_us).unwrap_or_default()
    }

    /// Sets it by what the database answered to a question that was asked at `asked`. Returns how
    /// far the database is ahead of the machine, in microseconds, when that has changed much.
    pub(crate) fn set(&self, theirs: DateTime<Utc>, asked: Instant) -> Option<i64> {
        let answered = Instant::now();
        let half_way = asked + (answered - asked) / 2;
        let theirs_us = theirs.timestamp_micros();
        self.at_origin_us.store(theirs_us - self.since_origin_us(half_way), Ordering::Relaxed);
        let ahead_us = theirs_us - self.machine.now_ns() / 1_000;
        let former_us = self.ahead_us.swap(ahead_us, Ordering::Relaxed);
        (ahead_us.abs_diff(former_us) > MOVED_US).then_some(ahead_us)
    }

    fn since_origin_us(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const HOUR_NS: i64 = 3_600_000_000_000;

    fn near(one: DateTime<Utc>, other: DateTime<Utc>) -> bool {
        (one - other).abs() < TimeDelta::minutes(1)
    }

    #[test]
    fn a_machine_whose_clock_is_set_moves_it_at_no_moment() {
        let machine = Clock::standing_at(HOUR_NS);
        let clock = SharedClock::new(machine.clone());
        let theirs = DateTime::from_timestamp_nanos(2 * HOUR_NS);
        assert_eq!(clock.set(theirs, Instant::now()), Some(HOUR_NS / 1_000));
        assert!(near(clock.now(), theirs));
        machine.advance(24 * HOUR_NS);
        assert!(near(clock.now(), theirs), "before the next look at the database");
        assert_eq!(clock.set(theirs, Instant::now()), Some(-23 * HOUR_NS / 1_000));
        assert!(near(clock.now(), theirs));
    }

    #[test]
    fn a_database_whose_clock_goes_on_as_ours_is_no_news() {
        let clock = SharedClock::new(Clock::standing_at(HOUR_NS));
        let theirs = DateTime::from_timestamp_nanos(HOUR_NS + 1_000_000_000);
        assert_eq!(clock.set(theirs, Instant::now()), None);
    }
}
