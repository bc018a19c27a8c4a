use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

use bus::{Bus, ConsumerOptions, LedgerWriter, Queue};
use connect::Target;
use model::PipelineName;
use stage::{Failure, Pipelines, Turns};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Targets,
    group::{Group, Limits},
    lane::Lane,
    sweeping,
};

/// What all queues share.
pub(crate) struct Service {
    pub(crate) bus: Bus,
    pub(crate) ledger: LedgerWriter,
    pub(crate) config: Config,
    pub(crate) pipelines: Pipelines,
    targets: Targets,
}

/// Names that are served, each until its token is cancelled.
struct Served<N> {
    names: HashMap<N, CancellationToken>,
}

impl<N: Hash + Ord + Clone> Served<N> {
    /// Ends what is gone and returns what is new, with its token.
    fn update(
        &mut self,
        names: BTreeSet<N>,
        shutdown: &CancellationToken,
    ) -> Vec<(N, CancellationToken)> {
        self.names.retain(|name, ending| {
            let stays = names.contains(name);
            if !stays {
                ending.cancel();
            }
            stays
        });
        let mut new = Vec::new();
        for name in names {
            if !self.names.contains_key(&name) {
                let ending = shutdown.child_token();
                self.names.insert(name.clone(), ending.clone());
                new.push((name, ending));
            }
        }
        new
    }
}

impl Service {
    pub(crate) fn new(
        bus: Bus,
        pipelines: Pipelines,
        ledger: LedgerWriter,
        targets: Targets,
        config: Config,
    ) -> Self {
        Self { bus, ledger, config, pipelines, targets }
    }

    /// Serves the queues of all targets of all pipelines that there are, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let service = Arc::new(self);
        let mut pipelines = service.pipelines.clone();
        let queues = TaskTracker::new();
        let mut lanes = Served { names: HashMap::new() };
        let mut sweeps = Served { names: HashMap::new() };
        loop {
            for ((pipeline, target), ending) in lanes.update(pipelines.targets(), &shutdown) {
                queues.spawn(Arc::clone(&service).load(pipeline, target, ending));
            }
            for (pipeline, ending) in sweeps.update(pipelines.names(), &shutdown) {
                queues.spawn(sweeping::serve(Arc::clone(&service), pipeline, ending));
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                more = pipelines.changed() => if !more { break },
            }
        }
        queues.close();
        queues.wait().await;
        Ok(())
    }

    /// Takes the batches of one target, as many at a time as there are.
    async fn load(
        self: Arc<Self>,
        pipeline: PipelineName,
        target: PipelineName,
        ending: CancellationToken,
    ) {
        let limits = Limits {
            bytes: self.config.group_bytes,
            messages: self.config.group_messages as usize,
        };
        let queue = Queue::Ready { pipeline: pipeline.clone(), target: target.clone() };
        let mut consumer = self.bus.consumer(ConsumerOptions {
            fetch_messages: self.config.group_messages,
            fetch_bytes: self.config.group_bytes,
            ..ConsumerOptions::new(queue)
        });
        let places = Arc::new(Semaphore::new(self.config.connections_per_target));
        let lane = Arc::new(Lane::new(self, pipeline, target, ending.clone()));
        let groups = TaskTracker::new();
        let mut turns = Turns::default();
        while let Some((group, place)) =
            Group::gather(&mut consumer, limits, &places, &ending).await
        {
            let (lane, turn) = (Arc::clone(&lane), turns.begin());
            groups.spawn(async move {
                lane.load(group, turn).await;
                drop(place);
            });
        }
        groups.close();
        groups.wait().await;
    }

    /// Builds a target as a revision of its pipeline declares it.
    pub(crate) async fn target(
        &self,
        pipeline: &PipelineName,
        revision: u32,
        name: &PipelineName,
        ending: &CancellationToken,
    ) -> Result<Arc<dyn Target>, Failure> {
        let stored = self.pipelines.get(pipeline, revision, ending).await?;
        let pipeline = stored.pipeline()?;
        let target = pipeline.targets.iter().find(|target| target.name == *name);
        let target = target.ok_or_else(|| Failure::Stop {
            reason: format!("revision {revision} of `{}` has no target `{name}`", pipeline.name),
            hint: "run the pipeline again".to_owned(),
        })?;
        (self.targets)(pipeline, target)
            .map_err(|error| Failure::Stop { reason: error.chain(), hint: error.hint })
    }
}
