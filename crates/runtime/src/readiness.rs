//! Whether a process can do its work: every part has said so.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// The latch behind `/health/ready`. Cloning gives another handle to the same latch.
///
/// Ready when every part is ready. Without parts it is not: nothing has started yet.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<watch::Sender<Parts>>,
}

type Parts = BTreeMap<String, bool>;

fn all_ready(parts: &Parts) -> bool {
    !parts.is_empty() && parts.values().all(|ready| *ready)
}

impl Readiness {
    /// Makes a latch that also waits for parts that have not come up yet.
    #[must_use]
    pub fn expecting<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let readiness = Self::default();
        for name in parts {
            readiness.part(name);
        }
        readiness
    }

    /// Returns the handle of a part, which is not ready at first. Asking again gives the same part.
    pub fn part(&self, name: &str) -> Part {
        self.parts.send_modify(|parts| {
            parts.entry(name.to_owned()).or_insert(false);
        });
        Part { name: name.to_owned(), readiness: self.clone() }
    }

    /// Tells whether every part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        all_ready(&self.parts.borrow())
    }

    /// Waits until every part is ready. Dropping the future is safe.
    pub async fn ready(&self) {
        let mut parts = self.parts.subscribe();
        // An error would mean that the latch is gone, but `self` holds it.
        drop(parts.wait_for(all_ready).await);
    }

    /// Returns the names of the parts that are waited for, sorted.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        let parts = self.parts.borrow();
        let waiting = parts.iter().filter(|(_, ready)| !**ready);
        waiting.map(|(name, _)| name.clone()).collect()
    }
}

/// One part of a process. It stays as it is when the handle is dropped.
#[derive(Debug, Clone)]
pub struct Part {
    name: String,
    readiness: Readiness,
}

impl Part {
    /// Says whether the part can do its work at the moment.
    pub fn set(&self, ready: bool) {
        self.readiness
            .parts
            .send_if_modified(|parts| parts.insert(self.name.clone(), ready) != Some(ready));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_started_is_not_ready() {
        assert!(!Readiness::default().is_ready());
    }

    #[test]
    fn ready_means_every_part() {
        let readiness = Readiness::expecting(["loader"]);
        let bus = readiness.part("bus");
        bus.set(true);
        assert_eq!(readiness.waiting_for(), ["loader"]);
        readiness.part("loader").set(true);
        assert!(readiness.is_ready());
        bus.set(false);
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_part() {
        let readiness = Readiness::expecting(["a", "b"]);
        readiness.part("a").set(true);
        let part = readiness.part("b");
        let (waited, ()) = tokio::join!(readiness.ready(), async { part.set(true) });
        assert_eq!(waited, ());
    }
}
