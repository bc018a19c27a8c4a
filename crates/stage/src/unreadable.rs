use bus::{Bus, Delivery, MAX_PAYLOAD};
use bytes::Bytes;
use model::{Batch, PipelineName};
use wire::{DecodeError, Quarantined, Reason};

use crate::{Failure, chain, quarantine};

/// Short name of the reason for which an unreadable message is quarantined.
const CODE: &str = "undecodable";

/// Why a message holds no batch.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not what was published.
    #[error(transparent)]
    Damaged(#[from] bus::Damaged),
    /// It is no batch.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Reads the batch of a message.
///
/// # Errors
///
/// When the message is damaged or holds no batch.
pub fn read_batch(delivery: &Delivery) -> Result<Batch, Unreadable> {
    Ok(wire::decode(delivery.payload()?)?)
}

impl Unreadable {
    /// Puts the message into quarantine, as far as it fits, and returns the reason's short name.
    ///
    /// The books of its run do not balance without it, so the scheduler hands the missing range out
    /// again. `target` is empty where no target is concerned.
    ///
    /// # Errors
    ///
    /// As [`quarantine()`].
    pub async fn set_aside(
        &self,
        bus: &Bus,
        pipeline: &PipelineName,
        stage: &str,
        target: &str,
        delivery: &Delivery,
    ) -> Result<&'static str, Failure> {
        let raw = delivery.damaged_payload();
        tracing::warn!(error = chain(self), size = raw.len(), "a message cannot be read");
        let reason = Reason {
            code: CODE.to_owned(),
            message: format!("a message of {} bytes cannot be read: {}", raw.len(), chain(self)),
            raw: Bytes::copy_from_slice(&raw[..raw.len().min(MAX_PAYLOAD / 2)]),
            ..Reason::default()
        };
        let refused = Quarantined {
            header: None,
            records: None,
            reasons: vec![reason],
            stage: stage.to_owned(),
            target: target.to_owned(),
        };
        quarantine(bus, pipeline, refused).await?;
        Ok(CODE)
    }
}
