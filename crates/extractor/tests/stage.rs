//! A broker, an extractor and what it has published.

use std::{sync::Arc, time::Duration};

use bus::{Bucket, Bus, Consumer, ConsumerOptions, Outgoing, Queue, TaskKind};
use model::{Batch, PipelineName, RunId, Schema};
use testkit::{nats::Nats, source::Source};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{
    Message, Quarantined,
    ledger::{
        BatchExtracted, LedgerEntries, PartExtracted, PartsPlanned, RunStopped, ledger_entry::Event,
    },
    task::{ExtractPart, PlanParts, Task, task},
};

const YAML: &str = r#"
pipeline: shop
source:
  csv: {path: "orders/*.csv"}
key: [key]
targets:
  store: {sqlite: {path: store.db, table: orders}}
"#;

/// Fails the test when something does not happen.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it happens in time")
}

/// A running extractor.
pub(crate) struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        within(self.task).await.unwrap().unwrap();
    }
}

pub(crate) struct Stage {
    pub(crate) bus: Bus,
    pub(crate) pipeline: PipelineName,
    pub(crate) run: RunId,
    pub(crate) config: extractor::Config,
    source: Source,
    ledger: Consumer,
    raw: Consumer,
    quarantine: Consumer,
    never: CancellationToken,
    _nats: Nats,
}

impl Stage {
    pub(crate) async fn new(source: &Source) -> Self {
        let nats = Nats::start();
        let bus_config = bus::Config {
            servers: vec![nats.url()],
            ack_wait: Duration::from_secs(2),
            ..bus::Config::default()
        };
        let mut config = extractor::Config { bus: bus_config, ..extractor::Config::default() };
        config.retry.first_delay = Duration::from_millis(5);
        config.retry.max_delay = Duration::from_millis(50);
        config.shutdown_grace = Duration::from_secs(2);
        Self::with(source, config, nats).await
    }

    pub(crate) async fn with(source: &Source, config: extractor::Config, nats: Nats) -> Self {
        let never = CancellationToken::new();
        let bus = Bus::connect(&config.bus, &never).await.unwrap();
        bus.provision().await.unwrap();
        let pipeline: PipelineName = "shop".parse().unwrap();
        let consumer = |queue| bus.consumer(ConsumerOptions::new(queue));
        let stage = Self {
            ledger: consumer(Queue::Ledger),
            raw: consumer(Queue::Raw { pipeline: pipeline.clone() }),
            quarantine: consumer(Queue::Quarantine),
            bus,
            pipeline,
            run: RunId::generate(),
            config,
            source: source.clone(),
            never,
            _nats: nats,
        };
        stage.apply(1).await;
        stage
    }

    /// Stores a revision of the pipeline.
    pub(crate) async fn apply(&self, revision: u32) {
        let stored = spec::Revision {
            name: self.pipeline.clone(),
            revision,
            yaml: YAML.to_owned(),
            schema: Some(Schema::default()),
        };
        let value = serde_json::to_vec(&stored).unwrap();
        let bucket = self.bus.key_value(Bucket::Pipelines);
        bucket.put(&format!("shop.{revision}"), value.clone()).await.unwrap();
        bucket.put("shop", value).await.unwrap();
    }

    pub(crate) fn start(&self) -> Running {
        let shutdown = CancellationToken::new();
        let source = self.source.clone();
        let sources: extractor::Sources =
            Arc::new(move |_, _, _, _| Ok(Arc::new(source.clone()) as Arc<dyn connect::Source>));
        let task =
            tokio::spawn(extractor::run_with(self.config.clone(), sources, shutdown.clone()));
        Running { shutdown, task }
    }

    pub(crate) async fn plan(&self) {
        self.plan_of(1, PlanParts { extraction_base: 1_000, ..PlanParts::default() }).await;
    }

    pub(crate) async fn plan_of(&self, revision: u32, plan: PlanParts) {
        self.give(TaskKind::Plan, revision, 1, task::Work::PlanParts(plan)).await;
    }

    /// Gives the task to read a part, as a plan would.
    pub(crate) async fn extract(&self, attempt: u32, part: &str) {
        let part =
            ExtractPart { part: part.to_owned(), extraction_base: 1_000, ..ExtractPart::default() };
        self.give(TaskKind::Extract, 1, attempt, task::Work::ExtractPart(part)).await;
    }

    async fn give(&self, kind: TaskKind, revision: u32, attempt: u32, work: task::Work) {
        let task = Task {
            run: self.run.to_string(),
            pipeline: "shop".to_owned(),
            revision,
            attempt,
            options: None,
            work: Some(work),
        };
        let subject = self.bus.names().task(kind, &self.pipeline);
        self.bus.publish(Outgoing::new(subject, task.encode_to_vec().into())).await.unwrap();
    }

    /// Takes ledger entries until `enough`.
    pub(crate) async fn ledger_until(&mut self, enough: impl Fn(&Ledger) -> bool) -> Ledger {
        let mut ledger = Ledger::default();
        while !enough(&ledger) {
            let delivery = within(self.ledger.next(&self.never)).await.unwrap();
            let entries = LedgerEntries::decode(delivery.payload().unwrap()).unwrap();
            for entry in entries.entries {
                assert_eq!(entry.run, self.run.to_string());
                ledger.take(entry.event.unwrap());
            }
            delivery.ack().await.unwrap();
        }
        ledger
    }

    /// Takes a batch.
    pub(crate) async fn batch(&mut self) -> Batch {
        let delivery = within(self.raw.next(&self.never)).await.unwrap();
        let batch = wire::decode(delivery.payload().unwrap()).unwrap();
        delivery.ack().await.unwrap();
        batch
    }

    /// Takes as many batches as the ledger has that hold records.
    pub(crate) async fn batches(&mut self, ledger: &Ledger) -> Vec<Batch> {
        let full = ledger.batches.iter().filter(|entry| entry.records > entry.quarantined).count();
        let mut batches = Vec::new();
        for _ in 0..full {
            batches.push(self.batch().await);
        }
        assert_eq!(self.bus.pending(&self.pipeline).await.unwrap().raw, 0);
        batches
    }

    /// Takes a message of refused records.
    pub(crate) async fn quarantined(&mut self) -> Quarantined {
        let delivery = within(self.quarantine.next(&self.never)).await.unwrap();
        let quarantined = wire::decode_quarantined(delivery.payload().unwrap()).unwrap();
        delivery.ack().await.unwrap();
        quarantined
    }

    /// Waits until no task is left.
    pub(crate) async fn tasks_done(&self) {
        within(async {
            while self.bus.pending(&self.pipeline).await.unwrap().tasks > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// What the extractor has entered.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) planned: Vec<PartsPlanned>,
    pub(crate) batches: Vec<BatchExtracted>,
    pub(crate) ended: Vec<PartExtracted>,
    pub(crate) stopped: Vec<RunStopped>,
}

impl Ledger {
    fn take(&mut self, event: Event) {
        match event {
            Event::PartsPlanned(planned) => self.planned.push(planned),
            Event::BatchExtracted(batch) => self.batches.push(batch),
            Event::PartExtracted(ended) => self.ended.push(ended),
            Event::RunStopped(stopped) => self.stopped.push(stopped),
            other => panic!("the extractor does not enter {other:?}"),
        }
    }

    pub(crate) fn records(&self) -> u32 {
        self.batches.iter().map(|batch| batch.records).sum()
    }

    pub(crate) fn quarantined(&self) -> u32 {
        self.batches.iter().map(|batch| batch.quarantined).sum()
    }
}

/// Returns the keys of all records, sorted.
pub(crate) fn keys(batches: &[Batch]) -> Vec<String> {
    let keys = batches.iter().flat_map(|batch| {
        (0..batch.records.len()).map(|index| testkit::records::text(&batch.records, "key", index))
    });
    let mut keys: Vec<String> = keys.collect();
    keys.sort();
    keys
}
