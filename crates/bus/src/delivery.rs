use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, Message, Request};
use bytes::Bytes;
use opentelemetry::Context;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    AckError, Bus, OpenError, backoff::Backoff, checksum, checksum::Damaged, error::Cause, trace,
};

/// How long an acknowledgement is tried to be confirmed.
const ACK_PATIENCE: Duration = Duration::from_secs(60);

/// How long one try may stay without an answer.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Delay after which a message that was dropped unanswered is delivered again.
const DROP_DELAY: Duration = Duration::from_secs(1);

/// The durable consumer that a message came from.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) stream: String,
    pub(crate) durable: String,
    /// Tells this consumer from one of the same name on a broker that came back empty.
    pub(crate) created: async_nats::datetime::DateTime,
    /// The connection on which it was seen last.
    pub(crate) connection: u64,
    pub(crate) ack_wait: Duration,
}

/// A message that waits for its answer: [`Delivery::ack`] or [`Delivery::nak`], exactly once.
///
/// Until then it tells the broker that it is being worked on, so that it is not delivered to anybody
/// else. Dropped without an answer, it is delivered again after a second.
#[derive(Debug)]
pub struct Delivery {
    bus: Bus,
    message: Message,
    payload: Result<Bytes, Damaged>,
    origin: Arc<Origin>,
    attempt: u64,
    /// Number of the message in its stream.
    sequence: u64,
    /// Tells the broker that the work goes on; ends with the delivery.
    keeper: Option<AbortOnDropHandle<()>>,
    answered: bool,
}

impl Delivery {
    pub(crate) fn new(bus: Bus, message: Message, origin: Arc<Origin>) -> Self {
        let message = async_nats::jetstream::Message { message, context: bus.jetstream().clone() };
        let (attempt, sequence) = message.info().map_or((1, 0), |info| {
            (u64::try_from(info.delivered).unwrap_or(1), info.stream_sequence)
        });
        let message = message.message;
        let payload = checksum::verify(&message.payload, message.headers.as_ref())
            .and_then(|()| Ok(bus.open(message.subject.as_str(), message.payload.clone())?));
        let keeper = message.reply.clone().map(|reply| {
            let (client, period) = (bus.client().clone(), origin.ack_wait / 3);
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(period).await;
                    if client.publish(reply.clone(), Bytes::from_static(b"+WPI")).await.is_err() {
                        return;
                    }
                }
            }))
        });
        Self { bus, message, payload, origin, attempt, sequence, keeper, answered: false }
    }

    /// Returns the payload, which is what was published.
    ///
    /// # Errors
    ///
    /// When it does not fit its checksum, or does not open. [`Delivery::damaged_payload`] returns it
    /// all the same, for the quarantine.
    pub fn payload(&self) -> Result<Bytes, Damaged> {
        self.payload.clone()
    }

    /// Returns the payload whether or not it fits its checksum; sealed where it does not open.
    #[must_use]
    pub fn damaged_payload(&self) -> Bytes {
        self.payload.as_ref().unwrap_or(&self.message.payload).clone()
    }

    /// Returns the id of the key that is missing here to open the payload.
    pub(crate) fn missing_key(&self) -> Option<&str> {
        match &self.payload {
            Err(Damaged::Sealed(OpenError::NoKey { id })) => Some(id),
            Ok(_) | Err(_) => None,
        }
    }

    /// Returns the subject it was published on.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.message.subject.as_str()
    }

    /// Returns the pipeline that its subject names.
    #[must_use]
    pub fn pipeline(&self) -> Option<model::PipelineName> {
        self.bus.names().pipeline_of(self.subject())
    }

    /// Returns the headers.
    #[must_use]
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.message.headers.as_ref()
    }

    /// Returns how often it was delivered, counted from 1.
    #[must_use]
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Returns the span of the sender; an empty context where there is none.
    #[must_use]
    pub fn context(&self) -> Context {
        self.headers().map_or_else(Context::new, trace::extract)
    }

    /// Acknowledges the message and returns when the broker has confirmed that.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm for a minute, came back empty or has forgotten the delivery.
    /// The message may be delivered again, which is harmless; the caller goes on.
    pub async fn ack(mut self) -> Result<(), AckError> {
        // The message is kept until the end, and never nakked: its work is done.
        self.answered = true;
        let Some(reply) = self.message.reply.clone() else { return Ok(()) };
        let deadline = Instant::now() + ACK_PATIENCE;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            let cause: Cause = match self.standing().await {
                Ok(Standing::Replaced) => return Err(AckError::Replaced),
                Ok(Standing::Forgotten) => return Err(AckError::Forgotten),
                Ok(Standing::Known) => {
                    let mut connections = self.bus.connections();
                    connections.mark_unchanged();
                    let request = Request::new().payload("+ACK".into()).timeout(Some(TRY_TIMEOUT));
                    tokio::select! {
                        answer = self.bus.client().send_request(reply.clone(), request) => {
                            match answer {
                                Ok(_) => return Ok(()),
                                Err(error) => error.into(),
                            }
                        }
                        _ = connections.changed() => "the connection was lost".into(),
                    }
                }
                Err(cause) => cause,
            };
            if Instant::now() >= deadline {
                return Err(AckError::Unconfirmed(cause));
            }
            backoff.wait().await;
        }
    }

    /// Gives the message back, to be delivered again after `delay`.
    ///
    /// A long delay holds one of the consumer's slots: while a target is down for an hour, keep the
    /// delivery instead.
    pub async fn nak(mut self, delay: Duration) {
        self.answered = true;
        if let Some(reply) = self.message.reply.clone() {
            give_back(&self.bus, reply, delay).await;
        }
    }

    /// Tells the broker now that the work goes on. Deliveries do so by themselves.
    pub async fn progress(&self) {
        if let Some(reply) = self.message.reply.clone() {
            send(&self.bus, reply, Bytes::from_static(b"+WPI")).await;
        }
    }

    /// Tells what an acknowledgement would mean to the broker by now. On a broker that came back
    /// empty, it would name whatever message has its number. A broker that was killed may not have
    /// written down its last deliveries; it never answers acknowledgements of these.
    async fn standing(&self) -> Result<Standing, Cause> {
        if *self.bus.connections().borrow() == self.origin.connection {
            return Ok(Standing::Known);
        }
        let stream = self.bus.jetstream().get_stream_no_info(&self.origin.stream).await?;
        match stream.consumer_info(&self.origin.durable).await {
            Ok(info) if info.created != self.origin.created => Ok(Standing::Replaced),
            Ok(info) if info.delivered.stream_sequence < self.sequence => Ok(Standing::Forgotten),
            Ok(_) => Ok(Standing::Known),
            Err(error) if crate::missing::is_missing(&error) => Ok(Standing::Replaced),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a delivery is to the broker.
enum Standing {
    /// It waits for the answer.
    Known,
    /// The stream or the consumer is another one.
    Replaced,
    /// It will come again.
    Forgotten,
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.keeper = None;
        if self.answered {
            return;
        }
        let Some(reply) = self.message.reply.clone() else { return };
        // Without a runtime the process is going down, and the message comes back by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let bus = self.bus.clone();
            drop(runtime.spawn(async move { give_back(&bus, reply, DROP_DELAY).await }));
        }
    }
}

async fn give_back(bus: &Bus, reply: async_nats::Subject, delay: Duration) {
    let answer = format!("-NAK {{\"delay\": {}}}", delay.as_nanos());
    send(bus, reply, answer.into()).await;
}

async fn send(bus: &Bus, reply: async_nats::Subject, answer: Bytes) {
    if let Err(error) = bus.client().publish(reply, answer).await {
        tracing::debug!(%error, "a message could not be answered; it will be delivered again");
    }
}
