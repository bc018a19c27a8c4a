//! A broker, two targets in memory and a loader that writes to them.

use std::{sync::Arc, time::Duration};

use bus::{Bucket, Bus, Consumer, ConsumerOptions, Outgoing, Queue, TaskKind};
use model::{Batch, BatchHeader, BatchId, PipelineName, RunId, Schema};
use testkit::{nats::Nats, target::Target};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{
    Message, Quarantined,
    ledger::{BatchLoaded, LedgerEntries, RunStopped, TargetSwept, ledger_entry::Event},
    task::{SweepTarget, Task, task},
};

pub(crate) const YAML: &str = r#"
pipeline: shop
source:
  csv: {path: "orders/*.csv"}
key: [key]
targets:
  store: {sqlite: {path: store.db, table: orders}}
  copy: {sqlite: {path: copy.db, table: orders}}
"#;

/// Fails the test when something does not happen.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it happens in time")
}

/// A running loader.
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
    pub(crate) config: loader::Config,
    pub(crate) store: Target,
    pub(crate) copy: Target,
    pipeline: PipelineName,
    ledger: Consumer,
    quarantine: Consumer,
    never: CancellationToken,
    _nats: Nats,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let nats = Nats::start();
        let bus_config = bus::Config {
            servers: vec![nats.url()],
            ack_wait: Duration::from_secs(1),
            ..bus::Config::default()
        };
        let mut config = loader::Config { bus: bus_config, ..loader::Config::default() };
        config.retry.first_delay = Duration::from_millis(5);
        config.retry.max_delay = Duration::from_millis(50);
        config.shutdown_grace = Duration::from_millis(500);
        let never = CancellationToken::new();
        let bus = Bus::connect(&config.bus, &never).await.unwrap();
        bus.provision().await.unwrap();
        let stage = Self {
            ledger: bus.consumer(ConsumerOptions::new(Queue::Ledger)),
            quarantine: bus.consumer(ConsumerOptions::new(Queue::Quarantine)),
            bus,
            run: RunId::generate(),
            config,
            store: Target::default(),
            copy: Target::default(),
            pipeline: "shop".parse().unwrap(),
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
        bucket.put(&format!("shop.{revision}"), value).await.unwrap();
    }

    pub(crate) fn start(&self) -> Running {
        let shutdown = CancellationToken::new();
        let (store, copy) = (self.store.clone(), self.copy.clone());
        let targets: loader::Targets = Arc::new(move |_, target| {
            let target = if target.name.as_str() == "store" { &store } else { &copy };
            Ok(Arc::new(target.clone()) as Arc<dyn connect::Target>)
        });
        let task = tokio::spawn(loader::run_with(self.config.clone(), targets, shutdown.clone()));
        Running { shutdown, task }
    }

    /// Makes a batch with these keys; the sequence tells its records from those of others.
    pub(crate) fn batch(&self, sequence: u32, keys: &[&str]) -> Batch {
        let first = u64::from(sequence) * 100;
        let rows: Vec<_> = keys
            .iter()
            .zip(first..)
            .map(|(key, position)| (position, (*key).to_owned(), format!("value {position}")))
            .collect();
        let extracted = u32::try_from(keys.len()).unwrap();
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

    pub(crate) async fn publish(&self, target: &str, batch: &Batch) {
        self.publish_bytes(target, wire::encode(batch).to_vec()).await;
    }

    pub(crate) async fn publish_bytes(&self, target: &str, payload: Vec<u8>) {
        let subject = self.bus.names().ready(&self.pipeline, &target.parse().unwrap());
        self.bus.publish(Outgoing::new(subject, payload.into())).await.unwrap();
    }

    pub(crate) async fn sweep(&self, sweep: SweepTarget) {
        let task = Task {
            run: self.run.to_string(),
            pipeline: "shop".to_owned(),
            revision: 1,
            attempt: 1,
            options: None,
            work: Some(task::Work::SweepTarget(sweep)),
        };
        let subject = self.bus.names().task(TaskKind::Sweep, &self.pipeline);
        self.bus.publish(Outgoing::new(subject, task.encode_to_vec().into())).await.unwrap();
    }

    /// Takes ledger entries until `enough`.
    pub(crate) async fn ledger_until(&mut self, enough: impl Fn(&Ledger) -> bool) -> Ledger {
        let mut ledger = Ledger::default();
        while !enough(&ledger) {
            let delivery = within(self.ledger.next(&self.never)).await.unwrap();
            let entries = LedgerEntries::decode(delivery.payload().unwrap()).unwrap();
            for entry in entries.entries {
                ledger.take(entry.event.unwrap());
            }
            delivery.ack().await.unwrap();
        }
        ledger
    }

    /// Takes a message of refused records.
    pub(crate) async fn quarantined(&mut self) -> Quarantined {
        let delivery = within(self.quarantine.next(&self.never)).await.unwrap();
        let quarantined = wire::decode_quarantined(delivery.payload().unwrap()).unwrap();
        delivery.ack().await.unwrap();
        quarantined
    }

    /// Waits until no message waits for the loader.
    pub(crate) async fn work_done(&self) {
        within(async {
            loop {
                let pending = self.bus.pending(&self.pipeline).await.unwrap();
                if pending.ready == 0 && pending.tasks == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Number of messages that the loaders still owe an answer.
    pub(crate) async fn ready(&self) -> u64 {
        self.bus.pending(&self.pipeline).await.unwrap().ready
    }
}

/// What the loader has entered.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) loaded: Vec<BatchLoaded>,
    pub(crate) swept: Vec<TargetSwept>,
    pub(crate) stopped: Vec<RunStopped>,
}

impl Ledger {
    fn take(&mut self, event: Event) {
        match event {
            Event::BatchLoaded(loaded) => self.loaded.push(loaded),
            Event::TargetSwept(swept) => self.swept.push(swept),
            Event::RunStopped(stopped) => self.stopped.push(stopped),
            other => panic!("the loader does not enter {other:?}"),
        }
    }
}
