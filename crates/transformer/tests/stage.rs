//! A broker and a transformer between its streams.

use std::{collections::VecDeque, time::Duration};

use bus::{Bucket, Bus, Consumer, ConsumerOptions, Outgoing, Queue};
use model::{Batch, BatchHeader, BatchId, PipelineName, Records, RunId};
use testkit::nats::Nats;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{
    Message, Quarantined,
    ledger::{BatchTransformed, LedgerEntries, ledger_entry::Event},
};

/// Two text columns, `key` and `value`, of which the second becomes a number.
pub(crate) const YAML: &str = r#"
pipeline: shop
source:
  csv: {path: "orders/*.csv"}
schema:
  key: text
  value: integer
steps:
  - filter: "value != 0"
key: [key]
targets:
  store: {sqlite: {path: store.db, table: orders}}
  copy: {sqlite: {path: copy.db, table: orders}}
"#;

/// Fails the test when something does not happen.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it happens in time")
}

/// A running transformer.
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
    pub(crate) run: RunId,
    config: transformer::Config,
    pipeline: PipelineName,
    ledger: Consumer,
    entered: VecDeque<Event>,
    quarantine: Consumer,
    store: Consumer,
    copy: Consumer,
    never: CancellationToken,
    _nats: Nats,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(bus::MaxBytes::default()).await
    }

    pub(crate) async fn with(max_bytes: bus::MaxBytes) -> Self {
        let nats = Nats::start();
        let bus_config =
            bus::Config { servers: vec![nats.url()], max_bytes, ..bus::Config::default() };
        let config = transformer::Config { bus: bus_config, ..transformer::Config::default() };
        let never = CancellationToken::new();
        let bus = Bus::connect(&config.bus, &never).await.unwrap();
        bus.provision().await.unwrap();
        let pipeline: PipelineName = "shop".parse().unwrap();
        let ready = |target: &str| {
            let target = target.parse().unwrap();
            bus.consumer(ConsumerOptions::new(Queue::Ready { pipeline: pipeline.clone(), target }))
        };
        Self {
            entered: VecDeque::new(),
            ledger: bus.consumer(ConsumerOptions::new(Queue::Ledger)),
            quarantine: bus.consumer(ConsumerOptions::new(Queue::Quarantine)),
            store: ready("store"),
            copy: ready("copy"),
            bus,
            run: RunId::generate(),
            config,
            pipeline,
            never,
            _nats: nats,
        }
    }

    /// Stores a revision of the pipeline.
    pub(crate) async fn apply(&self, revision: u32, yaml: &str) {
        let stored = spec::Revision {
            name: self.pipeline.clone(),
            revision,
            yaml: yaml.to_owned(),
            schema: None,
        };
        let value = serde_json::to_vec(&stored).unwrap();
        let bucket = self.bus.key_value(Bucket::Pipelines);
        bucket.put(&format!("shop.{revision}"), value).await.unwrap();
    }

    pub(crate) fn start(&self) -> Running {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(transformer::run(self.config.clone(), shutdown.clone()));
        Running { shutdown, task }
    }

    /// Makes a batch of these values, each under a key of its own.
    pub(crate) fn batch(&self, sequence: u32, values: &[&str]) -> Batch {
        let first = u64::from(sequence) * 100;
        let rows: Vec<_> = values
            .iter()
            .zip(first..)
            .map(|(value, position)| (position, format!("k{position}"), (*value).to_owned()))
            .collect();
        let extracted = u32::try_from(values.len()).unwrap();
        let header = BatchHeader {
            pipeline: self.pipeline.clone(),
            revision: 1,
            run: self.run,
            attempt: 1,
            batch: BatchId::new(self.run, 0, first, first + u64::from(extracted), 7),
            part: 0,
            sequence,
            cursor_before: String::new(),
            cursor_after: sequence.to_string(),
            extracted,
            push: None,
        };
        Batch { header, records: testkit::records::records("f:", 1_000, &rows) }
    }

    pub(crate) async fn publish(&self, batch: &Batch) {
        self.publish_bytes(wire::encode(batch).to_vec()).await;
    }

    pub(crate) async fn publish_bytes(&self, payload: Vec<u8>) {
        let subject = self.bus.names().raw(&self.pipeline);
        self.bus.publish(Outgoing::new(subject, payload.into())).await.unwrap();
    }

    /// Takes the next ledger entry.
    pub(crate) async fn entry(&mut self) -> Event {
        while self.entered.is_empty() {
            let delivery = within(self.ledger.next(&self.never)).await.unwrap();
            let entries = LedgerEntries::decode(delivery.payload().unwrap()).unwrap().entries;
            delivery.ack().await.unwrap();
            for entry in entries {
                assert_eq!((entry.run, entry.attempt), (self.run.to_string(), 1));
                self.entered.push_back(entry.event.unwrap());
            }
        }
        self.entered.pop_front().unwrap()
    }

    /// Takes the next ledger entry, which is that of a batch.
    pub(crate) async fn transformed(&mut self) -> BatchTransformed {
        match self.entry().await {
            Event::BatchTransformed(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    /// Takes the next batch for each of the two targets.
    pub(crate) async fn ready(&mut self) -> [Batch; 2] {
        let mut batches = Vec::new();
        for consumer in [&mut self.store, &mut self.copy] {
            let delivery = within(consumer.next(&self.never)).await.unwrap();
            batches.push(wire::decode(delivery.payload().unwrap()).unwrap());
            delivery.ack().await.unwrap();
        }
        batches.try_into().unwrap()
    }

    /// Takes a message of refused records.
    pub(crate) async fn quarantined(&mut self) -> Quarantined {
        let delivery = within(self.quarantine.next(&self.never)).await.unwrap();
        let quarantined = wire::decode_quarantined(delivery.payload().unwrap()).unwrap();
        delivery.ack().await.unwrap();
        quarantined
    }

    /// Waits until the transformer has answered every message.
    pub(crate) async fn work_done(&self) {
        within(async {
            while self.bus.pending(&self.pipeline).await.unwrap().raw > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Returns the number of messages that wait for transformers, and then for loaders.
    pub(crate) async fn waiting(&self) -> (u64, u64) {
        let pending = self.bus.pending(&self.pipeline).await.unwrap();
        (pending.raw, pending.ready)
    }

    /// Tells whether nothing waits for the loaders.
    pub(crate) async fn nothing_ready(&self) -> bool {
        self.bus.pending(&self.pipeline).await.unwrap().ready == 0
    }
}

/// Returns the keys of records.
pub(crate) fn keys(records: &Records) -> Vec<String> {
    (0..records.len()).map(|row| testkit::records::text(records, "key", row)).collect()
}
