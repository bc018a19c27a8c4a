//! The way of one pipeline into the broker: what was pushed while the last publish was in flight goes
//! out together with the next one.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{Bus, LedgerWriter, OfferError, Outgoing, TaskKind};
use bytes::Bytes;
use futures::future::try_join_all;
use model::{BatchHeader, BatchId, PipelineName, PushWindow, RunId};
use opentelemetry::trace::SpanContext;
use runtime::clock::Clock;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::{
    EncodedRecords, Message,
    ledger::{BatchExtracted, LedgerEntry, ledger_entry::Event},
    task::{FetchRecords, Task, task},
};

use super::{
    PushConfig,
    gather::Gather,
    item::{self, Batches, Item, Pushed},
    metrics::Metrics,
    seen::Seen,
};

/// Requests that wait, besides those whose publish is in flight.
const QUEUE: usize = 4_096;

/// Groups whose ledger entries wait to be published.
const UNRECORDED: usize = 256;

/// Time between two messages to the ledger. Nobody waits for them.
const RECORDING: Duration = Duration::from_millis(20);

/// Senders whose spans a batch is linked to.
const LINKS: usize = 32;

/// Hints that share a task.
const HINTS: usize = 100;

/// Why something is not taken in. Nothing says that it is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The stages behind are slower than what comes in.
    Full,
    /// The broker does not answer.
    Unavailable,
}

/// What one request pushes.
struct Push {
    revision: u32,
    items: Vec<Item>,
    received_at: Instant,
    /// The span of the sender.
    sender: Option<SpanContext>,
    reply: oneshot::Sender<Result<(), Refused>>,
}

/// Takes the pushes of one pipeline. Cheap to clone; its tasks end when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Inlet {
    queue: mpsc::Sender<Push>,
}

/// What all inlets share.
#[derive(Clone)]
pub(crate) struct Outlet {
    pub(crate) bus: Bus,
    pub(crate) ledger: LedgerWriter,
    pub(crate) seen: Seen,
    pub(crate) config: Arc<PushConfig>,
    pub(crate) clock: Clock,
    /// Names this process among all that take pushes in.
    pub(crate) instance: String,
    pub(crate) metrics: Metrics,
    /// Lends each webhook connection its place.
    pub(crate) places: Arc<Semaphore>,
}

impl Outlet {
    /// Returns how many are connected for webhooks.
    fn connected(&self) -> usize {
        self.config.connections.saturating_sub(self.places.available_permits())
    }
}

impl Inlet {
    /// Starts the tasks of an inlet.
    pub(crate) fn start(outlet: Outlet, pipeline: PipelineName, tasks: &TaskTracker) -> Self {
        let (queue, pushes) = mpsc::channel(QUEUE);
        let (published, records) = mpsc::channel(UNRECORDED);
        tasks.spawn(record(outlet.clone(), pipeline.clone(), records));
        let committer = Committer { outlet, pipeline, published, last_ns: 0, count: 0 };
        tasks.spawn(committer.run(pushes));
        Self { queue }
    }

    /// Returns when everything is safe in the broker, repetitions included.
    pub(crate) async fn push(
        &self,
        revision: u32,
        items: Vec<Item>,
        sender: Option<SpanContext>,
    ) -> Result<(), Refused> {
        let (reply, answer) = oneshot::channel();
        let push = Push { revision, items, received_at: Instant::now(), sender, reply };
        self.queue.try_send(push).map_err(|_| Refused::Full)?;
        answer.await.unwrap_or(Err(Refused::Unavailable))
    }
}

/// A group that is safe, to be entered in the ledger and told.
struct Published {
    entries: Vec<LedgerEntry>,
    deliveries: Vec<u128>,
}

struct Committer {
    outlet: Outlet,
    pipeline: PipelineName,
    published: mpsc::Sender<Published>,
    /// Extraction time behind the last record.
    last_ns: i64,
    /// Messages so far, for their names.
    count: u64,
}

impl Committer {
    async fn run(mut self, mut pushes: mpsc::Receiver<Push>) {
        let PushConfig { group_wait, group_requests, patience, .. } = *self.outlet.config;
        let mut gather = Gather::new(group_wait, group_requests);
        loop {
            let taken = gather.next(&mut pushes, || self.outlet.connected()).await;
            if taken.is_empty() {
                return;
            }
            let mut revisions: BTreeMap<u32, Vec<Push>> = BTreeMap::new();
            for push in taken {
                if push.received_at.elapsed() > patience {
                    // Nobody may be listening.
                    push.reply.send(Err(Refused::Unavailable)).ok();
                } else {
                    revisions.entry(push.revision).or_default().push(push);
                }
            }
            for (revision, pushes) in revisions {
                self.commit(revision, pushes).await;
            }
        }
    }

    /// Publishes what a group has and answers all of it.
    async fn commit(&mut self, revision: u32, pushes: Vec<Push>) {
        let now_ns = self.outlet.clock.now_ns();
        let window = PushWindow::around(now_ns / 1_000_000, self.outlet.config.window_ms());
        let prefix = format!("{}:", self.outlet.instance);
        let mut batches = Batches::new(prefix, now_ns.max(self.last_ns));
        let mut hints: Vec<String> = Vec::new();
        let mut deliveries: HashSet<u128> = HashSet::new();
        let mut repeated = 0;
        for item in pushes.iter().flat_map(|push| &push.items) {
            if let Some(delivery) = item.delivery
                && (self.outlet.seen.contains(delivery) || !deliveries.insert(delivery))
            {
                repeated += 1;
                continue;
            }
            batches.push(item);
            hints.extend(item.pushed.iter().filter_map(|pushed| match pushed {
                Pushed::Hint(id) => Some(id.clone()),
                Pushed::Record { .. } => None,
            }));
        }
        let deliveries: Vec<u128> = deliveries.into_iter().collect();
        let (batches, last_ns) = batches.finish();
        self.last_ns = last_ns;
        let run = RunId::of_window(&self.pipeline, revision, window);
        let mut messages = Vec::new();
        let mut entries = Vec::new();
        let mut records = 0;
        let mut encoded = Vec::new();
        for batch in &batches {
            item::encode(batch, &mut encoded);
        }
        let senders: Vec<_> = pushes.iter().filter_map(|push| push.sender.clone()).collect();
        // They end when all of it is answered.
        let mut spans = Vec::new();
        for (encoded, count) in encoded {
            let (message, entry, id, span) = self.message(revision, (run, window), encoded, count);
            for sender in senders.iter().take(LINKS) {
                span.add_link(sender.clone());
            }
            records += count as u64;
            let subject = self.outlet.bus.names().raw(&self.pipeline);
            messages.push(Outgoing::new(subject, message).with_id(id).with_context(span.context()));
            entries.push(entry);
            spans.push(span);
        }
        hints.sort_unstable();
        hints.dedup();
        for ids in hints.chunks(HINTS) {
            messages.push(self.fetch(revision, run, window, ids.to_vec()));
        }
        let patience = self.outlet.config.patience;
        let offers = messages.into_iter().map(|message| self.outlet.bus.offer(message, patience));
        let outcome = try_join_all(offers).await.map(drop).map_err(|error| match error {
            OfferError::Full => Refused::Full,
            error => {
                tracing::warn!(pipeline.name = %self.pipeline, %error, "pushes are refused");
                Refused::Unavailable
            }
        });
        if outcome.is_ok() {
            runtime::fault::point("intake.published");
            self.outlet.seen.insert(&deliveries);
        }
        for push in pushes {
            // The sender may have gone; its records are safe all the same.
            push.reply.send(outcome).ok();
        }
        if outcome.is_ok() {
            runtime::fault::point("intake.answered");
            self.outlet.metrics.taken(&self.pipeline, records, repeated, hints.len() as u64);
            // Waiting here lets the queue grow, which refuses further pushes: a bound for what is safe
            // and not in the books.
            drop(self.published.send(Published { entries, deliveries }).await);
        }
    }

    fn message(
        &mut self,
        revision: u32,
        (run, window): (RunId, PushWindow),
        encoded: EncodedRecords,
        count: usize,
    ) -> (Bytes, LedgerEntry, String, Span) {
        self.count += 1;
        let Outlet { instance, .. } = &self.outlet;
        let hash = encoded.content_hash();
        let header = BatchHeader {
            pipeline: self.pipeline.clone(),
            revision,
            run,
            attempt: 1,
            batch: BatchId::from_wire(format!("{run}/push/{instance}-{}/{hash:016x}", self.count)),
            part: 0,
            sequence: 0,
            cursor_before: String::new(),
            cursor_after: String::new(),
            extracted: u32::try_from(count).expect("a batch has a few thousand records"),
            push: Some(window),
        };
        let id = format!("{}#1", header.batch);
        // A trace of its own, which goes on in the other stages.
        let span = tracing::info_span!(
            parent: None,
            "batch",
            stage = "extractor",
            pipeline = %self.pipeline,
            run.id = %run,
            batch.id = %header.batch,
            records = header.extracted,
        );
        let message = encoded.into_message(&header);
        let entry = extracted(&header, message.len() as u64, 0);
        (message, entry, id, span)
    }

    /// Makes the task that fetches objects.
    fn fetch(
        &mut self,
        revision: u32,
        run: RunId,
        window: PushWindow,
        ids: Vec<String>,
    ) -> Outgoing {
        self.count += 1;
        let name = format!("{}-{}", self.outlet.instance, self.count);
        let task = Task {
            run: run.to_string(),
            pipeline: self.pipeline.to_string(),
            revision,
            attempt: 1,
            options: None,
            work: Some(task::Work::FetchRecords(FetchRecords {
                ids,
                window_start_ms: window.start_ms,
                window_end_ms: window.end_ms,
                name: name.clone(),
            })),
        };
        let subject = self.outlet.bus.names().task(TaskKind::Fetch, &self.pipeline);
        Outgoing::new(subject, Bytes::from(task.encode_to_vec()))
            .with_id(format!("{run}#fetch/{name}"))
    }
}

/// Makes the ledger entry of a pushed batch.
pub(crate) fn extracted(header: &BatchHeader, size_bytes: u64, quarantined: u32) -> LedgerEntry {
    LedgerEntry {
        run: header.run.to_string(),
        attempt: header.attempt,
        push: wire::push_run(header),
        event: Some(Event::BatchExtracted(BatchExtracted {
            batch: header.batch.to_string(),
            records: header.extracted,
            size_bytes,
            quarantined,
            ..BatchExtracted::default()
        })),
    }
}

/// Enters in the ledger what is safe, and tells the other processes. What is lost here, because the
/// process dies, the transformer enters.
async fn record(outlet: Outlet, pipeline: PipelineName, mut published: mpsc::Receiver<Published>) {
    let mut gather = Gather::new(RECORDING, UNRECORDED);
    loop {
        let groups = gather.next(&mut published, || usize::MAX).await;
        if groups.is_empty() {
            return;
        }
        let mut entries = Vec::new();
        let mut deliveries = Vec::new();
        for group in groups {
            entries.extend(group.entries);
            deliveries.extend(group.deliveries);
        }
        if !deliveries.is_empty()
            && let Err(error) = outlet.bus.tell_deliveries(&deliveries).await
        {
            tracing::debug!(%error, "a repeated delivery may be counted twice");
        }
        if entries.is_empty() {
            continue;
        }
        if let Err(error) = outlet.ledger.record(&pipeline, entries).await {
            tracing::warn!(
                pipeline.name = %pipeline,
                error = stage::chain(&error),
                "the transformers enter in the ledger what was pushed"
            );
        }
        runtime::fault::point("intake.ledgered");
    }
}
