use std::time::Duration;

use rand::Rng;

/// Waits that double up to a limit, each shortened at random by up to a half, so that many who
/// failed together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, next: first, max }
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.advance()).await;
    }

    fn advance(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        delay.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_start_over() {
        let (first, max) = (Duration::from_millis(10), Duration::from_millis(35));
        let mut backoff = Backoff::new(first, max);
        for expected in [10, 20, 35, 35] {
            let delay = backoff.advance();
            let expected = Duration::from_millis(expected);
            assert!(delay <= expected && delay >= expected / 2, "{delay:?} for {expected:?}");
        }
        backoff.reset();
        assert!(backoff.advance() <= first);
    }
}
