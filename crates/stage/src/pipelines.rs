use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bus::{Bucket, Bus, Change, Watch};
use model::PipelineName;
use spec::{Pipeline, Problem, Revision, SecretFiles};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Failure;

/// How old the state of secret files may be.
const SECRETS_AGE: Duration = Duration::from_secs(1);

/// A revision as it stands in the bucket.
#[derive(Debug)]
pub struct Stored {
    revision: Revision,
    pipeline: Result<Pipeline, Vec<Problem>>,
    secrets: SecretFiles,
    looked: Mutex<Option<(Instant, u64)>>,
}

impl Stored {
    fn new(revision: Revision) -> Self {
        let pipeline = revision.pipeline();
        let secrets = SecretFiles::of(&revision.yaml);
        Self { revision, pipeline, secrets, looked: Mutex::default() }
    }

    /// Returns a number that is another one when a secret file of the pipeline holds something else,
    /// within a second. What was built with the secrets is built anew then.
    #[must_use]
    pub fn secrets_state(&self) -> u64 {
        if self.secrets.is_empty() {
            return 0;
        }
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        match *looked {
            Some((at, state)) if at.elapsed() < SECRETS_AGE => state,
            _ => {
                let state = self.secrets.state();
                *looked = Some((Instant::now(), state));
                state
            }
        }
    }

    /// Returns the revision.
    #[must_use]
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// Returns the pipeline, with its schema if there is one.
    ///
    /// # Errors
    ///
    /// Stops the run when this version of Tributary does not understand the text.
    pub fn pipeline(&self) -> Result<&Pipeline, Failure> {
        self.pipeline.as_ref().map_err(|problems| {
            let Revision { name, revision, .. } = &self.revision;
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            Failure::Stop {
                reason: format!("revision {revision} of pipeline `{name}` cannot be read: {first}"),
                hint: "apply the pipeline again".to_owned(),
            }
        })
    }
}

/// All that the bucket holds, by its keys.
type Known = BTreeMap<String, Arc<Stored>>;

/// The pipeline revisions that the broker knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pipelines {
    known: watch::Receiver<Known>,
}

/// Keeps [`Pipelines`] up to date while [`Follower::run`] runs.
#[derive(Debug)]
pub struct Follower {
    watch: Watch,
    known: watch::Sender<Known>,
}

impl Pipelines {
    /// Makes an empty view and the follower that fills it.
    #[must_use]
    pub fn follow(bus: &Bus) -> (Self, Follower) {
        let (sender, known) = watch::channel(Known::new());
        let watch = bus.key_value(Bucket::Pipelines).watch();
        (Self { known }, Follower { watch, known: sender })
    }

    /// Returns a revision; one that has not arrived yet is waited for.
    ///
    /// # Errors
    ///
    /// [`Failure::Shutdown`] when `shutdown` comes first.
    pub async fn get(
        &self,
        name: &PipelineName,
        revision: u32,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Stored>, Failure> {
        let key = format!("{name}.{revision}");
        let mut known = self.known.clone();
        let found = tokio::select! {
            found = known.wait_for(|known| find(known, name, revision, &key).is_some()) => found,
            () = shutdown.cancelled() => return Err(Failure::Shutdown),
        };
        let found = found.map_err(|_| Failure::Shutdown)?;
        Ok(find(&found, name, revision, &key).expect("it was just found"))
    }

    /// Returns the current revision of a pipeline, if there is such a pipeline.
    #[must_use]
    pub fn current(&self, name: &PipelineName) -> Option<Arc<Stored>> {
        self.known.borrow().get(name.as_str()).cloned()
    }

    /// Returns the names of all pipelines.
    #[must_use]
    pub fn names(&self) -> BTreeSet<PipelineName> {
        let known = self.known.borrow();
        known.values().map(|stored| stored.revision.name.clone()).collect()
    }

    /// Returns all targets of all revisions, as pipeline and target: an older revision may still be
    /// on its way.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<(PipelineName, PipelineName)> {
        let known = self.known.borrow();
        let pipelines = known.values().filter_map(|stored| stored.pipeline.as_ref().ok());
        pipelines
            .flat_map(|pipeline| {
                let targets = pipeline.targets.iter();
                targets.map(|target| (pipeline.name.clone(), target.name.clone()))
            })
            .collect()
    }

    /// Waits until something changes after the last call. Returns `false` when nothing will change
    /// any more, because the follower has ended.
    pub async fn changed(&mut self) -> bool {
        self.known.changed().await.is_ok()
    }
}

/// The current revision has two keys, of which one may arrive later.
fn find(known: &Known, name: &PipelineName, revision: u32, key: &str) -> Option<Arc<Stored>> {
    let current = || known.get(name.as_str()).filter(|stored| stored.revision.revision == revision);
    known.get(key).or_else(current).cloned()
}

impl Follower {
    /// Follows the bucket until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while let Some(change) = self.watch.next(&shutdown).await {
            self.take(change);
        }
    }

    fn take(&self, change: Change) {
        match change {
            Change::Put { key, value } => match serde_json::from_slice::<Revision>(&value) {
                Ok(revision) => {
                    let stored = Arc::new(Stored::new(revision));
                    self.known.send_modify(|known| {
                        known.insert(key, stored);
                    });
                }
                Err(error) => tracing::error!(key, %error, "a pipeline revision cannot be read"),
            },
            Change::Delete { key } => self.known.send_modify(|known| {
                known.remove(&key);
            }),
        }
    }
}
