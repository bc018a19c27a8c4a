//! How long to wait before a failed call is repeated.

use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// When and how often a failed call is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Repetitions after one failure before the work is given back to the queue. Default 6.
    pub attempts: u32,
    /// Wait before the first repetition; it doubles each time. Default `200ms`.
    #[serde(with = "runtime::config::duration")]
    pub first_delay: Duration,
    /// Longest wait that is chosen here; a peer may ask for a longer one. Default `30s`.
    #[serde(with = "runtime::config::duration")]
    pub max_delay: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(30),
        }
    }
}

/// A wait between repetitions cannot be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`first_delay` is not between 1ms and `max_delay`")]
pub struct InvalidPolicy;

impl Policy {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// When the first wait is nothing, or longer than the longest.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        if self.first_delay.is_zero() || self.first_delay > self.max_delay {
            return Err(InvalidPolicy);
        }
        Ok(())
    }
}

/// Waits that double up to a limit, each shortened at random by up to a half, so that many who
/// failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: Policy,
    failures: u32,
}

impl Backoff {
    /// Starts with no failure.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Tells whether the repetitions are used up.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.failures >= self.policy.attempts
    }

    /// Counts a failure and returns how long to wait: the longer of the own wait and what the peer
    /// has asked for.
    pub fn fail(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        let delay = self.policy.first_delay.saturating_mul(doubled).min(self.policy.max_delay);
        let delay = delay.mul_f64(rand::rng().random_range(0.5..=1.0));
        delay.max(asked.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_cannot_wait_is_refused() {
        let none = Policy { first_delay: Duration::ZERO, ..Policy::default() };
        assert_eq!(none.validate(), Err(InvalidPolicy));
        let reversed = Policy { max_delay: Duration::from_millis(1), ..Policy::default() };
        assert_eq!(reversed.validate(), Err(InvalidPolicy));
        assert_eq!(Policy::default().validate(), Ok(()));
    }

    #[test]
    fn waits_grow_to_the_limit_and_start_over() {
        let policy = Policy { attempts: 100, ..Policy::default() };
        let mut backoff = Backoff::new(policy);
        for failures in 0..40 {
            let expected = policy.first_delay.saturating_mul(2_u32.saturating_pow(failures));
            let expected = expected.min(policy.max_delay);
            let delay = backoff.fail(None);
            assert!(delay <= expected && delay >= expected / 2, "{delay:?} for {expected:?}");
        }
        backoff.reset();
        assert!(backoff.fail(None) <= policy.first_delay);
    }

    #[test]
    fn a_peer_may_ask_for_a_longer_wait() {
        let mut backoff = Backoff::new(Policy::default());
        let asked = Duration::from_secs(3600);
        assert_eq!(backoff.fail(Some(asked)), asked);
    }

    #[test]
    fn repetitions_are_counted() {
        let mut backoff = Backoff::new(Policy { attempts: 1, ..Policy::default() });
        assert!(!backoff.is_spent());
        backoff.fail(None);
        assert!(backoff.is_spent());
    }
}
