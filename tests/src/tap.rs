//! A listener on the broker, beside the product.

use std::sync::{Arc, Mutex};

use async_nats::{HeaderMap, jetstream};
use bus::{Names, Stream};
use futures::StreamExt;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Duration, timeout},
};
use wire::{
    Message,
    ledger::{LedgerEntries, ledger_entry::Event},
};

/// How long to wait for messages before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Marks what the test has published, so that it is not taken for the product's.
const COPY: &str = "Test-Copy";

/// What was published so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Tasks.
    pub tasks: u64,
    /// Batches of the extractors.
    pub raw: u64,
    /// Batches of the transformers.
    pub ready: u64,
    /// Messages with refused records.
    pub quarantine: u64,
    /// Batches that extractors entered in the ledger.
    pub extracted: u64,
    /// Batches that transformers entered in the ledger.
    pub transformed: u64,
    /// Batches that loaders entered in the ledger.
    pub loaded: u64,
    /// Copies that the test made and JetStream has acknowledged.
    pub copies: u64,
}

/// A message as it was published.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The subject.
    pub subject: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The payload.
    pub payload: bytes::Bytes,
}

/// Sees every message that is published under a prefix, and counts it. Publishes copies as well.
#[derive(Debug)]
pub struct Tap {
    names: Names,
    prefix: String,
    client: async_nats::Client,
    jetstream: jetstream::Context,
    seen: watch::Receiver<Seen>,
    captured: Arc<Mutex<Vec<Captured>>>,
    listening: JoinHandle<()>,
}

/// What a tap does besides counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Options {
    /// Every message of the product is published once more.
    double: bool,
}

impl Tap {
    /// Listens from now on.
    ///
    /// # Panics
    ///
    /// When the broker does not answer.
    pub async fn listen(url: &str, prefix: &str) -> Self {
        Self::start(url, prefix, Options::default()).await
    }

    /// Listens from now on and publishes every message once more under another message id, so that
    /// JetStream stores and delivers it twice.
    ///
    /// # Panics
    ///
    /// When the broker does not answer.
    pub async fn double(url: &str, prefix: &str) -> Self {
        Self::start(url, prefix, Options { double: true }).await
    }

    async fn start(url: &str, prefix: &str, options: Options) -> Self {
        let client = async_nats::ConnectOptions::new()
            .subscription_capacity(65_536)
            .retry_on_initial_connect()
            .connect(url)
            .await
            .unwrap();
        let jetstream = jetstream::new(client.clone());
        let (counting, seen) = watch::channel(Seen::default());
        let captured = Arc::new(Mutex::new(Vec::new()));
        let mut messages = client.subscribe(format!("{prefix}.>")).await.unwrap();
        // The subscription has to stand at the server before anything is published.
        client.flush().await.unwrap();
        let (to, keep) = (jetstream.clone(), Arc::clone(&captured));
        let listening = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let headers = message.headers.clone().unwrap_or_default();
                if headers.get(COPY).is_some() {
                    continue;
                }
                let token = message.subject.split('.').nth(1).unwrap_or_default().to_owned();
                let known = ["task", "raw", "ready", "quarantine", "ledger"];
                if !known.contains(&token.as_str()) {
                    continue;
                }
                let message = Captured {
                    subject: message.subject.to_string(),
                    headers,
                    payload: message.payload,
                };
                // What is counted can be had.
                if token != "ledger" && token != "quarantine" {
                    keep.lock().expect("no one panics with it").push(message.clone());
                }
                counting.send_modify(|seen| seen.count(&token, &message.payload));
                if options.double {
                    publish_copy(&to, &message).await;
                    counting.send_modify(|seen| seen.copies += 1);
                }
            }
        });
        let names = Names::new(prefix).unwrap();
        Self { names, prefix: prefix.to_owned(), client, jetstream, seen, captured, listening }
    }

    /// Returns what was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Waits until what was seen is as wanted.
    ///
    /// # Panics
    ///
    /// When that does not happen in time.
    pub async fn until(&self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let reached = timeout(PATIENCE, seen.wait_for(|seen| wanted(seen))).await;
        match reached {
            Ok(reached) => *reached.expect("the listener runs as long as the tap"),
            Err(_) => panic!("waited too long, saw {:?}", self.seen()),
        }
    }

    /// Returns the tasks and batches seen so far whose subject begins with `token`, in the order
    /// in which they were published.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn captured(&self, token: &str) -> Vec<Captured> {
        let begin = format!("{}.{token}.", self.prefix);
        let captured = self.captured.lock().expect("no one panics with it");
        captured.iter().filter(|message| message.subject.starts_with(&begin)).cloned().collect()
    }

    /// Publishes a message once more, under another message id, and waits until it is stored.
    pub async fn repeat(&self, message: &Captured) {
        publish_copy(&self.jetstream, message).await;
    }

    /// Returns the number of messages that a stream holds.
    ///
    /// # Panics
    ///
    /// When the broker does not answer.
    pub async fn held(&self, stream: Stream) -> u64 {
        let mut stream = self.jetstream.get_stream(self.names.stream(stream)).await.unwrap();
        stream.info().await.unwrap().state.messages
    }

    /// Returns the size of what a stream holds.
    ///
    /// # Panics
    ///
    /// When the broker does not answer.
    pub async fn held_bytes(&self, stream: Stream) -> u64 {
        let mut stream = self.jetstream.get_stream(self.names.stream(stream)).await.unwrap();
        stream.info().await.unwrap().state.bytes
    }

    /// Waits until a stream holds nothing.
    ///
    /// # Panics
    ///
    /// When that does not happen in time.
    pub async fn drained(&self, stream: Stream) {
        let emptied = timeout(PATIENCE, async {
            while self.held(stream).await > 0 {
                // JetStream tells nobody that a stream is empty.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        emptied.await.unwrap_or_else(|_| panic!("{stream} is not worked off"));
    }

    /// Turns the order of what a stream holds round, and returns how many messages that were. The
    /// stream is never empty meanwhile.
    ///
    /// # Panics
    ///
    /// When the broker does not answer.
    pub async fn reverse(&self, stream: Stream) -> u64 {
        let mut stream = self.jetstream.get_stream(self.names.stream(stream)).await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        let mut moved = 0;
        for sequence in (state.first_sequence..=state.last_sequence).rev() {
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            let copy = Captured {
                subject: message.subject.to_string(),
                headers: message.headers,
                payload: message.payload,
            };
            publish_copy(&self.jetstream, &copy).await;
            stream.delete_message(sequence).await.unwrap();
            moved += 1;
        }
        moved
    }

    /// Returns the id of the server that the tap is connected to, which is another one after a
    /// restart.
    #[must_use]
    pub fn server(&self) -> String {
        self.client.server_info().server_id
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Seen {
    fn count(&mut self, token: &str, payload: &[u8]) {
        match token {
            "task" => self.tasks += 1,
            "raw" => self.raw += 1,
            "ready" => self.ready += 1,
            "quarantine" => self.quarantine += 1,
            _ => {
                let entries = LedgerEntries::decode(payload).unwrap_or_default().entries;
                for event in entries.into_iter().filter_map(|entry| entry.event) {
                    match event {
                        Event::BatchExtracted(_) => self.extracted += 1,
                        Event::BatchTransformed(_) => self.transformed += 1,
                        Event::BatchLoaded(_) => self.loaded += 1,
                        _ => {}
                    }
                }
            }
        }
    }
}

async fn publish_copy(jetstream: &jetstream::Context, message: &Captured) {
    let mut headers = message.headers.clone();
    headers.insert(COPY, "1");
    if let Some(id) = message.headers.get("Nats-Msg-Id") {
        headers.insert("Nats-Msg-Id", format!("{}/copy", id.as_str()));
    }
    let subject = message.subject.clone();
    let stored = jetstream
        .publish_with_headers(subject, headers, message.payload.clone())
        .await
        .expect("the broker takes it");
    stored.await.expect("the broker keeps it");
}
