use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use connect::{Call, Error, Permit, Throttle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    desk::{Declared, Desk},
    follow::follow,
    local::{Message, Place},
};
use crate::{Bucket, Bus};

/// How long a quota may be unknown: the scheduler puts back what the broker has lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// States that the broker has told and that were not looked at yet.
const TOLD: usize = 64;

/// The quotas of one process, kept together with all other processes in the broker. Cheap to clone.
///
/// A call waits until there is a place for it. While the broker is away all calls wait, except for
/// the few that were handed out before.
#[derive(Debug, Clone)]
pub struct Quotas {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bus: Bus,
    owner: String,
    desks: Mutex<HashMap<String, Counter>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// The callers' side of a desk.
#[derive(Debug, Clone)]
struct Counter {
    ask: mpsc::UnboundedSender<Message>,
    declared: watch::Receiver<Declared>,
}

impl Quotas {
    /// Makes the quotas of this process. Nothing is sent before the first call.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self {
            inner: Arc::new(Inner {
                bus: bus.clone(),
                owner: format!("{:016x}", rand::random::<u64>()),
                desks: Mutex::default(),
                tasks: TaskTracker::new(),
                shutdown: CancellationToken::new(),
            }),
        }
    }

    /// Reports what has ended and gives back what is unused, for at most a few seconds. Calls that
    /// still wait fail. Without it, others take over what is unused a little later.
    pub async fn close(&self) {
        self.inner.shutdown.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn counter(&self, quota: &str) -> Counter {
        let mut desks = self.inner.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = desks.get(quota) {
            return counter.clone();
        }
        let inner = &self.inner;
        let name = quota.to_owned();
        let (ask, inbox) = mpsc::unbounded_channel();
        let (tell, told) = mpsc::channel(TOLD);
        let (declare, declared) = watch::channel(Declared::Unknown);
        inner.tasks.spawn(follow(inner.bus.clone(), name.clone(), tell));
        let desk = Desk::new(
            name,
            inner.owner.clone(),
            inner.bus.key_value(Bucket::Quotas),
            (ask.clone(), inbox),
            told,
            declare,
            inner.shutdown.clone(),
        );
        inner.tasks.spawn(desk.run());
        let counter = Counter { ask, declared };
        desks.insert(quota.to_owned(), counter.clone());
        counter
    }
}

#[async_trait]
impl Throttle for Quotas {
    async fn acquire(&self, call: Call<'_>) -> Result<Permit, Error> {
        let mut counter = self.counter(call.quota);
        loop {
            let known = counter.declared.wait_for(|declared| matches!(declared, Declared::As(_)));
            let declared = match tokio::time::timeout(PATIENCE, known).await {
                Ok(Ok(declared)) => declared.clone(),
                Ok(Err(_)) => return Err(ending(call.quota)),
                Err(_) => return Err(missing(call.quota)),
            };
            if let Declared::As(quota) = declared
                && !quota.matching.matches(call.method, call.path)
            {
                return connect::Unlimited.acquire(call).await;
            }
            let (reply, place) = oneshot::channel();
            let want = Message::Want { pipeline: call.pipeline.to_owned(), reply };
            if counter.ask.send(want).is_err() {
                return Err(ending(call.quota));
            }
            if let Ok(place) = place.await {
                return Ok(permit(place));
            }
            // The quota was removed, or the process ends.
            if self.inner.shutdown.is_cancelled() {
                return Err(ending(call.quota));
            }
        }
    }
}

fn permit(mut place: Place) -> Permit {
    let (lease, start_by) = (place.lease, place.start_by);
    let back = place.back.take();
    Permit::new(start_by, move |feedback| {
        if let Some(back) = back {
            // When the desk has closed, the others count the call by themselves.
            drop(back.send(Message::Done { lease, start_by, at: Instant::now(), feedback }));
        }
    })
}

fn missing(quota: &str) -> Error {
    Error::stop(
        format!("there is no quota `{quota}`"),
        format!("declare `{quota}` under `quotas` in a file beside the pipelines and apply it"),
    )
}

fn ending(quota: &str) -> Error {
    Error::retry(
        format!("the process ends while a call waits for the quota `{quota}`"),
        "nothing has to be done",
    )
}
