use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::kv;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Bucket, Bus, BusError, backoff::Backoff, key_value};

/// What happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It has this value now.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: Bytes,
    },
    /// It was removed.
    Delete {
        /// The key.
        key: String,
    },
}

/// Follows a bucket across outages.
///
/// After an outage the bucket is read again, and only what differs from what was told before is
/// told. A broker that comes back empty deletes no key: only a delete that somebody asked for is
/// told as one.
pub struct Watch {
    bus: Bus,
    bucket: Bucket,
    connections: watch::Receiver<u64>,
    entries: Option<kv::Watch>,
    /// Hash of the last value that was told, by key.
    told: HashMap<String, u64>,
    backoff: Backoff,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(bus: Bus, bucket: Bucket) -> Self {
        let connections = bus.connections();
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
        Self { bus, bucket, connections, entries: None, told: HashMap::new(), backoff }
    }

    /// Waits for the next change, however long the broker is away. Returns `None` only on shutdown.
    /// Dropping the future loses nothing.
    pub async fn next(&mut self, shutdown: &CancellationToken) -> Option<Change> {
        loop {
            let entry = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                entry = self.entry() => entry,
            };
            match entry {
                Ok(entry) => {
                    self.backoff.reset();
                    if let Some(change) = self.tell(entry) {
                        return Some(change);
                    }
                }
                Err(error) => {
                    self.entries = None;
                    tracing::debug!(%error, bucket = ?self.bucket, "watching a bucket anew");
                    tokio::select! {
                        () = shutdown.cancelled() => return None,
                        () = self.backoff.wait() => {}
                    }
                }
            }
        }
    }

    async fn entry(&mut self) -> Result<kv::Entry, BusError> {
        if self.entries.is_none() {
            self.connections.mark_unchanged();
            let store = self.bus.provision_bucket(self.bucket).await?;
            let entries = store
                .watch_with_history(">")
                .await
                .map_err(|error| BusError::new("watch a bucket", error))?;
            self.entries = Some(entries);
        }
        let entries = self.entries.as_mut().expect("it was just opened");
        tokio::select! {
            biased;
            // The numbers of a broker that came back empty start over, so the watch has to as well.
            _ = self.connections.changed() => {
                Err(BusError::new("watch a bucket", "the connection was made anew"))
            }
            entry = entries.next() => match entry {
                Some(Ok(entry)) => key_value::opened(&self.bus, self.bucket, entry),
                Some(Err(error)) => Err(BusError::new("watch a bucket", error)),
                None => Err(BusError::new("watch a bucket", "the watch has ended")),
            },
        }
    }

    fn tell(&mut self, entry: kv::Entry) -> Option<Change> {
        match entry.operation {
            kv::Operation::Put => {
                let hash = twox_hash::XxHash3_64::oneshot(&entry.value);
                if self.told.insert(entry.key.clone(), hash) == Some(hash) {
                    return None;
                }
                Some(Change::Put { key: entry.key, value: entry.value })
            }
            kv::Operation::Delete | kv::Operation::Purge => {
                self.told.remove(&entry.key)?;
                Some(Change::Delete { key: entry.key })
            }
        }
    }
}
