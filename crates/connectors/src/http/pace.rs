//! Reads an API that answers slowly more slowly, and faster again when it recovers.

use std::time::Duration;

/// Answers below this are never slow.
const FLOOR_MS: f64 = 20.0;

/// Answers from which the usual time is learnt, if nothing is known of it.
const LEARN: usize = 3;

/// Longest pause between two calls.
const LONGEST: Duration = Duration::from_secs(30);

/// Watches how long answers take.
pub(super) struct Pace {
    factor: f64,
    usual_ms: Option<f64>,
    first: Vec<f64>,
    pause: Duration,
}

impl Pace {
    /// `factor`: so many times the usual is slow; 0: nothing is. `usual_ms` is what earlier runs
    /// have learnt.
    pub(super) fn new(factor: f64, usual_ms: Option<u32>) -> Self {
        Self { factor, usual_ms: usual_ms.map(f64::from), first: Vec::new(), pause: Duration::ZERO }
    }

    /// Takes an answer in, and returns how long to wait before the next call.
    pub(super) fn answered(&mut self, took: Duration) -> Duration {
        let took_ms = took.as_secs_f64() * 1_000.0;
        let Some(usual) = self.usual_ms else {
            self.first.push(took_ms);
            if self.first.len() == LEARN {
                self.first.sort_by(f64::total_cmp);
                self.usual_ms = Some(self.first[LEARN / 2]);
            }
            return Duration::ZERO;
        };
        if self.factor > 0.0 && took_ms > self.factor * usual.max(FLOOR_MS) {
            self.pause = (self.pause * 2).max(took).min(LONGEST);
        } else {
            self.usual_ms = Some(usual * 0.9 + took_ms * 0.1);
            self.pause /= 2;
            if self.pause < Duration::from_millis(10) {
                self.pause = Duration::ZERO;
            }
        }
        self.pause
    }

    /// Returns how long an answer usually takes, once that is known.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
    pub(super) fn usual_ms(&self) -> Option<u32> {
        self.usual_ms.map(|usual| usual.clamp(0.0, 3_600_000.0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(50);
    const SLOW: Duration = Duration::from_millis(500);

    #[test]
    fn a_slow_api_is_left_alone_until_it_recovers() {
        let mut pace = Pace::new(4.0, None);
        assert!((0..20).all(|_| pace.answered(FAST).is_zero()));
        let pauses: Vec<_> = (0..4).map(|_| pace.answered(SLOW)).collect();
        assert_eq!(pauses, [SLOW, SLOW * 2, SLOW * 4, SLOW * 8]);
        let recovered: Vec<_> = (0..12).map(|_| pace.answered(FAST)).collect();
        assert!(recovered.is_sorted_by(|a, b| a >= b));
        assert_eq!(recovered.last(), Some(&Duration::ZERO));
        assert_eq!(pace.usual_ms(), Some(50));
    }

    #[test]
    fn pauses_are_bounded_and_can_be_turned_off() {
        let mut pace = Pace::new(4.0, Some(50));
        assert!((0..40).all(|_| pace.answered(SLOW) <= LONGEST));
        let mut never = Pace::new(0.0, Some(50));
        assert!((0..9).all(|_| never.answered(SLOW).is_zero()));
    }
}
