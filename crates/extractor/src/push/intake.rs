use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bus::{Bus, LedgerWriter};
use connectors::Variables;
use model::PipelineName;
use runtime::clock::Clock;
use stage::Pipelines;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    PushConfig,
    grpc::Allowed,
    hook::Hook,
    inlet::{Inlet, Outlet},
    metrics::Metrics,
    seen::Seen,
};

/// Why nothing can be pushed to a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// There is no such pipeline, or it does not take such pushes.
    NotFound,
    /// Its secrets cannot be resolved here.
    Misconfigured,
}

/// All pipelines that take pushes in.
pub(crate) struct Intake {
    pipelines: Pipelines,
    variables: Variables,
    pub(crate) outlet: Outlet,
    entries: Mutex<HashMap<PipelineName, Entry>>,
    pub(crate) tasks: TaskTracker,
}

/// What is open for one pipeline.
struct Entry {
    inlet: Inlet,
    revision: u32,
    /// State of the secret files that it was built with.
    secrets: u64,
    hook: Result<Arc<Hook>, Closed>,
    grpc: Result<Arc<Allowed>, Closed>,
}

/// What a kind of push needs of a pipeline.
pub(crate) struct Open<T> {
    pub(crate) inlet: Inlet,
    pub(crate) how: Arc<T>,
}

impl Intake {
    pub(crate) fn new(
        bus: Bus,
        ledger: LedgerWriter,
        pipelines: Pipelines,
        variables: Variables,
        config: Arc<PushConfig>,
    ) -> Self {
        let outlet = Outlet {
            bus,
            ledger,
            seen: Seen::new(config.remembered_ids),
            places: Arc::new(Semaphore::new(config.connections)),
            config,
            clock: Clock::system(),
            instance: instance(),
            metrics: Metrics::new(),
        };
        Self { pipelines, variables, outlet, entries: Mutex::default(), tasks: TaskTracker::new() }
    }

    /// Remembers what all processes have taken in, until shutdown.
    pub(crate) async fn follow(&self, shutdown: CancellationToken) {
        let mut deliveries = self.outlet.bus.deliveries();
        while let Some(ids) = deliveries.next(&shutdown).await {
            self.outlet.seen.insert(&ids);
        }
    }

    /// Returns the webhook of a pipeline as its current revision declares it.
    pub(crate) fn hook(&self, pipeline: &str) -> Result<Open<Hook>, Closed> {
        self.open(pipeline, |entry| entry.hook.clone())
    }

    /// Returns the gRPC ingest of a pipeline as its current revision declares it.
    pub(crate) fn grpc(&self, pipeline: &str) -> Result<Open<Allowed>, Closed> {
        self.open(pipeline, |entry| entry.grpc.clone())
    }

    /// Lets the inlets end when all that was pushed is answered and in the books.
    pub(crate) async fn close(&self) {
        self.entries().clear();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn open<T>(
        &self,
        pipeline: &str,
        how: impl Fn(&Entry) -> Result<Arc<T>, Closed>,
    ) -> Result<Open<T>, Closed> {
        let name: PipelineName = pipeline.parse().map_err(|_| Closed::NotFound)?;
        let Some(stored) = self.pipelines.current(&name) else {
            self.entries().remove(&name);
            return Err(Closed::NotFound);
        };
        let revision = stored.revision().revision;
        let secrets = stored.secrets_state();
        let is_current = |entry: &Entry| (entry.revision, entry.secrets) == (revision, secrets);
        let mut entries = self.entries();
        if !entries.get(&name).is_some_and(is_current) {
            let declared = stored.pipeline().map_err(|_| Closed::Misconfigured)?;
            let Some(push) = &declared.triggers.push else {
                entries.remove(&name);
                return Err(Closed::NotFound);
            };
            let inlet = match entries.remove(&name) {
                Some(entry) => entry.inlet,
                None => Inlet::start(self.outlet.clone(), name.clone(), &self.tasks),
            };
            let told = |error: super::verify::InvalidVerify| {
                let error = stage::chain(&error);
                tracing::error!(pipeline.name = %name, revision, error, "pushes are refused");
                Closed::Misconfigured
            };
            let hook = push.webhook.as_ref().ok_or(Closed::NotFound).and_then(|webhook| {
                let hook = Hook::new(name.clone(), revision, webhook, &self.variables);
                hook.map(Arc::new).map_err(told)
            });
            let grpc = push.grpc.as_ref().ok_or(Closed::NotFound).and_then(|grpc| {
                let allowed = Allowed::new(name.clone(), revision, grpc, &self.variables);
                allowed.map(Arc::new).map_err(told)
            });
            entries.insert(name.clone(), Entry { inlet, revision, secrets, hook, grpc });
        }
        let entry = entries.get(&name).expect("it was just looked at");
        Ok(Open { inlet: entry.inlet.clone(), how: how(entry)? })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<PipelineName, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names this process. No two that live within a window of time share a name.
fn instance() -> String {
    let id = model::RunId::generate().to_string();
    let digits = id.bytes().filter(u8::is_ascii_hexdigit).map(char::from);
    // The first digits are the time, the others chance.
    digits.skip(4).take(20).collect()
}
