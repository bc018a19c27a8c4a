//! Sealing anew what is kept, so that older keys are not needed any more.

use std::collections::BTreeMap;

use async_nats::jetstream::{kv, stream::LastRawMessageErrorKind};
use futures::TryStreamExt;

use crate::{
    Bucket, Bus, BusError, KeyValue, OpenError, SealKeys, Stream, error::Cause, key_value::place,
    missing, sealed_with,
};

/// Values that are sealed anew at the same time.
const AT_ONCE: usize = 64;

/// What sealing anew has come to at one place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Renewal {
    /// How many are sealed with the newest key that were not before.
    pub renewed: u64,
    /// How many are still sealed with another key, by its id.
    pub left: BTreeMap<String, u64>,
    /// How many are damaged: no key opens them.
    pub damaged: u64,
}

impl Renewal {
    /// Counts what became of one text; `Ok(false)`: there was nothing to do.
    pub fn count(&mut self, outcome: Result<bool, OpenError>) {
        match outcome {
            Ok(renewed) => self.renewed += u64::from(renewed),
            Err(OpenError::NoKey { id }) => self.count_left(id),
            Err(OpenError::Damaged) => self.damaged += 1,
        }
    }

    /// Counts one that is still sealed with another key.
    pub fn count_left(&mut self, id: String) {
        *self.left.entry(id).or_default() += 1;
    }
}

impl Bus {
    /// Seals all values of a bucket with the newest key, those among them that are not sealed. What
    /// is written meanwhile stays as it was written.
    ///
    /// # Errors
    ///
    /// When the broker does not answer for the configured patience. Repeating it goes on.
    pub async fn renew(&self, bucket: Bucket, keys: &SealKeys) -> Result<Renewal, BusError> {
        let bucket = &self.key_value(bucket);
        let outcomes = bucket.each_key().await?.map_ok(|key| bucket.renew(key, keys));
        outcomes
            .try_buffer_unordered(AT_ONCE)
            .try_fold(Renewal::default(), |mut renewal, outcome| async {
                renewal.count(outcome);
                Ok(renewal)
            })
            .await
    }

    /// Returns the id of the key that the oldest message of a stream is sealed with; `None`: it is
    /// not sealed, or there is none. What is newer was sealed later.
    ///
    /// # Errors
    ///
    /// When JetStream does not answer.
    pub async fn oldest_sealed_with(&self, stream: Stream) -> Result<Option<String>, BusError> {
        let name = self.names().stream(stream);
        let failed = |cause: Cause| BusError::new(format!("read `{name}`"), cause);
        let handle = self.jetstream().get_stream_no_info(&name).await;
        let handle = handle.map_err(|error| failed(error.into()))?;
        match handle.get_first_raw_message_by_subject(self.names().all_of(stream), 1).await {
            Ok(message) => Ok(sealed_with(&message.payload)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) if missing::is_missing(&error) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }
}

impl KeyValue {
    async fn renew(
        &self,
        key: String,
        keys: &SealKeys,
    ) -> Result<Result<bool, OpenError>, BusError> {
        let (place, key) = (&place(self.bucket(), &key), key.as_str());
        self.patiently("seal a value anew", |store| async move {
            let entry = store.entry(key).await?;
            let Some(entry) = entry.filter(|entry| entry.operation == kv::Operation::Put) else {
                return Ok(Ok(false));
            };
            let renewed = match keys.renew(place, &entry.value) {
                Ok(Some(renewed)) => renewed,
                Ok(None) => return Ok(Ok(false)),
                Err(error) => return Ok(Err(error)),
            };
            // Written meanwhile, perhaps with the older key: the next try looks at it.
            store.update(key, renewed, entry.revision).await?;
            Ok(Ok(true))
        })
        .await
    }
}
