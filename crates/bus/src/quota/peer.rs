use serde::{Deserialize, Serialize};

/// The longest that a peer may make everybody wait: an absurd answer stops nothing for good.
const LONGEST_PAUSE: i64 = 3_600 * 1_000_000;
/// The first pause after a refusal that names none; each further one is twice as long, up to 64 s.
const FIRST_PAUSE: i64 = 1_000_000;
const MOST_DOUBLINGS: u32 = 6;
/// What is left of the share of the limits after a refusal, and its floor.
const LESS: f64 = 0.7;
const LEAST: f64 = 0.01;
/// What the share grows by in a window without a refusal.
const MORE: f64 = 0.02;
/// Two announced resets that differ by less are the same one.
const SAME_RESET: i64 = 1_500_000;

/// What an answer of the peer says about the budget. Times are microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// When the answer was there.
    pub(super) at: i64,
    /// The call was one too many.
    pub(super) refused: bool,
    /// How long the peer wants no call.
    pub(super) retry_after: Option<i64>,
    /// Calls that are left until the reset, and how long until then.
    pub(super) left: Option<(u64, i64)>,
}

/// What the peer has said about the budget, which corrects our own count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Peer {
    /// No call before.
    pub(super) paused_until: i64,
    /// Refusals in a row.
    refusals: u32,
    /// Refusals ever.
    pub(super) refused: u64,
    /// Calls that may still be handed out until a time.
    left: Option<(i64, i64)>,
    /// Share of the limits that the peer seems to take.
    pub(super) share: f64,
    /// Since when the share has grown.
    share_at: i64,
}

impl Default for Peer {
    fn default() -> Self {
        Self { paused_until: 0, refusals: 0, refused: 0, left: None, share: 1.0, share_at: 0 }
    }
}

impl Peer {
    /// Takes an answer in. `outstanding` calls may not have been counted by the peer yet.
    pub(super) fn hear(&mut self, heard: Heard, outstanding: i64, adaptive: bool) {
        // Calls that were on their way when the pause began say nothing new.
        let after_pause = heard.at >= self.paused_until;
        if heard.refused {
            if after_pause {
                self.refusals = self.refusals.saturating_add(1);
                if adaptive {
                    self.share = (self.share * LESS).max(LEAST);
                    self.share_at = heard.at;
                }
            }
            self.refused += 1;
            let doublings = self.refusals.saturating_sub(1).min(MOST_DOUBLINGS);
            let pause = heard.retry_after.unwrap_or(FIRST_PAUSE << doublings);
            let until = heard.at + pause.clamp(0, LONGEST_PAUSE);
            if after_pause || heard.retry_after.is_some() {
                self.paused_until = self.paused_until.max(until);
            }
        } else if after_pause {
            self.refusals = 0;
        }
        if let Some((calls, reset)) = heard.left {
            let until = heard.at + reset.clamp(0, LONGEST_PAUSE);
            let calls = i64::try_from(calls).unwrap_or(i64::MAX) - outstanding;
            self.left = Some(match self.left {
                Some((known, then)) if (then - until).abs() < SAME_RESET => {
                    (known.min(calls), then.max(until))
                }
                // Of two resets the later one is of the newer answer, unless that one came late.
                Some(known) if known.1 > until => known,
                Some(_) | None => (calls, until),
            });
        }
    }

    /// Returns how many calls the peer leaves, if it has said so.
    pub(super) fn left(&self, at: i64) -> Option<i64> {
        self.left.filter(|(_, until)| at < *until).map(|(calls, _)| calls)
    }

    /// Returns when the peer's limit ends that is in force.
    pub(super) fn reset(&self) -> Option<i64> {
        self.left.map(|(_, until)| until)
    }

    /// Notes that calls were handed out, or given back with a negative number.
    pub(super) fn take(&mut self, calls: i64) {
        if let Some((left, _)) = &mut self.left {
            *left -= calls;
        }
    }

    /// Lets the share grow and forgets what is over. `window` is the shortest one.
    pub(super) fn go_on(&mut self, now: i64, window: i64) {
        if self.left.is_some_and(|(_, until)| until <= now) {
            self.left = None;
        }
        if self.share < 1.0 && now > self.share_at {
            #[expect(clippy::cast_precision_loss, reason = "a share is an estimate")]
            let windows = (now - self.share_at) as f64 / window.max(1) as f64;
            self.share = (self.share + MORE * windows).min(1.0);
            self.share_at = now;
        }
    }

    /// Returns the part of a limit that the peer seems to take, at least one call.
    pub(super) fn of(&self, calls: u32) -> i64 {
        if self.share >= 1.0 {
            return i64::from(calls);
        }
        #[expect(clippy::cast_possible_truncation, reason = "less than the number of calls")]
        let part = (f64::from(calls) * self.share) as i64;
        part.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn refused(at: i64, retry_after: Option<i64>) -> Heard {
        Heard { at, refused: true, retry_after, left: None }
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept_but_not_for_ever() {
        let mut peer = Peer::default();
        peer.hear(refused(SECOND, Some(7 * SECOND)), 0, false);
        assert_eq!(peer.paused_until, 8 * SECOND);
        // An answer that was on its way cannot shorten it.
        peer.hear(refused(2 * SECOND, Some(SECOND)), 0, false);
        assert_eq!(peer.paused_until, 8 * SECOND);
        peer.hear(refused(9 * SECOND, Some(i64::MAX / 2)), 0, false);
        assert_eq!(peer.paused_until, 9 * SECOND + LONGEST_PAUSE);
    }

    #[test]
    fn refusals_in_a_row_make_longer_pauses() {
        let mut peer = Peer::default();
        let mut pauses = Vec::new();
        let mut now = SECOND;
        for _ in 0..8 {
            peer.hear(refused(now, None), 0, false);
            pauses.push((peer.paused_until - now) / SECOND);
            // Three at the same moment are one.
            peer.hear(refused(now + 1, None), 0, false);
            now = peer.paused_until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64]);
        let answered = Heard { at: now, refused: false, retry_after: None, left: None };
        peer.hear(answered, 0, false);
        peer.hear(refused(now, None), 0, false);
        assert_eq!(peer.paused_until - now, SECOND);
    }

    #[test]
    fn what_is_left_counts_down_until_the_reset() {
        let mut peer = Peer::default();
        let left = |at, calls, reset| Heard {
            at,
            refused: false,
            retry_after: None,
            left: Some((calls, reset)),
        };
        peer.hear(left(SECOND, 10, 9 * SECOND), 3, false);
        assert_eq!(peer.left(2 * SECOND), Some(7));
        peer.take(4);
        assert_eq!(peer.left(2 * SECOND), Some(3));
        // An older answer that comes late knows more to be left than there is.
        peer.hear(left(SECOND + 10, 9, 9 * SECOND), 0, false);
        assert_eq!(peer.left(2 * SECOND), Some(3));
        assert_eq!(peer.left(10 * SECOND + 10), None);
        peer.hear(left(11 * SECOND, 100, 9 * SECOND), 0, false);
        assert_eq!(peer.left(12 * SECOND), Some(100));
    }

    #[test]
    fn an_adaptive_share_falls_by_refusals_and_grows_without() {
        let mut peer = Peer::default();
        peer.hear(refused(SECOND, None), 0, true);
        assert_eq!(peer.of(100), 70);
        peer.go_on(6 * SECOND, SECOND);
        assert_eq!(peer.of(100), 80);
        peer.go_on(60 * SECOND, SECOND);
        assert_eq!(peer.of(100), 100);
        for at in 0..100 {
            let at = peer.paused_until + at;
            peer.hear(refused(at, None), 0, true);
        }
        assert_eq!(peer.of(10), 1);
    }
}
