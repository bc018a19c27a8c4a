//! One quota in one process: hands its permits to callers and speaks for them in the document.

use std::{
    future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use model::Quota;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    clock::Clock,
    document::{Document, Report},
    follow::Told,
    local::{Local, Message, Pending},
};
use crate::{BusError, KeyValue, Versioned};

/// How often an owner that holds or wants something is heard of.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How far ahead calls are handed out: this part of the shortest window, within these limits.
const HORIZON: i64 = 20;
const SHORTEST_HORIZON: i64 = 20_000;
const LONGEST_HORIZON: i64 = 1_000_000;
/// How long ended calls may go unreported while others wait for them, and otherwise.
const SOON: Duration = Duration::from_millis(2);
const LATER: Duration = Duration::from_millis(50);
const LATEST: Duration = Duration::from_secs(1);
/// Limits of at most such a window are taken to be used up when the broker has lost its memory, in
/// microseconds; of longer ones what this process remembers is enough.
const MEMORY: i64 = 3_600_000_000;
/// Tries to report when the process ends.
const FAREWELLS: u32 = 8;

/// What is known of a quota's declaration.
#[derive(Debug, Clone, Default)]
pub(super) enum Declared {
    /// Nothing yet, or it was removed.
    #[default]
    Unknown,
    /// This.
    As(Arc<Quota>),
}

pub(super) struct Desk {
    name: String,
    owner: String,
    bucket: KeyValue,
    inbox: mpsc::UnboundedReceiver<Message>,
    told: mpsc::Receiver<Told>,
    declared: watch::Sender<Declared>,
    shutdown: CancellationToken,
    local: Local,
    clock: Clock,
    document: Option<Document>,
    /// Number of the last write that is known.
    revision: u64,
    /// The broker has an older document than this process; it has to be written again.
    lost: bool,
    /// The broker's clock was set: what the document had as its lead, and by how much it grew.
    jump: Option<(i64, i64)>,
    asking: Option<Asking>,
    /// A report of which it is not known whether it was stored: its number, and the revision on
    /// which it was based.
    unsure: Option<(u64, u64, Pending)>,
    reported: Option<Instant>,
    not_before: Instant,
    conflicts: u32,
    /// Part of a horizon by which this process is later than others at handing out.
    late: f64,
}

/// A question to the broker that is on its way.
enum Asking {
    Write(Box<Write>, Answer<Option<u64>>),
    Read(Answer<Versioned>),
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, BusError>> + Send>>;

struct Write {
    number: u64,
    base: u64,
    sent: Instant,
    document: Document,
    pending: Pending,
}

enum Answered {
    Written(Box<Write>, Result<Option<u64>, BusError>),
    Read(Result<Versioned, BusError>),
}

impl Asking {
    async fn answer(slot: &mut Option<Self>) -> Answered {
        let answered = match slot {
            None => future::pending().await,
            Some(Self::Write(_, answer)) => Ok(answer.await),
            Some(Self::Read(answer)) => Err(answer.await),
        };
        match (slot.take(), answered) {
            (Some(Self::Write(write, _)), Ok(written)) => Answered::Written(write, written),
            (_, Err(read)) => Answered::Read(read),
            (_, Ok(_)) => unreachable!("only a write is answered so"),
        }
    }
}

impl Desk {
    pub(super) fn new(
        name: String,
        owner: String,
        bucket: KeyValue,
        (back, inbox): (mpsc::UnboundedSender<Message>, mpsc::UnboundedReceiver<Message>),
        told: mpsc::Receiver<Told>,
        declared: watch::Sender<Declared>,
        shutdown: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        Self {
            name,
            owner,
            bucket,
            inbox,
            told,
            declared,
            shutdown,
            local: Local::new(back, now),
            clock: Clock::new(now),
            document: None,
            revision: 0,
            lost: false,
            jump: None,
            asking: None,
            unsure: None,
            reported: None,
            not_before: now,
            conflicts: 0,
            late: rand::rng().random_range(0.0..0.25),
        }
    }

    /// Serves until shutdown, then gives back what is unused.
    pub(super) async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        while !shutdown.is_cancelled() {
            let wake = self.step();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                message = self.inbox.recv() => self.take(message),
                Some(told) = self.told.recv() => self.hear(told),
                answered = Asking::answer(&mut self.asking) => self.learn(answered),
                () = sleep_until(wake) => {}
            }
        }
        self.leave().await;
    }

    /// Does what can be done now, and returns when there is something to do next.
    fn step(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.local.serve(&self.clock, self.horizon(), now);
        let mut wake = None;
        if self.asking.is_none() {
            wake = self.due(now);
            if wake.is_some_and(|due| due <= now) {
                wake = None;
                if self.unsure.is_some() {
                    self.read();
                } else {
                    self.write(now, false);
                }
            }
        }
        let pool = self.clock.latest(now).and_then(|_| self.local.next_in_pool(self.horizon()));
        let pool = pool.and_then(|time| self.clock.surely_at(time, now));
        [wake, pool].into_iter().flatten().min()
    }

    fn take(&mut self, message: Option<Message>) {
        let slice = self.slice();
        let mut next = message;
        while let Some(message) = next {
            self.local.take(message, slice);
            next = self.inbox.try_recv().ok();
        }
    }

    /// How far ahead calls are handed out, in microseconds.
    fn horizon(&self) -> i64 {
        let shortest = self.document.as_ref().map_or(0, Document::shortest_window);
        (shortest / HORIZON).clamp(SHORTEST_HORIZON, LONGEST_HORIZON)
    }

    fn slice(&self) -> Duration {
        Duration::from_micros(self.horizon().unsigned_abs())
    }

    /// Returns when the next report is due.
    fn due(&self, now: Instant) -> Option<Instant> {
        let document = self.document.as_ref()?;
        if self.lost || self.unsure.is_some() {
            return Some(self.not_before);
        }
        let horizon = self.slice();
        let time = self.clock.earliest(now).unwrap_or(0).max(document.time);
        let free = document.free(time) > 0;
        let unserved = self.local.unserved();
        let others_wait = document.waiting(time).values().sum::<u64>() > 0;
        let mut due = None;
        let mut at =
            |moment: Instant| due = Some(due.map_or(moment, |due: Instant| due.min(moment)));

        let since = |after: Duration| self.reported.map_or(now, |reported| reported + after);
        if self.local.is_busy() || !document.waiting_of(&self.owner).is_empty() {
            at(since(HEARTBEAT));
        }
        if !unserved.is_empty() {
            if free {
                at(now);
            } else if unserved != document.waiting_of(&self.owner) {
                at(since(horizon / 8));
            }
            // What will be free is handed out a little before, by who comes first.
            let next = document.next_free(time).and_then(|next| self.clock.surely_at(next, now));
            if let Some(next) = next {
                let before = horizon.mul_f64(0.5 - self.late);
                at(next.checked_sub(before).unwrap_or(now).max(now + Duration::from_millis(1)));
            }
        } else if free && !others_wait && document.quota.concurrency.is_none() {
            let soon = self.local.soon(horizon);
            if self.local.runs_low(&soon) {
                at(since(horizon / 8));
            }
        }
        if let Some((since, urgent)) = self.local.to_report() {
            let patience = match document.quota.concurrency {
                _ if urgent => Duration::ZERO,
                Some(_) if others_wait || !unserved.is_empty() => SOON,
                Some(_) => LATER,
                // In time for what they free a whole window later.
                None => (horizon * 5).min(LATEST),
            };
            at(since + patience);
        }
        due.map(|due| due.max(self.not_before))
    }

    fn read(&mut self) {
        let (bucket, name) = (self.bucket.clone(), self.name.clone());
        self.asking = Some(Asking::Read(Box::pin(async move { bucket.read(&name).await })));
    }

    /// Takes what is to be reported into a new document and sends it.
    fn write(&mut self, now: Instant, leaving: bool) {
        let Some(current) = &self.document else { return };
        let horizon = self.horizon();
        let soon = match current.quota.concurrency {
            None if !leaving => self.local.soon(self.slice()),
            _ => std::collections::BTreeMap::new(),
        };
        let Some((report, pending)) = self.local.report(&self.clock, now, soon) else {
            self.not_before = now + LATER;
            return;
        };
        let report = Report { leaving, ..report };
        let mut document = current.clone();
        if let Some((ahead, jump)) = self.jump.take()
            && document.ahead == ahead
        {
            document.ahead += jump;
        }
        let time = self.clock.earliest(now).unwrap_or(document.time);
        if self.lost {
            // Others may have made calls of which this process does not know.
            document.use_up(time.max(document.time), MEMORY);
        }
        document.take_in(&self.owner, &report, time, horizon);
        let value = serde_json::to_vec(&document).expect("a document has texts as keys");
        let (bucket, name, base) = (self.bucket.clone(), self.name.clone(), self.revision);
        let write = Write { number: report.number, base, sent: now, document, pending };
        let answer = async move { bucket.replace(&name, value, base).await };
        self.asking = Some(Asking::Write(Box::new(write), Box::pin(answer)));
    }

    fn learn(&mut self, answered: Answered) {
        match answered {
            Answered::Written(write, Ok(Some(revision))) => {
                self.clock.wrote(revision, write.sent);
                self.reported = Some(write.sent);
                self.conflicts = 0;
                self.lost = false;
                self.late = rand::rng().random_range(0.0..0.25);
                if revision > self.revision {
                    self.revision = revision;
                    self.adopt(write.document);
                }
            }
            Answered::Written(write, Ok(None)) => {
                let Write { number, base, pending, .. } = *write;
                self.unsure = Some((number, base, pending));
                self.resolve();
                self.wait_a_little();
            }
            Answered::Written(write, Err(error)) => {
                tracing::warn!(error = %chain(&error), quota.name = self.name, "a quota waits");
                let Write { number, base, pending, .. } = *write;
                self.unsure = Some((number, base, pending));
                self.not_before = Instant::now() + LATEST;
            }
            Answered::Read(Ok(found)) => self.found(found),
            Answered::Read(Err(error)) => {
                tracing::warn!(error = %chain(&error), quota.name = self.name, "a quota waits");
                self.not_before = Instant::now() + LATEST;
            }
        }
    }

    /// Somebody else was faster; not all of the losers come back at once.
    fn wait_a_little(&mut self) {
        self.conflicts = (self.conflicts + 1).min(8);
        let most = 500 * u64::from(self.conflicts);
        let delay = Duration::from_micros(rand::rng().random_range(0..most));
        self.not_before = Instant::now() + delay;
    }

    /// Finds out whether a report was stored, once a later document than its base is known.
    fn resolve(&mut self) {
        let Some((number, base, _)) = &self.unsure else { return };
        if self.revision == *base {
            return;
        }
        let stored = self.document.as_ref().is_some_and(|d| d.last_report(&self.owner) >= *number);
        if let Some((_, _, pending)) = self.unsure.take()
            && !stored
        {
            self.local.restore(pending);
        }
    }

    /// Takes in what a read found, which is the truth of this moment.
    fn found(&mut self, found: Versioned) {
        if found.revision == 0 && self.document.is_some() {
            tracing::warn!(quota.name = self.name, "the broker has lost a quota; it is put again");
            self.lost = true;
        }
        if found.revision < self.revision {
            // The writes of a broker that came back empty have other numbers.
            self.clock.forget_writes();
        }
        if found.revision != self.revision || found.revision == 0 {
            self.revision = found.revision;
            self.read_value(found.value.as_deref(), found.revision > 0);
        }
        if let Some((number, _, pending)) = self.unsure.take() {
            let stored =
                self.document.as_ref().is_some_and(|d| d.last_report(&self.owner) >= number);
            if !stored {
                self.local.restore(pending);
            }
        }
    }

    fn hear(&mut self, told: Told) {
        if told.first {
            if told.revision < self.revision {
                self.clock.forget_writes();
            }
        } else if told.revision < self.revision {
            return;
        }
        let known = told.revision == self.revision && self.document.is_some();
        if !known {
            self.revision = told.revision;
            self.read_value(told.value.as_deref(), true);
        }
        if let Some(document) = &self.document
            && !self.lost
        {
            let ahead = document.ahead;
            let jump = self.clock.learn(told.revision, told.stored - ahead, told.arrived);
            if let Some(jump) = jump {
                tracing::warn!(quota.name = self.name, jump, "the broker's clock was set");
                self.jump = Some((ahead, jump));
            }
        }
        self.resolve();
    }

    fn read_value(&mut self, value: Option<&[u8]>, removed: bool) {
        match value.map(serde_json::from_slice::<Document>) {
            Some(Ok(document)) => {
                let known = self.document.as_ref().map_or(0, |known| known.version);
                // The broker has forgotten what this process remembers.
                self.lost = known > document.version;
                if !self.lost {
                    self.adopt(document);
                }
            }
            Some(Err(error)) => {
                tracing::error!(%error, quota.name = self.name, "a quota cannot be read");
            }
            None if removed => {
                self.document = None;
                self.local.clear();
                self.declared.send_replace(Declared::Unknown);
            }
            None => {}
        }
    }

    fn adopt(&mut self, document: Document) {
        self.local.take_leases(&self.owner, &document);
        if self.clock.earliest(Instant::now()).is_some_and(|now| document.peer.paused_until > now) {
            self.local.empty_pool();
        }
        self.declared.send_if_modified(|declared| {
            if matches!(declared, Declared::As(quota) if **quota == document.quota) {
                return false;
            }
            *declared = Declared::As(Arc::new(document.quota.clone()));
            true
        });
        self.document = Some(document);
    }

    /// Gives back what is unused and tells what has ended.
    async fn leave(mut self) {
        self.local.clear();
        if self.document.is_none() || self.reported.is_none() {
            return;
        }
        for _ in 0..FAREWELLS {
            if self.asking.is_none() {
                // Callers that were sent away have given their places back by now.
                while let Ok(message) = self.inbox.try_recv() {
                    self.take(Some(message));
                }
                self.local.clear();
                if self.unsure.is_some() { self.read() } else { self.write(Instant::now(), true) }
            }
            let writes = matches!(self.asking, Some(Asking::Write(..)));
            let answer = Asking::answer(&mut self.asking);
            let Ok(answered) = tokio::time::timeout(LATEST * 2, answer).await else { return };
            self.learn(answered);
            if writes && self.unsure.is_none() && self.local.to_report().is_none() {
                return;
            }
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => future::pending().await,
    }
}

fn chain(error: &BusError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}
