use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::PipelineName;
use twox_hash::XxHash3_128;

/// Deliveries that are safe already, at least the last so many. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Seen {
    generations: Arc<Mutex<Generations>>,
}

struct Generations {
    capacity: usize,
    young: HashSet<u128>,
    old: HashSet<u128>,
}

/// Names a delivery to a pipeline.
pub(crate) fn delivery(pipeline: &PipelineName, id: &str) -> u128 {
    XxHash3_128::oneshot(format!("{pipeline}/{id}").as_bytes())
}

impl Seen {
    pub(crate) fn new(remembered: usize) -> Self {
        let generations =
            Generations { capacity: remembered, young: HashSet::new(), old: HashSet::new() };
        Self { generations: Arc::new(Mutex::new(generations)) }
    }

    pub(crate) fn contains(&self, delivery: u128) -> bool {
        let generations = self.lock();
        generations.young.contains(&delivery) || generations.old.contains(&delivery)
    }

    pub(crate) fn insert(&self, deliveries: &[u128]) {
        let mut generations = self.lock();
        for delivery in deliveries {
            generations.young.insert(*delivery);
        }
        // Together both hold at least `capacity`, once so many came, and at most one more half.
        if generations.young.len() >= generations.capacity {
            generations.old = std::mem::take(&mut generations.young);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_deliveries_are_remembered_and_memory_is_bounded() {
        let seen = Seen::new(1_000);
        for delivery in 0..10_000 {
            seen.insert(&[delivery]);
        }
        assert!((9_000..10_000).all(|delivery| seen.contains(delivery)));
        assert!(!seen.contains(1) && !seen.contains(10_000));
        let generations = seen.lock();
        assert!(generations.young.len() + generations.old.len() <= 2_000);
    }

    #[test]
    fn one_id_of_two_pipelines_is_two_deliveries() {
        let name = |text: &str| text.parse::<PipelineName>().unwrap();
        assert_ne!(delivery(&name("a"), "1"), delivery(&name("b"), "1"));
    }
}
