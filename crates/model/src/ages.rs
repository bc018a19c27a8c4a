use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// How old changes were at some moment: numbers of changes by class of age.
///
/// Class `n` holds the ages from `2^(n/4) - 1` to `2^((n+1)/4) - 1` milliseconds, so a class is at
/// most a fifth wider than its lower end, and the ages of a century fit in 170 classes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ages(BTreeMap<u32, u64>);

/// Classes in which an age doubles.
const PER_DOUBLING: f64 = 4.0;

impl Ages {
    /// Counts one change. A negative age, which two clocks may give, counts as none.
    pub fn add(&mut self, age_ms: i64) {
        let age_ms = age_ms.max(0);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a class is wider than the loss, and the logarithm is small and not negative"
        )]
        let class = ((age_ms as f64 + 1.0).log2() * PER_DOUBLING).floor() as u32;
        *self.0.entry(class).or_default() += 1;
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        for (class, number) in &other.0 {
            *self.0.entry(*class).or_default() += number;
        }
    }

    /// Number of changes.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Tells whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The age that a share of the changes does not exceed, `share` from 0 to 1: the upper end of
    /// its class. `None` where nothing was counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "counts are small against 2^53")]
        let wanted = share.clamp(0.0, 1.0) * self.count() as f64;
        let mut seen = 0.0;
        let mut last = None;
        for (class, number) in &self.0 {
            #[expect(clippy::cast_precision_loss, reason = "counts are small against 2^53")]
            let number = *number as f64;
            seen += number;
            last = Some(*class);
            if seen >= wanted {
                break;
            }
        }
        let upper_ms = ((f64::from(last?) + 1.0) / PER_DOUBLING).exp2() - 1.0;
        Some(Duration::from_secs_f64(upper_ms / 1_000.0))
    }

    /// The classes with their numbers, by class.
    pub fn classes(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.0.iter().map(|(class, number)| (*class, *number))
    }
}

impl FromIterator<(u32, u64)> for Ages {
    fn from_iter<I: IntoIterator<Item = (u32, u64)>>(classes: I) -> Self {
        let mut ages = Self::default();
        // Beyond any age that a time can have; it may come from another version.
        for (class, number) in classes.into_iter().filter(|(class, _)| *class < 256) {
            *ages.0.entry(class).or_default() += number;
        }
        ages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_quantile_and_a_clock_that_is_behind_gives_no_age() {
        let mut ages = Ages::default();
        assert_eq!(ages.quantile(0.5), None);
        ages.add(-5);
        assert!(ages.quantile(1.0).unwrap() < Duration::from_millis(1));
    }

    #[test]
    fn quantiles_are_right_to_a_class() {
        let mut ages = Ages::default();
        for age_ms in 1..=10_000 {
            ages.add(age_ms);
        }
        for (share, exact) in [(0.5, 5.0), (0.95, 9.5)] {
            let found = ages.quantile(share).unwrap().as_secs_f64();
            assert!(found >= exact && found < exact * 1.2, "{share}: {found}");
        }
    }

    #[test]
    fn merging_is_counting_together() {
        let (mut one, mut two, mut both) = (Ages::default(), Ages::default(), Ages::default());
        for age_ms in [3, 70, 70_000, i64::MAX] {
            one.add(age_ms);
            both.add(age_ms);
        }
        for age_ms in [0, 70] {
            two.add(age_ms);
            both.add(age_ms);
        }
        one.merge(&two);
        assert_eq!(one, both);
        assert_eq!(both.classes().collect::<Ages>(), both);
    }
}
