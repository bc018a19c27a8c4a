use model::Limit;
use serde::{Deserialize, Serialize};

/// Parts of a window in which ended calls are counted together.
const BINS: i64 = 100;

/// A window is taken to be longer by this part, because the clock of the peer may run at another
/// speed than the broker's.
const SLACK: i64 = 1_000;

/// The ended calls that a limit still counts. Times are microseconds.
///
/// Calls are counted in bins. A call counts until the end of its bin is a window ago, which is
/// never too short and a hundredth of the window too long at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    /// The limit.
    pub(super) limit: Limit,
    /// Number of the first bin.
    first: i64,
    /// Ended calls by bin.
    ended: Vec<u32>,
}

impl Window {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, first: 0, ended: Vec::new() }
    }

    /// Makes the window of a limit that knows what another window has counted.
    pub(super) fn informed_by(limit: Limit, other: &Self) -> Self {
        let mut window = Self::new(limit);
        for (end, calls) in other.bins() {
            window.count(end - 1, calls);
        }
        window
    }

    /// Makes the same window with another limit of the same length.
    pub(super) fn with(&self, limit: Limit) -> Self {
        Self { limit, ..self.clone() }
    }

    /// Length in microseconds.
    pub(super) fn length(&self) -> i64 {
        i64::try_from(self.limit.window_ms).unwrap_or(i64::MAX / 4_000) * 1_000
    }

    /// How long an ended call counts from the end of its bin.
    fn reach(&self) -> i64 {
        self.length() + self.length() / SLACK
    }

    fn bin(&self) -> i64 {
        (self.length() / BINS).max(1)
    }

    /// Counts calls that ended at a time.
    pub(super) fn count(&mut self, time: i64, calls: u32) {
        if calls == 0 {
            return;
        }
        let bin = time.div_euclid(self.bin());
        if self.ended.is_empty() {
            self.first = bin;
        }
        while bin < self.first {
            self.ended.insert(0, 0);
            self.first -= 1;
        }
        let index = usize::try_from(bin - self.first).expect("the first bin is not later");
        if index >= self.ended.len() {
            self.ended.resize(index + 1, 0);
        }
        self.ended[index] = self.ended[index].saturating_add(calls);
    }

    /// Returns the ends of the bins and their calls.
    fn bins(&self) -> impl Iterator<Item = (i64, u32)> {
        let (first, bin) = (self.first, self.bin());
        (first + 1..).map(move |number| number * bin).zip(self.ended.iter().copied())
    }

    /// Returns how many ended calls count at a time.
    pub(super) fn counted(&self, at: i64) -> i64 {
        let bins = self.bins().filter(|(end, _)| end + self.reach() > at);
        bins.map(|(_, calls)| i64::from(calls)).sum()
    }

    /// Returns the times at which calls cease to count, with their number, earliest first.
    pub(super) fn frees(&self) -> impl Iterator<Item = (i64, u32)> {
        self.bins().filter(|(_, calls)| *calls > 0).map(|(end, calls)| (end + self.reach(), calls))
    }

    /// Forgets what does not count any more.
    pub(super) fn forget(&mut self, now: i64) {
        let reach = self.reach();
        let old = self.bins().take_while(|(end, calls)| *calls == 0 || end + reach <= now).count();
        self.ended.drain(..old);
        self.first += i64::try_from(old).expect("bins are few");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_call_counts_for_at_least_its_window_and_little_longer() {
        let limit = Limit { calls: 10, window_ms: 1_000 };
        for offset in (0..SECOND).step_by(997) {
            let mut window = Window::new(limit);
            let time = 5 * SECOND + offset;
            window.count(time, 3);
            assert_eq!(window.counted(time + SECOND), 3, "{offset}");
            assert_eq!(window.counted(time + SECOND + SECOND / 80), 0, "{offset}");
            window.forget(time + SECOND);
            assert_eq!(window.counted(time), 3);
            window.forget(time + 2 * SECOND);
            assert_eq!(window.counted(time), 0);
        }
    }

    #[test]
    fn calls_may_be_told_in_any_order() {
        let limit = Limit { calls: 10, window_ms: 60_000 };
        let mut window = Window::new(limit);
        for second in [30, 10, 50, 10] {
            window.count(second * SECOND, 1);
        }
        assert_eq!(window.counted(30 * SECOND), 4);
        assert_eq!(window.counted(80 * SECOND), 2);
        assert_eq!(window.frees().count(), 3);
        let longer = Window::informed_by(Limit { calls: 5, window_ms: 3_600_000 }, &window);
        assert_eq!(longer.counted(3_000 * SECOND), 4);
    }
}
