use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bus::{Lane, Queue, QuotaUse, TaskKind};
use model::PipelineName;
use spec::Pipeline;
use tokio::sync::Mutex;

use super::demand::Stage;
use crate::{core::Scheduler, error::Error, shared};

/// How long a survey is good for. Several autoscalers ask at the same time, each for several metrics.
const FRESH: Duration = Duration::from_secs(2);

/// How often the metrics are told.
const INTERVAL: Duration = Duration::from_secs(10);

/// What waits for one stage in one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) stage: Stage,
    pub(crate) pipeline: PipelineName,
    /// Of the loader only.
    pub(crate) target: Option<PipelineName>,
    /// Tasks or batches, those in hand included.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// Age of the oldest.
    pub(crate) age: Duration,
    /// Whether nothing but a quota holds it up: another replica would only wait with the others.
    pub(crate) is_held: bool,
}

/// The last survey, for all who ask. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Survey {
    last: Arc<Mutex<Option<Taken>>>,
}

/// When a survey was taken, and what was found.
type Taken = (Instant, Arc<[Waiting]>);

impl Survey {
    /// Returns what waits, as it was at most two seconds ago.
    pub(crate) async fn waiting(&self, scheduler: &Scheduler) -> Result<Arc<[Waiting]>, Error> {
        // Whoever comes meanwhile waits for the same survey.
        let mut last = self.last.lock().await;
        if let Some((at, known)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(known));
        }
        let found: Arc<[Waiting]> = look(scheduler).await?.into();
        *last = Some((Instant::now(), Arc::clone(&found)));
        Ok(found)
    }
}

/// What tells one lane from the others.
type LaneId = (Stage, PipelineName, Option<PipelineName>);

/// How fast lanes have got shorter in the last minute.
#[derive(Debug, Default)]
struct Speeds(HashMap<LaneId, VecDeque<(Instant, u64)>>);

impl Speeds {
    /// Notes how long a lane is, and returns when it is empty at its speed since it was longest in the
    /// last minute: unknown while it does not get shorter.
    fn remaining(&mut self, lane: LaneId, messages: u64, now: Instant) -> Option<f64> {
        let known = self.0.entry(lane).or_default();
        while known.front().is_some_and(|(at, _)| now - *at > Duration::from_secs(60)) {
            known.pop_front();
        }
        known.push_back((now, messages));
        let longest = known.iter().rev().max_by_key(|(_, messages)| *messages);
        let (at, before) = *longest.expect("the newest was just added");
        let fewer = before.saturating_sub(messages);
        if fewer == 0 {
            return None;
        }
        // Fewer than 2^53 messages.
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let remaining = messages as f64 * (now - at).as_secs_f64() / fewer as f64;
        Some(remaining)
    }

    /// Forgets all other lanes.
    fn keep(&mut self, lanes: &HashSet<LaneId>) {
        self.0.retain(|lane, _| lanes.contains(lane));
    }
}

/// Tells the metrics of what waits until shutdown.
pub(crate) async fn run(scheduler: Scheduler) -> anyhow::Result<()> {
    let mut timer = tokio::time::interval(INTERVAL);
    let mut speeds = Speeds::default();
    loop {
        tokio::select! {
            () = scheduler.shutdown().cancelled() => return Ok(()),
            _ = timer.tick() => {}
        }
        let waiting = match scheduler.survey().waiting(&scheduler).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "what waits is unknown");
                continue;
            }
        };
        let lane = |lane: &Waiting| (lane.stage, lane.pipeline.clone(), lane.target.clone());
        speeds.keep(&waiting.iter().map(lane).collect());
        let lanes: Vec<_> = waiting
            .iter()
            .map(|waiting| {
                let messages = waiting.messages;
                (waiting, speeds.remaining(lane(waiting), messages, Instant::now()))
            })
            .collect();
        scheduler.metrics().waiting(&lanes);
        if let Ok(rooms) = scheduler.bus().rooms().await {
            scheduler.metrics().rooms(&rooms);
        }
        if let Ok(quotas) = shared::quotas(&scheduler).await {
            scheduler.metrics().quotas(&quotas);
        }
    }
}

async fn look(scheduler: &Scheduler) -> Result<Vec<Waiting>, Error> {
    let lanes = scheduler.bus().lanes().await?;
    let now = SystemTime::from(scheduler.now());
    let mut waiting: Vec<Waiting> = Vec::new();
    for lane in lanes {
        let found = waiting_of(lane, now);
        let same = |known: &&mut Waiting| {
            (known.stage, &known.pipeline, &known.target)
                == (found.stage, &found.pipeline, &found.target)
        };
        // Kinds of tasks are one lane here.
        match waiting.iter_mut().find(same) {
            Some(known) => {
                known.messages += found.messages;
                known.bytes += found.bytes;
                known.age = known.age.max(found.age);
            }
            None => waiting.push(found),
        }
    }
    hold(scheduler, &mut waiting).await?;
    Ok(waiting)
}

fn waiting_of(lane: Lane, now: SystemTime) -> Waiting {
    let Lane { queue, messages, bytes, oldest } = lane;
    let (stage, pipeline, target) = match queue {
        Queue::Tasks { kind: TaskKind::Sweep, pipeline } => (Stage::Loader, pipeline, None),
        Queue::Tasks { pipeline, .. } => (Stage::Extractor, pipeline, None),
        Queue::Raw { pipeline } => (Stage::Transformer, pipeline, None),
        Queue::Ready { pipeline, target } => (Stage::Loader, pipeline, Some(target)),
        Queue::Quarantine | Queue::Ledger => {
            unreachable!("the bus tells of lanes of tasks and batches only")
        }
    };
    let age = oldest.and_then(|oldest| now.duration_since(oldest).ok()).unwrap_or_default();
    Waiting { stage, pipeline, target, messages, bytes, age, is_held: false }
}

/// Marks the lanes that nothing but a quota, any of those they need, holds up.
async fn hold(scheduler: &Scheduler, waiting: &mut [Waiting]) -> Result<(), Error> {
    if waiting.is_empty() {
        return Ok(());
    }
    let mut uses: HashMap<PipelineName, Option<QuotaUse>> = HashMap::new();
    let mut pipelines = HashMap::new();
    for stored in scheduler.store().pipelines().await? {
        if waiting.iter().any(|lane| lane.pipeline == stored.revision.name) {
            pipelines.insert(stored.revision.name.clone(), scheduler.parsed(&stored.revision)?);
        }
    }
    let now_micros = scheduler.now().timestamp_micros();
    for lane in waiting {
        let Some(pipeline) = pipelines.get(&lane.pipeline) else { continue };
        for quota in quotas(pipeline, lane) {
            if !uses.contains_key(quota) {
                let found = scheduler.bus().quota_use(quota.as_str(), now_micros).await?;
                uses.insert(quota.clone(), found);
            }
            let used = uses.get(quota).and_then(Option::as_ref);
            lane.is_held |= used.is_some_and(|used| is_spent(used, &lane.pipeline));
        }
    }
    Ok(())
}

/// The quotas that the work of a lane needs.
fn quotas<'a>(pipeline: &'a Pipeline, lane: &Waiting) -> Vec<&'a PipelineName> {
    let key = match (lane.stage, &lane.target) {
        (Stage::Extractor, _) => "source.".to_owned(),
        (Stage::Loader, Some(target)) => format!("targets.{target}."),
        (Stage::Loader | Stage::Transformer, _) => return Vec::new(),
    };
    let quotas = pipeline.quotas().into_iter();
    quotas.filter(|(_, place)| place.starts_with(&key)).map(|(name, _)| name).collect()
}

/// Tells whether calls of the pipeline wait because none may be made at this moment.
fn is_spent(used: &QuotaUse, pipeline: &PipelineName) -> bool {
    let waits = used.waiting.get(pipeline.as_str()).is_some_and(|calls| *calls > 0);
    used.paused.is_some() || used.left == Some(0) || waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_gets_shorter_has_an_end() {
        let (mut speeds, now) = (Speeds::default(), Instant::now());
        let lane = (Stage::Loader, "shop".parse().unwrap(), Some("crm".parse().unwrap()));
        let mut remaining = |seconds, messages| {
            speeds.remaining(lane.clone(), messages, now + Duration::from_secs(seconds))
        };
        assert_eq!(remaining(0, 1_000), None);
        assert_eq!(remaining(10, 900).map(f64::round), Some(90.0));
        assert_eq!(remaining(20, 500).map(f64::round), Some(20.0));
        assert_eq!(remaining(30, 2_000), None);
        assert_eq!(remaining(80, 1_000).map(f64::round), Some(50.0), "only the last minute counts");
        speeds.keep(&HashSet::new());
        assert_eq!(speeds.remaining(lane, 900, now + Duration::from_secs(90)), None);
    }
}
