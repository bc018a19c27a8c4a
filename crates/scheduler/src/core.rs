use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bus::Bus;
use chrono::{DateTime, Utc};
use model::{PipelineName, RunId};
use runtime::clock::Clock;
use spec::{Pipeline, Revision};
use store::Store;
use tokio::sync::{Notify, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Config, clock::SharedClock, error::Error, metrics::Metrics, scaling::Survey};

/// Changes that a watcher may be behind before it looks at everything again.
const CHANGES: usize = 1_024;

/// What all parts of the scheduler share. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Scheduler {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    bus: Bus,
    config: Config,
    clock: SharedClock,
    metrics: Metrics,
    shutdown: CancellationToken,
    /// Work that a caller does not wait for.
    background: TaskTracker,
    /// Runs whose books are behind the ledger.
    behind: Mutex<BTreeSet<RunId>>,
    fell_behind: Notify,
    changes: broadcast::Sender<RunId>,
    /// Something may be due, or have a place.
    look: Notify,
    /// Runs that somebody of this process is about to begin.
    in_hand: Mutex<BTreeSet<RunId>>,
    /// Attempts of runs whose pause the extractors were told of.
    paused: Mutex<BTreeSet<(RunId, u32)>>,
    parsed: Mutex<HashMap<(PipelineName, u32), Parsed>>,
    /// Current revisions that were seen in the broker.
    put: Mutex<HashMap<PipelineName, Revision>>,
    survey: Survey,
}

/// A revision beside the pipeline that its text declares.
#[derive(Debug)]
struct Parsed {
    revision: Revision,
    pipeline: Arc<Pipeline>,
}

impl Scheduler {
    pub(crate) fn new(store: Store, bus: Bus, config: Config, shutdown: CancellationToken) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                bus,
                config,
                clock: SharedClock::new(Clock::system()),
                metrics: Metrics::new(),
                shutdown,
                background: TaskTracker::new(),
                behind: Mutex::default(),
                fell_behind: Notify::new(),
                changes: broadcast::channel(CHANGES).0,
                look: Notify::new(),
                in_hand: Mutex::default(),
                paused: Mutex::default(),
                parsed: Mutex::default(),
                put: Mutex::default(),
                survey: Survey::default(),
            }),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.inner.bus
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn survey(&self) -> &Survey {
        &self.inner.survey
    }

    pub(crate) fn shutdown(&self) -> &CancellationToken {
        &self.inner.shutdown
    }

    /// The time of day, to the microsecond. It is the database's as of the last
    /// [`Scheduler::set_clock`], so that all schedulers agree.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.inner.clock.now()
    }

    /// Sets the clock by that of the database. Tells when ours has moved against it.
    pub(crate) async fn set_clock(&self) -> Result<(), Error> {
        let asked = Instant::now();
        let theirs = self.store().clock().await?;
        if let Some(ahead_us) = self.inner.clock.set(theirs, asked) {
            tracing::warn!(
                ahead_s = ahead_us / 1_000_000,
                "the clock of the database is ahead of ours by so much, and is the one that counts"
            );
        }
        Ok(())
    }

    /// Does something that the caller does not wait for. It is cut off by a shutdown, so it has to
    /// be something that is found missing and done again.
    pub(crate) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown().clone();
        self.inner.background.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Waits for what goes on in the background.
    pub(crate) async fn wait(&self) {
        self.inner.background.close();
        self.inner.background.wait().await;
    }

    /// Says that the ledger of a run has news.
    pub(crate) fn fall_behind(&self, runs: impl IntoIterator<Item = RunId>) {
        lock(&self.inner.behind).extend(runs);
        self.inner.fell_behind.notify_one();
    }

    /// Waits until there are runs whose books are behind, and takes them.
    pub(crate) async fn runs_behind(&self) -> BTreeSet<RunId> {
        loop {
            self.inner.fell_behind.notified().await;
            let runs = std::mem::take(&mut *lock(&self.inner.behind));
            if !runs.is_empty() {
                return runs;
            }
        }
    }

    /// Tells everybody who watches that a run has changed.
    pub(crate) fn tell(&self, run: RunId) {
        // Nobody may be watching.
        drop(self.inner.changes.send(run));
    }

    pub(crate) fn changes(&self) -> broadcast::Receiver<RunId> {
        self.inner.changes.subscribe()
    }

    /// Has somebody look for what is due or has a place now.
    pub(crate) fn look_soon(&self) {
        self.inner.look.notify_one();
    }

    /// Waits until somebody calls [`Scheduler::look_soon`].
    pub(crate) async fn asked_to_look(&self) {
        self.inner.look.notified().await;
    }

    /// Tells whether nobody else of this process begins a run, and takes it in hand.
    pub(crate) fn take_in_hand(&self, run: RunId) -> bool {
        lock(&self.inner.in_hand).insert(run)
    }

    pub(crate) fn let_go(&self, run: RunId) {
        lock(&self.inner.in_hand).remove(&run);
    }

    pub(crate) fn is_known_to_be_paused(&self, run: RunId, attempt: u32) -> bool {
        lock(&self.inner.paused).contains(&(run, attempt))
    }

    pub(crate) fn know_to_be_paused(&self, run: RunId, attempt: u32) {
        let mut paused = lock(&self.inner.paused);
        paused.retain(|(known, _)| *known != run);
        paused.insert((run, attempt));
    }

    pub(crate) fn forget_pause(&self, run: RunId) {
        lock(&self.inner.paused).retain(|(known, _)| *known != run);
    }

    /// Returns the pipeline of a stored revision. Each is parsed once.
    pub(crate) fn parsed(&self, revision: &Revision) -> Result<Arc<Pipeline>, Error> {
        let key = (revision.name.clone(), revision.revision);
        // The schema of a revision may come later.
        if let Some(known) = lock(&self.inner.parsed).get(&key)
            && known.revision == *revision
        {
            return Ok(Arc::clone(&known.pipeline));
        }
        let pipeline = revision.pipeline().map_err(|problems| Error::Outdated {
            pipeline: revision.name.clone(),
            problem: problems.first().map(ToString::to_string).unwrap_or_default(),
        })?;
        let pipeline = Arc::new(pipeline);
        let parsed = Parsed { revision: revision.clone(), pipeline: Arc::clone(&pipeline) };
        lock(&self.inner.parsed).insert(key, parsed);
        Ok(pipeline)
    }

    /// Tells whether a current revision was seen in the broker as it is.
    pub(crate) fn is_known_to_be_put(&self, revision: &Revision) -> bool {
        lock(&self.inner.put).get(&revision.name) == Some(revision)
    }

    pub(crate) fn know_to_be_put(&self, revision: Revision) {
        lock(&self.inner.put).insert(revision.name.clone(), revision);
    }

    /// Returns the pipeline of the revision that a run was started with.
    pub(crate) async fn pipeline_of(&self, run: &store::Run) -> Result<Arc<Pipeline>, Error> {
        let revision = self.store().revision(&run.pipeline, run.revision).await?;
        self.parsed(&revision.ok_or_else(|| store::Error::NoPipeline(run.pipeline.clone()))?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The sets and maps are whole whatever the panicking thread was at.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
