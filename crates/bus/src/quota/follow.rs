use std::time::{Duration, Instant};

use async_nats::jetstream::kv;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::{Bucket, Bus, BusError, backoff::Backoff, key_value};

/// A state of the document as the broker tells it.
#[derive(Debug)]
pub(super) struct Told {
    /// Number of the write.
    pub(super) revision: u64,
    /// When the broker stored it, by its clock, in microseconds.
    pub(super) stored: i64,
    /// `None`: the key was removed.
    pub(super) value: Option<Bytes>,
    /// When it was here.
    pub(super) arrived: Instant,
    /// The first one after the connection was made anew: the broker may be another one.
    pub(super) first: bool,
}

/// Tells every state of a quota's document, across outages, until nobody listens.
pub(super) async fn follow(bus: Bus, name: String, tell: mpsc::Sender<Told>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
    loop {
        tokio::select! {
            () = tell.closed() => return,
            told = tell_all(&bus, &name, &tell, &mut backoff) => {
                if let Err(error) = told {
                    tracing::debug!(%error, quota.name = name, "following a quota anew");
                }
            }
        }
        tokio::select! {
            () = tell.closed() => return,
            () = backoff.wait() => {}
        }
    }
}

async fn tell_all(
    bus: &Bus,
    name: &str,
    tell: &mpsc::Sender<Told>,
    backoff: &mut Backoff,
) -> Result<(), BusError> {
    let failed = |error: kv::WatchError| BusError::new("follow a quota", error);
    let mut connections = bus.connections();
    connections.mark_unchanged();
    let store = bus.provision_bucket(Bucket::Quotas).await?;
    let mut entries = store.watch_with_history(name).await.map_err(failed)?;
    let mut first = true;
    loop {
        let entry = tokio::select! {
            // What was watched may be of a broker that is gone.
            _ = connections.changed() => return Ok(()),
            entry = entries.next() => entry,
        };
        let arrived = Instant::now();
        let Some(entry) = entry else { return Ok(()) };
        let entry = entry.map_err(|error| BusError::new("follow a quota", error))?;
        let entry = key_value::opened(bus, Bucket::Quotas, entry)?;
        backoff.reset();
        let told = Told {
            revision: entry.revision,
            stored: entry.created.timestamp_micros(),
            value: (entry.operation == kv::Operation::Put).then_some(entry.value),
            arrived,
            first,
        };
        first = false;
        if tell.send(told).await.is_err() {
            return Ok(());
        }
    }
}
