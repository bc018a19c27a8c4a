//! What was pushed before: the hashes of delivery ids, told by each process that takes pushes in to
//! all others.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{DeliverPolicy, pull},
    stream,
};
use bytes::Bytes;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use wire::{Message, ingest::DeliveredIds};

use crate::{Bus, BusError, backoff::Backoff, error::Cause};

/// How long a repetition is recognised.
const AGE: Duration = Duration::from_secs(24 * 3600);

/// Largest size of the stream; the oldest ids make room for new ones.
const MAX_BYTES: i64 = 64 * 1024 * 1024;

/// Follows the ids that were taken in by any process, from the oldest on that is kept.
pub struct Deliveries {
    bus: Bus,
    messages: Option<pull::Ordered>,
    connections: tokio::sync::watch::Receiver<u64>,
    backoff: Backoff,
}

impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries").finish_non_exhaustive()
    }
}

impl Bus {
    /// Returns the ids that were taken in, told and to be told.
    #[must_use]
    pub fn deliveries(&self) -> Deliveries {
        Deliveries {
            bus: self.clone(),
            messages: None,
            connections: self.connections(),
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(3)),
        }
    }

    /// Tells all processes that these deliveries are safe. Nobody confirms it: what is lost is at
    /// worst counted twice.
    ///
    /// # Errors
    ///
    /// When the connection is closed.
    pub async fn tell_deliveries(&self, ids: &[u128]) -> Result<(), BusError> {
        let halves = |id: u128| -> (u64, u64) {
            let bytes = id.to_be_bytes();
            let half = |from: usize| {
                let eight = bytes[from..from + 8].try_into();
                u64::from_be_bytes(eight.expect("half of sixteen bytes are eight"))
            };
            (half(0), half(8))
        };
        let (highs, lows) = ids.iter().map(|id| halves(*id)).unzip();
        let payload = Bytes::from(DeliveredIds { highs, lows }.encode_to_vec());
        let subject = self.names().deliveries();
        self.client()
            .publish(subject.as_str().to_owned(), payload)
            .await
            .map_err(|error| BusError::new("tell deliveries", error))
    }
}

impl Deliveries {
    /// Waits for ids. After an outage those that were told before are told again. Returns `None`
    /// only on shutdown.
    pub async fn next(&mut self, shutdown: &CancellationToken) -> Option<Vec<u128>> {
        loop {
            let ids = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                ids = self.message() => ids,
            };
            match ids {
                Ok(ids) => {
                    self.backoff.reset();
                    return Some(ids);
                }
                Err(error) => {
                    self.messages = None;
                    tracing::debug!(%error, "following deliveries anew");
                    tokio::select! {
                        () = shutdown.cancelled() => return None,
                        () = self.backoff.wait() => {}
                    }
                }
            }
        }
    }

    async fn message(&mut self) -> Result<Vec<u128>, BusError> {
        let failed = |cause: Cause| BusError::new("follow deliveries", cause);
        if self.messages.is_none() {
            self.connections.mark_unchanged();
            let stream = Box::pin(self.bus.provision_deliveries()).await?;
            let config = pull::OrderedConfig {
                deliver_policy: DeliverPolicy::All,
                ..pull::OrderedConfig::default()
            };
            let consumer = stream.create_consumer(config).await;
            let consumer = consumer.map_err(|error| failed(error.into()))?;
            let messages = consumer.messages().await.map_err(|error| failed(error.into()))?;
            self.messages = Some(messages);
        }
        let messages = self.messages.as_mut().expect("it was just opened");
        let message = tokio::select! {
            biased;
            _ = self.connections.changed() => {
                return Err(failed("the connection was made anew".into()));
            }
            message = messages.next() => message,
        };
        let message = message
            .ok_or_else(|| failed("the messages have ended".into()))?
            .map_err(|error| failed(error.into()))?;
        let ids = DeliveredIds::decode(message.payload.clone()).unwrap_or_default();
        let pairs = ids.highs.into_iter().zip(ids.lows);
        Ok(pairs.map(|(high, low)| u128::from(high) << 64 | u128::from(low)).collect())
    }
}

impl Bus {
    pub(crate) fn wanted_deliveries(&self) -> stream::Config {
        stream::Config {
            name: self.names().deliveries_stream(),
            subjects: vec![self.names().deliveries().as_str().to_owned()],
            retention: stream::RetentionPolicy::Limits,
            discard: stream::DiscardPolicy::Old,
            storage: stream::StorageType::File,
            max_bytes: MAX_BYTES,
            max_age: AGE,
            num_replicas: self.config().replicas,
            ..stream::Config::default()
        }
    }

    async fn provision_deliveries(&self) -> Result<stream::Stream, BusError> {
        let config = self.wanted_deliveries();
        let name = config.name.clone();
        self.provision_as(config).await?;
        let found = self.jetstream().get_stream(&name).await;
        found.map_err(|error| BusError::new(format!("use stream `{name}`"), error))
    }
}
