//! Streams and buckets: what they have to be, and making them so.

use std::time::{Duration, Instant};

use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind, kv, stream};

use crate::{Bucket, Bus, BusError, Service, Stream, backoff::Backoff, error::Cause, missing};

/// How long the broker recognises a message that is published twice.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// How long a read cursor is kept that nobody has moved. A run that finds none starts the part from
/// the task's cursor.
const PROGRESS_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Bus {
    /// Creates the streams and buckets that are missing, and adapts the others to the settings.
    /// Repeating it changes nothing. A broker that has no leader yet, or lost it, is waited for, for
    /// the configured patience.
    ///
    /// # Errors
    ///
    /// When JetStream does not answer for so long, or refuses the settings, such as more replicas
    /// than there are servers.
    pub async fn provision(&self) -> Result<(), BusError> {
        let deadline = Instant::now() + self.config().publish_patience;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
        loop {
            match self.try_provision().await {
                Err(error) if !missing::is_refused(&error) && Instant::now() < deadline => {
                    let cause = crate::error::Cause::from(error);
                    tracing::warn!(%cause, "the streams cannot be created yet, trying again");
                    backoff.wait().await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Does what [`Bus::provision`] does, or says why that cannot be done at this moment.
    ///
    /// # Errors
    ///
    /// As [`Bus::provision`].
    pub async fn try_provision(&self) -> Result<(), BusError> {
        for stream in Stream::ALL {
            self.provision_stream(stream).await?;
        }
        for bucket in Bucket::ALL {
            self.provision_bucket(bucket).await?;
        }
        Box::pin(self.provision_as(self.wanted_deliveries())).await
    }

    pub(crate) async fn provision_stream(&self, stream: Stream) -> Result<(), BusError> {
        // The client library's future is large and would make every caller's as large.
        Box::pin(self.provision_as(self.wanted_stream(stream))).await
    }

    pub(crate) async fn provision_as(&self, config: stream::Config) -> Result<(), BusError> {
        // Many tasks of one process may miss a stream at the same moment.
        let _one_at_a_time = self.provisioning().lock().await;
        let name = config.name.clone();
        let failed = |cause: Cause| BusError::new(format!("create stream `{name}`"), cause);
        if self.adapts() {
            let adapted = self.jetstream().create_or_update_stream(config).await;
            return adapted.map(drop).map_err(|error| failed(error.into()));
        }
        if self.has_stream(&name).await? {
            return Ok(());
        }
        let created = self.jetstream().create_stream(config).await;
        created.map(drop).map_err(|error| failed(error.into()))
    }

    async fn has_stream(&self, name: &str) -> Result<bool, BusError> {
        match self.jetstream().get_stream(name).await {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(cause)
                    if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(false)
                }
                _ => Err(BusError::new(format!("look for stream `{name}`"), error)),
            },
        }
    }

    /// One kind of service decides on the settings of what is there already.
    fn adapts(&self) -> bool {
        matches!(self.config().service, None | Some(Service::Scheduler))
    }

    pub(crate) fn wanted_stream(&self, stream: Stream) -> stream::Config {
        stream::Config {
            name: self.names().stream(stream),
            subjects: vec![self.names().all_of(stream)],
            retention: stream::RetentionPolicy::WorkQueue,
            discard: stream::DiscardPolicy::New,
            storage: stream::StorageType::File,
            max_bytes: i64::try_from(self.config().max_bytes.of(stream))
                .expect("the settings were validated"),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            num_replicas: self.config().replicas,
            duplicate_window: DUPLICATE_WINDOW,
            ..stream::Config::default()
        }
    }

    pub(crate) async fn provision_bucket(&self, bucket: Bucket) -> Result<kv::Store, BusError> {
        let _one_at_a_time = self.provisioning().lock().await;
        let config = self.wanted_bucket(bucket);
        let name = config.bucket.clone();
        let failed = |cause: Cause| BusError::new(format!("create bucket `{name}`"), cause);
        if self.adapts() {
            // Large, too.
            let adapted = Box::pin(self.jetstream().create_or_update_key_value(config)).await;
            return adapted.map_err(|error| failed(error.into()));
        }
        if self.has_stream(&self.names().bucket_stream(bucket)).await? {
            let found = Box::pin(self.jetstream().get_key_value(&name)).await;
            return found.map_err(|error| failed(error.into()));
        }
        let created = Box::pin(self.jetstream().create_key_value(config)).await;
        created.map_err(|error| failed(error.into()))
    }

    pub(crate) fn wanted_bucket(&self, bucket: Bucket) -> kv::Config {
        kv::Config {
            bucket: self.names().bucket(bucket),
            history: 1,
            storage: stream::StorageType::File,
            num_replicas: self.config().replicas,
            max_age: match bucket {
                Bucket::Pipelines | Bucket::Sent | Bucket::Quotas => Duration::ZERO,
                Bucket::Progress => PROGRESS_AGE,
            },
            ..kv::Config::default()
        }
    }
}
