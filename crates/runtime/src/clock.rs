//! The time of day as a value, so that a test can set it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// A clock. Cloning gives a second handle to the same clock.
#[derive(Clone, Default)]
pub struct Clock {
    /// The time that a test has set; nothing: the time of the machine.
    set: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// Returns the clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns a clock that stands still at `now_ns` until somebody advances it.
    #[must_use]
    pub fn standing_at(now_ns: i64) -> Self {
        Self { set: Some(Arc::new(AtomicI64::new(now_ns))) }
    }

    /// Returns the nanoseconds since 1970-01-01 UTC. The clock of the machine may go back.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        match &self.set {
            Some(time) => time.load(Ordering::SeqCst),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)),
        }
    }

    /// Moves a clock that stands still by `by_ns`, also backwards. The clock of the machine does
    /// not move.
    pub fn advance(&self, by_ns: i64) {
        if let Some(time) = &self.set {
            time.fetch_add(by_ns, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.set {
            Some(time) => write!(f, "Clock({})", time.load(Ordering::SeqCst)),
            None => f.write_str("Clock(system)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_clock_moves_only_when_told() {
        let clock = Clock::standing_at(5);
        let handle = clock.clone();
        assert_eq!(handle.now_ns(), 5);
        clock.advance(-7);
        assert_eq!(handle.now_ns(), -2);
    }

    #[test]
    fn the_system_clock_is_past_2020() {
        assert!(Clock::system().now_ns() > 1_577_836_800_000_000_000);
    }
}
