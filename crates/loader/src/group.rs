use std::sync::Arc;

use bus::{Consumer, Delivery};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How much is written together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
}

/// Deliveries that are written together.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) deliveries: Vec<Delivery>,
    bytes: usize,
}

impl Group {
    fn new(first: Delivery) -> Self {
        let bytes = first.damaged_payload().len();
        Self { deliveries: vec![first], bytes }
    }

    fn has_room(&self, limits: Limits) -> bool {
        self.deliveries.len() < limits.messages && self.bytes < limits.bytes
    }

    fn push(&mut self, delivery: Delivery) {
        self.bytes += delivery.damaged_payload().len();
        self.deliveries.push(delivery);
    }

    /// Takes what is there, and what comes while there is no place to write it; `None` when `ending`
    /// comes first.
    pub(crate) async fn gather(
        consumer: &mut Consumer,
        limits: Limits,
        places: &Arc<Semaphore>,
        ending: &CancellationToken,
    ) -> Option<(Self, OwnedSemaphorePermit)> {
        let mut group = Self::new(consumer.next(ending).await?);
        loop {
            tokio::select! {
                biased;
                delivery = consumer.next(ending), if group.has_room(limits) => {
                    group.push(delivery?);
                }
                place = Arc::clone(places).acquire_owned() => {
                    return Some((group, place.expect("the semaphore is never closed")));
                }
                () = ending.cancelled() => return None,
            }
        }
    }
}
