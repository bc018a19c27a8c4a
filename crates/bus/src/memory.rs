use async_trait::async_trait;
use connect::{Error, Put, Remembered};

use crate::{Bucket, Bus, BusError, KeyValue};

/// What targets remember, shared by all processes.
///
/// A broker that comes back empty has forgotten: records that it had sent may then be sent once more,
/// under the same idempotency keys.
#[derive(Debug, Clone)]
pub struct Memory {
    bucket: KeyValue,
}

impl Memory {
    /// Makes the memory of what targets have sent.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self { bucket: bus.key_value(Bucket::Sent) }
    }
}

#[async_trait]
impl connect::Memory for Memory {
    async fn get(&self, key: &str) -> Result<Option<Remembered>, Error> {
        let found = self.bucket.read(key).await.map_err(away)?;
        let revision = found.revision;
        Ok(found.value.map(|value| Remembered { value: value.into(), revision }))
    }

    async fn put(&self, key: &str, value: Vec<u8>, revision: Option<u64>) -> Result<Put, Error> {
        let replace = |revision| self.bucket.replace(key, value.clone(), revision);
        if let Some(stored) = replace(revision.unwrap_or(0)).await.map_err(away)? {
            return Ok(Put::Stored(stored));
        }
        if revision.is_some() {
            return Ok(Put::Conflict);
        }
        // A key that was removed has no value, but a revision.
        let found = self.bucket.read(key).await.map_err(away)?;
        if found.value.is_some() {
            return Ok(Put::Conflict);
        }
        Ok(replace(found.revision).await.map_err(away)?.map_or(Put::Conflict, Put::Stored))
    }
}

fn away(error: BusError) -> Error {
    Error::retry("what was sent is not known", "look after the broker").because(error)
}
