use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Request, RequestErrorKind, jetstream::ErrorCode};
use bytes::Bytes;
use opentelemetry::Context;
use serde::Deserialize;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    Bus, BusError, OfferError, PublishError, SealKeys, Stream, Subject, backoff::Backoff, checksum,
    error::Cause, trace,
};

/// Largest payload of a message in bytes.
pub const MAX_PAYLOAD: usize = 512 * 1024;

/// Name of the header by which the broker recognises a message that is published twice.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// How long one try may stay without an answer. A change of leader takes up to 7 s.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    subject: Subject,
    id: Option<String>,
    payload: Bytes,
    context: Context,
}

impl Outgoing {
    /// Makes a message that belongs to the current span.
    #[must_use]
    pub fn new(subject: Subject, payload: Bytes) -> Self {
        let context = tracing::Span::current().context();
        Self { subject, id: None, payload, context }
    }

    /// Names the message, so that the broker drops a second copy within two minutes. Equal ids must
    /// mean equal messages.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the span that the message belongs to.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// Returns the size of the payload in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.payload.len()
    }

    /// Seals the payload, if there are keys. An id names the content by a hash, from which a short
    /// content could be guessed.
    fn sealed(mut self, keys: Option<&SealKeys>) -> Self {
        if let Some(keys) = keys {
            self.payload = keys.seal(self.subject.as_str(), &self.payload);
            self.id = self.id.map(|id| keys.stand_in(&id));
        }
        self
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(id) = &self.id {
            headers.insert(MESSAGE_ID, id.as_str());
        }
        checksum::write(&self.payload, &mut headers);
        trace::inject(&self.context, &mut headers);
        headers
    }
}

/// Why one try was not acknowledged.
enum Refusal {
    /// The stream is full; the writer waits, which is the backpressure.
    Full,
    /// No stream takes the subject.
    Missing,
    /// Anything else.
    Failed(Cause),
}

/// What JetStream answers to a publish.
#[derive(Deserialize)]
struct Answer {
    error: Option<async_nats::jetstream::Error>,
    #[serde(rename = "seq")]
    sequence: Option<u64>,
}

impl Bus {
    /// Publishes a message and returns when JetStream has acknowledged it.
    ///
    /// A full stream is waited for without limit. Everything else (no answer, lost connection,
    /// missing stream, change of leader) is retried for the configured patience. Dropping the
    /// future leaves open whether the message is stored.
    ///
    /// # Errors
    ///
    /// [`PublishError::TooLarge`] at once and without sending; [`PublishError::NotAcknowledged`]
    /// when the patience is spent, where the message may be stored nevertheless.
    pub async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let size = message.size();
        if size > MAX_PAYLOAD {
            return Err(PublishError::TooLarge { size });
        }
        let message = message.sealed(self.seal_keys());
        let headers = message.headers();
        let stream = self.names().stream_of(&message.subject);
        let label = stream.map_or("none", Stream::label);
        let patience = self.config().publish_patience;
        let started = Instant::now();
        let mut deadline = started + patience;
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        let mut waited_for_room = false;
        loop {
            let cause = match self.try_publish(&message, &headers).await {
                Ok(()) => {
                    self.metrics().published(label, size, started.elapsed());
                    return Ok(());
                }
                Err(Refusal::Full) => {
                    self.metrics().publish_retried(label, "full");
                    if !waited_for_room {
                        waited_for_room = true;
                        tracing::debug!(subject = %message.subject, "the stream is full, waiting");
                    }
                    deadline = Instant::now() + patience;
                    backoff.wait().await;
                    continue;
                }
                Err(Refusal::Missing) => match self.restore(stream).await {
                    Ok(()) => "no stream takes the subject".into(),
                    Err(error) => error.into(),
                },
                Err(Refusal::Failed(cause)) => cause,
            };
            if Instant::now() >= deadline {
                let subject = message.subject;
                return Err(PublishError::NotAcknowledged { subject, patience, cause });
            }
            self.metrics().publish_retried(label, "failed");
            tracing::debug!(subject = %message.subject, %cause, "publishing again");
            backoff.wait().await;
        }
    }

    /// Publishes a message for somebody who waits for the answer: returns when JetStream has
    /// acknowledged it, or when `patience` is spent. A full stream is not waited for.
    ///
    /// # Errors
    ///
    /// [`OfferError::Full`] and [`OfferError::TooLarge`], where nothing is stored;
    /// [`OfferError::NotAcknowledged`], where the message may be stored.
    pub async fn offer(&self, message: Outgoing, patience: Duration) -> Result<(), OfferError> {
        let size = message.size();
        if size > MAX_PAYLOAD {
            return Err(OfferError::TooLarge { size });
        }
        let message = message.sealed(self.seal_keys());
        let headers = message.headers();
        let stream = self.names().stream_of(&message.subject);
        let label = stream.map_or("none", Stream::label);
        let started = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        let trying = async {
            loop {
                let cause = match self.try_publish(&message, &headers).await {
                    Ok(()) => {
                        self.metrics().published(label, size, started.elapsed());
                        return Ok(());
                    }
                    Err(Refusal::Full) => {
                        self.metrics().publish_retried(label, "full");
                        return Err(OfferError::Full);
                    }
                    Err(Refusal::Missing) => match self.restore(stream).await {
                        Ok(()) => "no stream takes the subject".into(),
                        Err(error) => error.into(),
                    },
                    Err(Refusal::Failed(cause)) => cause,
                };
                self.metrics().publish_retried(label, "failed");
                tracing::debug!(subject = %message.subject, %cause, "offering again");
                backoff.wait().await;
            }
        };
        let offered = tokio::time::timeout(patience, trying).await;
        offered.unwrap_or(Err(OfferError::NotAcknowledged { patience }))
    }

    async fn try_publish(&self, message: &Outgoing, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut connections = self.connections();
        connections.mark_unchanged();
        let request = Request::new()
            .payload(message.payload.clone())
            .headers(headers.clone())
            .timeout(Some(TRY_TIMEOUT));
        let answer = tokio::select! {
            answer = self.client().send_request(message.subject.as_str().to_owned(), request) => answer,
            // The answer to what was sent on the old connection never comes.
            _ = connections.changed() => {
                return Err(Refusal::Failed("the connection was lost".into()));
            }
        };
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Refusal::Missing,
            _ => Refusal::Failed(error.into()),
        })?;
        let answer: Answer = serde_json::from_slice(&answer.payload)
            .map_err(|error| Refusal::Failed(error.into()))?;
        match answer {
            Answer { error: None, sequence: Some(_) } => Ok(()),
            Answer { error: None, sequence: None } => {
                Err(Refusal::Failed("the answer is no acknowledgement".into()))
            }
            // The broker has one code for "maximum bytes exceeded" and for a failing disk.
            Answer { error: Some(error), .. }
                if error.error_code() == ErrorCode::STREAM_STORE_FAILED
                    && error.to_string().contains("maximum") =>
            {
                Err(Refusal::Full)
            }
            Answer { error: Some(error), .. } => Err(Refusal::Failed(error.into())),
        }
    }

    async fn restore(&self, stream: Option<Stream>) -> Result<(), BusError> {
        match stream {
            Some(stream) => self.provision_stream(stream).await,
            None => Ok(()),
        }
    }
}
