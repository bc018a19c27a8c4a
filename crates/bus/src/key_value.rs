use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::kv::{self, Store};
use bytes::Bytes;
use futures::{TryStream, TryStreamExt};
use tokio::sync::Mutex;

use crate::{Bucket, Bus, BusError, Watch, backoff::Backoff, error::Cause};

/// What a value is sealed for.
pub(crate) fn place(bucket: Bucket, key: &str) -> String {
    format!("{bucket:?}/{key}")
}

/// Opens the value of an entry that was told.
pub(crate) fn opened(
    bus: &Bus,
    bucket: Bucket,
    mut entry: kv::Entry,
) -> Result<kv::Entry, BusError> {
    match bus.open(&place(bucket, &entry.key), entry.value) {
        Ok(value) => entry.value = value,
        Err(error) => {
            tracing::error!(?bucket, key = entry.key, %error, "a value cannot be opened");
            return Err(BusError::new("open a value", error));
        }
    }
    Ok(entry)
}

/// How long one try may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);

/// A bucket of values that the stages need at this moment. It may come back empty when the broker
/// is rebuilt, so nothing is kept only here. Cheap to clone.
///
/// Every operation is retried for the configured patience. Keys consist of letters, digits and
/// `-/_=.`, and neither start nor end with a dot.
#[derive(Debug, Clone)]
pub struct KeyValue {
    bus: Bus,
    bucket: Bucket,
    store: Arc<Mutex<Option<Store>>>,
}

/// A value with the number of the write that set it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Versioned {
    /// The value; `None` where there is none.
    pub value: Option<Bytes>,
    /// The number of the last write of the key, removals included; 0 where there was none.
    pub revision: u64,
}

impl Bus {
    /// Returns a bucket. Nothing is sent before the first operation.
    #[must_use]
    pub fn key_value(&self, bucket: Bucket) -> KeyValue {
        KeyValue { bus: self.clone(), bucket, store: Arc::default() }
    }
}

impl KeyValue {
    /// Returns the value of a key, or nothing where there is none.
    ///
    /// # Errors
    ///
    /// When the broker does not answer for the configured patience, or the key is malformed.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, BusError> {
        self.patiently("read a key", |store| async move {
            let value = store.get(key).await?;
            Ok(value.map(|value| self.bus.open(&place(self.bucket, key), value)).transpose()?)
        })
        .await
    }

    /// Sets the value of a key and returns when that is stored.
    ///
    /// # Errors
    ///
    /// As [`KeyValue::get`].
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<(), BusError> {
        let value = self.bus.seal(&place(self.bucket, key), value.into());
        self.patiently("write a key", |store| {
            let value = value.clone();
            async move {
                store.put(key, value).await?;
                Ok(())
            }
        })
        .await
    }

    /// Returns the value of a key with its revision, for [`KeyValue::replace`].
    ///
    /// # Errors
    ///
    /// As [`KeyValue::get`].
    pub async fn read(&self, key: &str) -> Result<Versioned, BusError> {
        self.patiently("read a key", |store| async move {
            let Some(entry) = store.entry(key).await? else { return Ok(Versioned::default()) };
            let value = (entry.operation == kv::Operation::Put).then_some(entry.value);
            let open = |value| self.bus.open(&place(self.bucket, key), value);
            Ok(Versioned { value: value.map(open).transpose()?, revision: entry.revision })
        })
        .await
    }

    /// Sets the value of a key if nobody has written it since `revision`, and returns the new
    /// revision; `None` where somebody has.
    ///
    /// A write whose answer was lost may have happened: then the repetition finds it and returns
    /// `None` as well, so whoever must know puts a mark of its own into the value.
    ///
    /// # Errors
    ///
    /// As [`KeyValue::get`].
    pub async fn replace(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        revision: u64,
    ) -> Result<Option<u64>, BusError> {
        let value = self.bus.seal(&place(self.bucket, key), value.into());
        self.patiently("replace a key", |store| {
            let value = value.clone();
            async move {
                match store.update(key, value, revision).await {
                    Ok(revision) => Ok(Some(revision)),
                    Err(error) if error.kind() == kv::UpdateErrorKind::WrongLastRevision => {
                        Ok(None)
                    }
                    Err(error) => Err(error.into()),
                }
            }
        })
        .await
    }

    /// Removes a key. Removing what is not there changes nothing.
    ///
    /// # Errors
    ///
    /// As [`KeyValue::get`].
    pub async fn delete(&self, key: &str) -> Result<(), BusError> {
        self.patiently("delete a key", |store| async move { Ok(store.delete(key).await?) }).await
    }

    /// Returns all keys, in no order.
    ///
    /// # Errors
    ///
    /// As [`KeyValue::get`].
    pub async fn keys(&self) -> Result<Vec<String>, BusError> {
        self.patiently("list keys", |store| async move {
            Ok(store.keys().await?.try_collect::<Vec<_>>().await?)
        })
        .await
    }

    /// Returns all keys one after the other: there may be very many of them.
    pub(crate) async fn each_key(
        &self,
    ) -> Result<impl TryStream<Ok = String, Error = BusError> + use<>, BusError> {
        let keys = self.patiently("list keys", |store| async move { Ok(store.keys().await?) });
        Ok(keys.await?.map_err(|error| BusError::new("list keys", error)))
    }

    pub(crate) fn bucket(&self) -> Bucket {
        self.bucket
    }

    /// Follows all keys: first their values as they stand, then every change.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::new(self.bus.clone(), self.bucket)
    }

    pub(crate) async fn patiently<T, F: Future<Output = Result<T, Cause>>>(
        &self,
        action: &str,
        operation: impl Fn(Store) -> F,
    ) -> Result<T, BusError> {
        let deadline = Instant::now() + self.bus.config().publish_patience;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            let mut connections = self.bus.connections();
            connections.mark_unchanged();
            let cause: Cause = tokio::select! {
                tried = async { operation(self.store().await?).await } => match tried {
                    Ok(value) => return Ok(value),
                    Err(cause) => cause,
                },
                // The answer to what was sent on the old connection never comes.
                _ = connections.changed() => "the connection was lost".into(),
                () = tokio::time::sleep(TRY_TIMEOUT) => "there was no answer".into(),
            };
            // The bucket may be gone; the next try creates it.
            *self.store.lock().await = None;
            if Instant::now() >= deadline {
                let name = self.bus.names().bucket(self.bucket);
                return Err(BusError::new(format!("{action} in `{name}`"), cause));
            }
            tracing::debug!(%cause, action, "trying a bucket again");
            backoff.wait().await;
        }
    }

    async fn store(&self) -> Result<Store, BusError> {
        let mut store = self.store.lock().await;
        if let Some(store) = &*store {
            return Ok(store.clone());
        }
        let found = self.bus.provision_bucket(self.bucket).await?;
        *store = Some(found.clone());
        Ok(found)
    }
}
