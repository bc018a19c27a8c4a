//! A broker, schedulers, and the part of the other stages.

use std::time::Duration;

use bus::{Bus, Consumer, ConsumerOptions, Delivery, LedgerWriter, Queue, TaskKind};
use model::{PipelineName, RunId};
use scheduler::{Config, Database};
use testkit::nats::Nats;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use wire::{
    Message,
    control::{
        ApplyPipelinesRequest, ApplyPipelinesResponse, GetRunRequest, PipelineSource, Run,
        RunState, StartRunRequest, pipeline_service_client::PipelineServiceClient,
        poll_service_client::PollServiceClient, quarantine_service_client::QuarantineServiceClient,
        quota_service_client::QuotaServiceClient, run_service_client::RunServiceClient,
    },
    ledger::{
        BatchExtracted, BatchLoaded, BatchTransformed, LedgerEntry, PartExtracted, PartsPlanned,
        ledger_entry::Event,
    },
    task::{PlanParts, SweepTarget, Task, task::Work},
};

pub(crate) const SHOP: &str = r#"
pipeline: shop
source:
  csv: {path: "orders/*.csv"}
schema: {id: integer, total: "decimal(12,2)"}
key: [id]
targets:
  store: {sqlite: {path: store.db, table: orders}}
"#;

pub(crate) const SNAPSHOT: &str = r#"
pipeline: shop
source:
  csv: {path: "orders/*.csv"}
schema: {id: integer}
key: [id]
targets:
  store:
    sqlite: {path: store.db, table: orders}
    mode: {snapshot: {max_loss_percent: 10}}
"#;

/// Fails the test when something does not happen.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it happens in time")
}

/// A running scheduler.
pub(crate) struct Replica {
    pub(crate) channel: Channel,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Replica {
    pub(crate) fn pipelines(&self) -> PipelineServiceClient<Channel> {
        PipelineServiceClient::new(self.channel.clone())
    }

    pub(crate) fn runs(&self) -> RunServiceClient<Channel> {
        RunServiceClient::new(self.channel.clone())
    }

    pub(crate) fn polls(&self) -> PollServiceClient<Channel> {
        PollServiceClient::new(self.channel.clone())
    }

    pub(crate) fn quotas(&self) -> QuotaServiceClient<Channel> {
        QuotaServiceClient::new(self.channel.clone())
    }

    pub(crate) fn quarantine(&self) -> QuarantineServiceClient<Channel> {
        QuarantineServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        within(self.task).await.unwrap().unwrap();
    }
}

pub(crate) struct House {
    pub(crate) nats: Nats,
    pub(crate) bus: Bus,
    pub(crate) config: Config,
    pub(crate) pipeline: PipelineName,
    ledger: LedgerWriter,
    plans: Consumer,
    sweeps: Consumer,
    never: CancellationToken,
    _folder: tempfile::TempDir,
}

impl House {
    pub(crate) async fn new() -> Self {
        let nats = tokio::task::spawn_blocking(Nats::start).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let never = CancellationToken::new();
        let config = Config {
            database: Database::new(folder.path().join("scheduler.db").to_str().unwrap()),
            bus: bus::Config { servers: vec![nats.url()], ..bus::Config::default() },
            settle_interval: Duration::from_millis(20),
            reconcile_interval: Duration::from_millis(150),
            // A test that wants a loss to be found says so.
            stalled_after: Duration::from_secs(3_600),
            ask_timeout: Duration::from_secs(5),
            ..Config::default()
        };
        let bus = Bus::connect(&config.bus, &never).await.unwrap();
        bus.provision().await.unwrap();
        let pipeline: PipelineName = "shop".parse().unwrap();
        let tasks = |kind| Queue::Tasks { kind, pipeline: pipeline.clone() };
        Self {
            ledger: LedgerWriter::new(&bus),
            plans: bus.consumer(ConsumerOptions::new(tasks(TaskKind::Plan))),
            sweeps: bus.consumer(ConsumerOptions::new(tasks(TaskKind::Sweep))),
            nats,
            bus,
            config,
            pipeline,
            never,
            _folder: folder,
        }
    }

    /// Starts a scheduler; any number may run.
    pub(crate) async fn scheduler(&self) -> Replica {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let run = scheduler::run_on(listener, self.config.clone(), shutdown.clone());
        let task = tokio::spawn(run);
        // The listener is bound, so the connection waits until the API is there.
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        Replica { channel: within(channel.connect()).await.unwrap(), shutdown, task }
    }

    /// A house with one scheduler and one applied pipeline.
    pub(crate) async fn with(yaml: &str) -> (Self, Replica) {
        let house = Self::new().await;
        let replica = house.scheduler().await;
        let applied = apply(&replica, yaml).await;
        assert_eq!(applied.problems, []);
        (house, replica)
    }

    /// Takes the next task to plan a run.
    pub(crate) async fn plan(&mut self) -> (Stages, PlanParts) {
        let task = next_task(&mut self.plans, &self.never).await;
        let stages = self.stages(&task);
        let Some(Work::PlanParts(plan)) = task.work else { panic!("not a plan: {task:?}") };
        (stages, plan)
    }

    /// Takes the next task to sweep a target.
    pub(crate) async fn sweep(&mut self) -> (Stages, SweepTarget) {
        let task = next_task(&mut self.sweeps, &self.never).await;
        let stages = self.stages(&task);
        let Some(Work::SweepTarget(sweep)) = task.work else { panic!("not a sweep: {task:?}") };
        (stages, sweep)
    }

    fn stages(&self, task: &Task) -> Stages {
        self.stages_of(&task.run, task.attempt)
    }

    pub(crate) fn stages_of(&self, run: &str, attempt: u32) -> Stages {
        Stages {
            ledger: self.ledger.clone(),
            pipeline: self.pipeline.clone(),
            run: run.to_owned(),
            attempt,
        }
    }

    /// Takes the next message of a queue.
    pub(crate) async fn delivery(&self, queue: Queue) -> Delivery {
        let mut consumer = self.bus.consumer(ConsumerOptions::new(queue));
        within(consumer.next(&self.never)).await.unwrap()
    }

    pub(crate) fn raw(&self) -> Queue {
        Queue::Raw { pipeline: self.pipeline.clone() }
    }

    pub(crate) fn ready(&self) -> Queue {
        let target = "store".parse().unwrap();
        Queue::Ready { pipeline: self.pipeline.clone(), target }
    }
}

async fn next_task(consumer: &mut Consumer, never: &CancellationToken) -> Task {
    let delivery = within(consumer.next(never)).await.unwrap();
    let task = Task::decode(delivery.payload().unwrap()).unwrap();
    delivery.ack().await.unwrap();
    task
}

pub(crate) async fn apply(replica: &Replica, yaml: &str) -> ApplyPipelinesResponse {
    let source = PipelineSource { file: "shop.yaml".to_owned(), yaml: yaml.to_owned() };
    let request =
        ApplyPipelinesRequest { pipelines: vec![source], ..ApplyPipelinesRequest::default() };
    replica.pipelines().apply_pipelines(request).await.unwrap().into_inner()
}

pub(crate) async fn start(replica: &Replica) -> Run {
    let request = StartRunRequest { pipeline: "shop".to_owned(), ..StartRunRequest::default() };
    replica.runs().start_run(request).await.unwrap().into_inner().run.unwrap()
}

pub(crate) async fn run_of(replica: &Replica, id: &str) -> Run {
    let request = GetRunRequest { id: id.to_owned() };
    replica.runs().get_run(request).await.unwrap().into_inner().run.unwrap()
}

/// Waits until a run is as it should be, and returns it.
pub(crate) async fn until(replica: &Replica, id: &str, wanted: impl Fn(&Run) -> bool) -> Run {
    let request = wire::control::WatchRunRequest { id: id.to_owned() };
    let mut changes = replica.runs().watch_run(request).await.unwrap().into_inner();
    let mut last = None;
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let run = changes.message().await.unwrap()?.run.unwrap();
            if wanted(&run) {
                return Some(run);
            }
            last = Some(run);
        }
    });
    match found.await {
        Ok(Some(run)) => run,
        Ok(None) | Err(_) => panic!("the run never became as it should be: {last:?}"),
    }
}

pub(crate) async fn until_state(replica: &Replica, id: &str, state: RunState) -> Run {
    until(replica, id, |run| run.state() == state).await
}

/// Plays the stages of one attempt of a run.
#[derive(Clone)]
pub(crate) struct Stages {
    ledger: LedgerWriter,
    pipeline: PipelineName,
    pub(crate) run: String,
    pub(crate) attempt: u32,
}

impl Stages {
    pub(crate) fn id(&self) -> RunId {
        self.run.parse().unwrap()
    }

    pub(crate) async fn tell(&self, events: Vec<Event>) {
        let entries = events.into_iter().map(|event| LedgerEntry {
            run: self.run.clone(),
            attempt: self.attempt,
            event: Some(event),
            push: None,
        });
        self.ledger.record(&self.pipeline, entries.collect()).await.unwrap();
    }

    /// A part of `batches` batches with ten records each, all of which arrive.
    pub(crate) async fn whole_part(&self, batches: u32) {
        let mut events = vec![planned(&["orders/1.csv"])];
        events.extend((0..batches).flat_map(batch));
        events.push(part_ended(batches));
        self.tell(events).await;
    }
}

pub(crate) fn planned(parts: &[&str]) -> Event {
    Event::PartsPlanned(PartsPlanned {
        parts: parts.iter().map(|part| (*part).to_owned()).collect(),
        extraction_end: 5,
        gone: Vec::new(),
    })
}

pub(crate) fn part_ended(batches: u32) -> Event {
    Event::PartExtracted(PartExtracted {
        part: 0,
        batches,
        cursor: "end".to_owned(),
        ..PartExtracted::default()
    })
}

pub(crate) fn extracted(sequence: u32) -> Event {
    Event::BatchExtracted(BatchExtracted {
        batch: format!("b{sequence}"),
        part: 0,
        sequence,
        cursor_before: format!("c{sequence}"),
        cursor_after: format!("c{}", sequence + 1),
        records: 10,
        size_bytes: 1_000,
        quarantined: 0,
    })
}

pub(crate) fn transformed(batch: &str, quarantined: u32) -> Event {
    let batch = batch.to_owned();
    Event::BatchTransformed(BatchTransformed { batch, filtered: 0, quarantined, extracted: 0 })
}

pub(crate) fn loaded(batch: &str, loaded: u32, quarantined: u32) -> Event {
    let (batch, target) = (batch.to_owned(), "store".to_owned());
    Event::BatchLoaded(BatchLoaded {
        batch,
        target,
        loaded,
        unchanged: 0,
        quarantined,
        ages: std::collections::HashMap::new(),
    })
}

/// All that becomes of a batch of ten.
pub(crate) fn batch(sequence: u32) -> Vec<Event> {
    let id = format!("b{sequence}");
    vec![extracted(sequence), transformed(&id, 0), loaded(&id, 10, 0)]
}
