use std::{sync::Arc, time::Duration};

use async_nats::{
    Message, StatusCode, Subscriber,
    jetstream::consumer::{AckPolicy, pull},
};
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Bus, BusError, Delivery, MAX_PAYLOAD, Queue, backoff::Backoff, delivery::Origin};

/// How long one request for messages stays open.
const PULL_EXPIRES: Duration = Duration::from_secs(30);

/// How often the broker says that a request is still open.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Silence after which the request is taken for lost, such as after a change of leader.
const SILENCE: Duration = Duration::from_secs(8);

/// When a message is delivered again whose key is not here yet.
const KEY_DELAY: Duration = Duration::from_secs(5);

/// What a consumer reads and how much at a time.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// What it reads.
    pub queue: Queue,
    /// A message that is neither answered nor kept for so long is delivered again, at least 1 s;
    /// `None`: as the settings of the bus say.
    pub ack_wait: Option<Duration>,
    /// Messages of the queue that may be delivered and unanswered at once, over all replicas.
    pub max_ack_pending: u32,
    /// Messages that are fetched ahead, at least 1.
    pub fetch_messages: u32,
    /// Bytes that are fetched ahead, at least the 1 MiB that the largest message needs. The broker
    /// drops a client that is sent more than it takes.
    pub fetch_bytes: usize,
}

impl ConsumerOptions {
    /// Returns the usual options of a queue: tasks are long work and fetched one by one, batches
    /// eight at a time, ledger entries and refused records 64 at a time, 4 MiB at most.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        let (max_ack_pending, fetch_messages) = match queue {
            Queue::Tasks { .. } => (1_000, 1),
            Queue::Raw { .. } | Queue::Ready { .. } => (1_000, 8),
            Queue::Quarantine | Queue::Ledger => (4_000, 64),
        };
        Self {
            queue,
            ack_wait: None,
            max_ack_pending,
            fetch_messages,
            fetch_bytes: 4 * 1024 * 1024,
        }
    }
}

/// Reads a queue through its durable consumer, which is created when missing.
///
/// Survives outages, changes of leader, a deleted consumer and a broker that comes back empty.
#[derive(Debug)]
pub struct Consumer {
    bus: Bus,
    options: ConsumerOptions,
    connections: watch::Receiver<u64>,
    attached: Option<Attached>,
    backoff: Backoff,
    /// Whether it waits for messages, rather than for whoever takes them, and since when that is not
    /// accounted for.
    waits: bool,
    accounted: Instant,
}

/// The durable consumer as it stands, and where its messages arrive.
#[derive(Debug)]
struct Attached {
    origin: Arc<Origin>,
    /// All requests are answered under this inbox, each under its own last token.
    inbox: String,
    arriving: Subscriber,
    requests: u64,
    open: Option<OpenRequest>,
}

/// A request for messages that the broker has not ended yet.
#[derive(Debug)]
struct OpenRequest {
    reply: String,
    remaining: u32,
    heard: Instant,
}

/// What an arrived message means.
enum Arrival {
    Delivered(Message),
    Nothing,
    /// The request has ended; ask again.
    Ended,
    /// The consumer is not what it was.
    Lost(String),
}

impl Bus {
    /// Makes a consumer. Nothing is sent before the first [`Consumer::next`].
    #[must_use]
    pub fn consumer(&self, options: ConsumerOptions) -> Consumer {
        Consumer {
            bus: self.clone(),
            options,
            connections: self.connections(),
            attached: None,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(3)),
            waits: true,
            accounted: Instant::now(),
        }
    }
}

impl Consumer {
    /// Waits for the next message, however long the broker is away. Returns `None` only on
    /// shutdown. Dropping the future loses nothing.
    pub async fn next(&mut self, shutdown: &CancellationToken) -> Option<Delivery> {
        self.account(true);
        loop {
            let step = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                step = self.step() => step,
            };
            let is_delivered = matches!(step, Ok(Some(_)));
            self.account(!is_delivered);
            match step {
                Ok(Some(delivery)) => {
                    self.backoff.reset();
                    return Some(delivery);
                }
                Ok(None) => {}
                Err(error) => {
                    self.detach();
                    tracing::debug!(
                        queue = ?self.options.queue,
                        error = &error as &dyn std::error::Error,
                        "attaching to the queue again"
                    );
                    tokio::select! {
                        () = shutdown.cancelled() => return None,
                        () = self.backoff.wait() => {}
                    }
                }
            }
        }
    }

    /// Counts the time that has passed, and says what goes on from here.
    fn account(&mut self, waits: bool) {
        let now = Instant::now();
        let state = if self.waits { "waiting" } else { "busy" };
        let passed = now - self.accounted;
        self.bus.metrics().passed(&self.options.queue, state, passed);
        (self.waits, self.accounted) = (waits, now);
    }

    /// Does one thing: attaches, asks for messages, or takes what arrives.
    async fn step(&mut self) -> Result<Option<Delivery>, BusError> {
        if self.attached.is_none() {
            self.connections.mark_unchanged();
            self.attached = Some(self.attach().await?);
        }
        let attached = self.attached.as_mut().expect("it was just attached");
        if attached.open.is_none() {
            attached.ask(&self.bus, &self.options).await?;
        }
        let silence = attached.open.as_ref().map_or_else(Instant::now, |open| open.heard) + SILENCE;
        let arrival = tokio::select! {
            biased;
            // What has arrived is taken before the silence is judged: the caller may have been busy.
            message = attached.arriving.next() => match message {
                Some(message) => attached.receive(message),
                None => Arrival::Lost("the subscription has ended".to_owned()),
            },
            _ = self.connections.changed() => {
                Arrival::Lost("the connection was made anew".to_owned())
            }
            () = tokio::time::sleep_until(silence) => {
                Arrival::Lost("the broker is silent".to_owned())
            }
        };
        match arrival {
            Arrival::Delivered(message) => {
                let origin = Arc::clone(&attached.origin);
                let delivery = Delivery::new(self.bus.clone(), message, origin);
                if let Some(key) = delivery.missing_key() {
                    tracing::error!(
                        key,
                        subject = delivery.subject(),
                        "a message waits for a key that is not in the folder of `seal_keys`"
                    );
                    delivery.nak(KEY_DELAY).await;
                    return Ok(None);
                }
                let stream = self.options.queue.stream().label();
                self.bus.metrics().delivered(stream, delivery.attempt() > 1);
                Ok(Some(delivery))
            }
            Arrival::Nothing => Ok(None),
            Arrival::Ended => {
                attached.open = None;
                Ok(None)
            }
            Arrival::Lost(reason) => Err(BusError::new("go on with a consumer", reason)),
        }
    }

    async fn attach(&self) -> Result<Attached, BusError> {
        let names = self.bus.names();
        let queue = &self.options.queue;
        let (stream, durable) = (names.stream(queue.stream()), names.durable(queue));
        let config = pull::Config {
            durable_name: Some(durable.clone()),
            filter_subject: names.filter(queue),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait(),
            // After the limit JetStream would hide the message instead of failing it.
            max_deliver: -1,
            max_ack_pending: i64::from(self.options.max_ack_pending),
            ..pull::Config::default()
        };
        let create = || self.bus.jetstream().create_consumer_on_stream(config.clone(), &stream);
        let connection = *self.connections.borrow();
        let consumer = match create().await {
            Ok(consumer) => consumer,
            Err(error) => {
                tracing::debug!(%error, durable, "making sure of the stream of a consumer");
                self.bus.provision_stream(queue.stream()).await?;
                create()
                    .await
                    .map_err(|error| BusError::new(format!("create consumer `{durable}`"), error))?
            }
        };
        self.bus.metrics().attached(queue.stream().label());
        let inbox = self.bus.client().new_inbox();
        let arriving = self
            .bus
            .client()
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| BusError::new("subscribe", error))?;
        let origin = Origin {
            stream,
            durable,
            created: consumer.cached_info().created,
            connection,
            ack_wait: self.ack_wait(),
        };
        Ok(Attached { origin: Arc::new(origin), inbox, arriving, requests: 0, open: None })
    }

    fn ack_wait(&self) -> Duration {
        self.options.ack_wait.unwrap_or(self.bus.config().ack_wait)
    }

    /// Lets go of the subscription and gives back what was fetched ahead.
    fn detach(&mut self) {
        let Some(mut attached) = self.attached.take() else { return };
        while let Some(Some(message)) = attached.arriving.next().now_or_never() {
            if let Arrival::Delivered(message) = attached.receive(message) {
                // A delivery that is dropped unanswered naks itself.
                drop(Delivery::new(self.bus.clone(), message, Arc::clone(&attached.origin)));
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Attached {
    async fn ask(&mut self, bus: &Bus, options: &ConsumerOptions) -> Result<(), BusError> {
        self.requests += 1;
        let reply = format!("{}.{}", self.inbox, self.requests);
        let batch = options.fetch_messages.max(1);
        let request = json!({
            "batch": batch,
            "max_bytes": options.fetch_bytes.max(2 * MAX_PAYLOAD),
            "expires": nanoseconds(PULL_EXPIRES),
            "idle_heartbeat": nanoseconds(HEARTBEAT),
        });
        let subject = bus.names().next_message(&self.origin.stream, &self.origin.durable);
        bus.client()
            .publish_with_reply(subject, reply.clone(), request.to_string().into())
            .await
            .map_err(|error| BusError::new("ask for messages", error))?;
        self.open = Some(OpenRequest { reply, remaining: batch, heard: Instant::now() });
        Ok(())
    }

    fn receive(&mut self, message: Message) -> Arrival {
        let Some(status) = message.status else {
            if let Some(open) = &mut self.open {
                open.heard = Instant::now();
                open.remaining = open.remaining.saturating_sub(1);
                if open.remaining == 0 {
                    self.open = None;
                }
            }
            return Arrival::Delivered(message);
        };
        // What an earlier request was told no longer matters.
        let Some(open) = self.open.as_mut().filter(|open| open.reply == message.subject.as_str())
        else {
            return Arrival::Nothing;
        };
        let description = message.description.as_deref().unwrap_or_default();
        match status {
            StatusCode::IDLE_HEARTBEAT => {
                open.heard = Instant::now();
                Arrival::Nothing
            }
            StatusCode::TIMEOUT | StatusCode::NOT_FOUND => Arrival::Ended,
            StatusCode::REQUEST_TERMINATED
                if description.eq_ignore_ascii_case("message size exceeds maxbytes")
                    || description.eq_ignore_ascii_case("batch completed") =>
            {
                Arrival::Ended
            }
            status => Arrival::Lost(format!("{status} {description}")),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
