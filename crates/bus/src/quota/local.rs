//! What one process holds of a quota: callers that wait, permits that nobody has taken yet, and
//! what is to be reported.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use connect::Feedback;
use tokio::sync::{mpsc, oneshot};

use super::{
    clock::Clock,
    document::{ARRIVAL, Document, Report, START},
    peer::Heard,
};

/// A permit is given out only if so much of its time to start is left.
const TIME_TO_START: Duration = Duration::from_millis(200);
/// An unused permit is given back when it is so old, in microseconds, or earlier.
const KEEP: i64 = 500_000;
/// The fewest calls in a slice of time that make it worthwhile to ask ahead.
const WORTHWHILE: u32 = 4;

/// What callers tell.
#[derive(Debug)]
pub(super) enum Message {
    /// A call is to be made.
    Want { pipeline: String, reply: oneshot::Sender<Place> },
    /// A call has ended or is not made.
    Done { lease: u64, start_by: Instant, at: Instant, feedback: Feedback },
}

/// A permit on its way to its caller. Dropped on the way, it is given back.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) lease: u64,
    pub(super) start_by: Instant,
    /// `None` once the caller has it.
    pub(super) back: Option<mpsc::UnboundedSender<Message>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            let (lease, start_by) = (self.lease, self.start_by);
            let feedback = Feedback::default();
            // Nobody counts any more when the process ends.
            drop(back.send(Message::Done { lease, start_by, at: Instant::now(), feedback }));
        }
    }
}

/// Permits that nobody has taken yet.
#[derive(Debug)]
struct Pooled {
    lease: u64,
    from: i64,
    calls: u32,
}

/// How many calls were wanted in the slices of time before and now.
#[derive(Debug, Default)]
struct Rate {
    slice: u64,
    before: u32,
    now: u32,
}

#[derive(Debug)]
pub(super) struct Local {
    back: mpsc::UnboundedSender<Message>,
    start: Instant,
    waiters: BTreeMap<String, VecDeque<oneshot::Sender<Place>>>,
    pool: BTreeMap<String, VecDeque<Pooled>>,
    rates: BTreeMap<String, Rate>,
    seen: u64,
    /// Permits with callers.
    in_hand: u64,
    pending: Pending,
    reports: u64,
}

/// What is to be reported.
#[derive(Debug, Default)]
pub(super) struct Pending {
    ended: Vec<(u64, Instant)>,
    returned: BTreeMap<u64, u32>,
    heard: Vec<(Instant, Feedback)>,
    /// Since when something is to be reported.
    since: Option<Instant>,
    /// The peer has said what all must know at once.
    urgent: bool,
}

impl Local {
    pub(super) fn new(back: mpsc::UnboundedSender<Message>, start: Instant) -> Self {
        Self {
            back,
            start,
            waiters: BTreeMap::new(),
            pool: BTreeMap::new(),
            rates: BTreeMap::new(),
            seen: 0,
            in_hand: 0,
            pending: Pending::default(),
            reports: 0,
        }
    }

    pub(super) fn take(&mut self, message: Message, slice: Duration) {
        match message {
            Message::Want { pipeline, reply } => {
                let elapsed = self.start.elapsed().as_micros() / slice.as_micros().max(1);
                let rate = self.rates.entry(pipeline.clone()).or_default();
                rate.count(u64::try_from(elapsed).unwrap_or(u64::MAX));
                self.waiters.entry(pipeline).or_default().push_back(reply);
            }
            Message::Done { lease, start_by, at, feedback } => {
                self.in_hand = self.in_hand.saturating_sub(1);
                self.pending.since.get_or_insert(at);
                if !feedback.sent {
                    *self.pending.returned.entry(lease).or_default() += 1;
                    return;
                }
                // Without an answer the call may still be on its way.
                let arrived = Duration::from_micros(ARRIVAL.unsigned_abs());
                let end = if feedback.status.is_some() { at } else { at.max(start_by + arrived) };
                self.pending.ended.push((lease, end));
                if feedback.status.is_some() {
                    self.pending.urgent |= is_refused(&feedback) || feedback.remaining == Some(0);
                    if is_refused(&feedback) {
                        self.empty_pool();
                    }
                    self.pending.heard.push((at, feedback));
                }
            }
        }
    }

    /// Takes over what was handed out to this process. Returns whether there was anything.
    pub(super) fn take_leases(&mut self, owner: &str, document: &Document) -> bool {
        // A document that was made anew counts from the beginning.
        self.seen = self.seen.min(document.last_lease());
        let mut found = false;
        for lease in document.leases_after(owner, self.seen) {
            let pool = self.pool.entry(lease.pipeline.clone()).or_default();
            pool.push_back(Pooled { lease: lease.id, from: lease.from, calls: lease.calls });
            found = true;
        }
        self.seen = document.last_lease();
        found
    }

    /// Gives permits to those who wait, and takes back what is too old.
    pub(super) fn serve(&mut self, clock: &Clock, keep: i64, now: Instant) {
        for waiters in self.waiters.values_mut() {
            waiters.retain(|waiter| !waiter.is_closed());
        }
        let (Some(earliest), Some(latest)) = (clock.earliest(now), clock.latest(now)) else {
            return;
        };
        for (pipeline, pool) in &mut self.pool {
            let waiters = self.waiters.entry(pipeline.clone()).or_default();
            while let Some(front) = pool.front_mut() {
                if front.from > earliest {
                    break;
                }
                let left = front.from + START - latest;
                let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
                let too_old = left < TIME_TO_START;
                let unused = waiters.is_empty() && front.from + keep.min(KEEP) < earliest;
                if too_old || unused {
                    *self.pending.returned.entry(front.lease).or_default() += front.calls;
                    self.pending.since.get_or_insert(now);
                    pool.pop_front();
                    continue;
                }
                let Some(waiter) = waiters.pop_front() else { break };
                let place = Place {
                    lease: front.lease,
                    start_by: now + left,
                    back: Some(self.back.clone()),
                };
                self.in_hand += 1;
                front.calls -= 1;
                if front.calls == 0 {
                    pool.pop_front();
                }
                // A caller that has gone meanwhile lets the place go back by itself.
                drop(waiter.send(place));
            }
        }
        self.pool.retain(|_, pool| !pool.is_empty());
        self.waiters.retain(|_, waiters| !waiters.is_empty());
    }

    /// Returns the time from which the next permit in the pool can be given to somebody who waits,
    /// or has to be given back.
    pub(super) fn next_in_pool(&self, keep: i64) -> Option<i64> {
        let firsts = self.pool.iter().filter_map(|(pipeline, pool)| {
            let from = pool.front()?.from;
            Some(if self.waiters.contains_key(pipeline) { from } else { from + keep.min(KEEP) + 1 })
        });
        firsts.min()
    }

    /// Returns the calls that wait and for which there is nothing in the pool, by pipeline.
    pub(super) fn unserved(&self) -> BTreeMap<String, u32> {
        let unserved = self.waiters.iter().map(|(pipeline, waiters)| {
            let waiting = u32::try_from(waiters.len()).unwrap_or(u32::MAX);
            (pipeline.clone(), waiting.saturating_sub(self.pooled(pipeline)))
        });
        unserved.filter(|(_, calls)| *calls > 0).collect()
    }

    fn pooled(&self, pipeline: &str) -> u32 {
        self.pool.get(pipeline).map_or(0, |pool| pool.iter().map(|pooled| pooled.calls).sum())
    }

    /// Returns what will soon be wanted over what waits and what is in the pool, by pipeline.
    pub(super) fn soon(&self, slice: Duration) -> BTreeMap<String, u32> {
        let number = self.start.elapsed().as_micros() / slice.as_micros().max(1);
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        let soon = self.rates.iter().map(|(pipeline, rate)| {
            let waiting = self.waiters.get(pipeline).map_or(0, VecDeque::len);
            let here = u32::try_from(waiting).unwrap_or(u32::MAX).max(self.pooled(pipeline));
            (pipeline.clone(), rate.expected(number).saturating_sub(here))
        });
        soon.filter(|(_, calls)| *calls >= WORTHWHILE).collect()
    }

    /// Tells whether a pool is nearly used up that will soon be wanted.
    pub(super) fn runs_low(&self, soon: &BTreeMap<String, u32>) -> bool {
        soon.iter().any(|(pipeline, calls)| self.pooled(pipeline) < calls / 3)
    }

    /// Tells whether anything is held or on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.in_hand > 0 || !self.pool.is_empty() || !self.waiters.is_empty()
    }

    /// Returns since when there is something to report, and whether it is urgent.
    pub(super) fn to_report(&self) -> Option<(Instant, bool)> {
        self.pending.since.map(|since| (since, self.pending.urgent))
    }

    /// Makes a report of everything; `None` while the time is not known well enough.
    pub(super) fn report(
        &mut self,
        clock: &Clock,
        now: Instant,
        soon: BTreeMap<String, u32>,
    ) -> Option<(Report, Pending)> {
        let latest = clock.latest(now);
        if latest.is_none() && !self.pending.ended.is_empty() {
            return None;
        }
        let latest = latest.unwrap_or(0);
        // The clock is the same for all; a later moment only adds the time until then.
        let at = |moment: Instant| latest + micros(now, moment);
        let pending = std::mem::take(&mut self.pending);
        let mut ended: BTreeMap<(u64, i64), u32> = BTreeMap::new();
        for (lease, moment) in &pending.ended {
            *ended.entry((*lease, at(*moment))).or_default() += 1;
        }
        self.reports += 1;
        let report = Report {
            number: self.reports,
            ended: ended.into_iter().map(|((lease, at), calls)| (lease, at, calls)).collect(),
            returned: pending.returned.iter().map(|(lease, calls)| (*lease, *calls)).collect(),
            waiting: self.unserved(),
            soon,
            heard: pending.heard.iter().map(|(moment, f)| heard(at(*moment), f)).collect(),
            leaving: false,
        };
        Some((report, pending))
    }

    /// Takes a report back that was not stored.
    pub(super) fn restore(&mut self, report: Pending) {
        let pending = &mut self.pending;
        pending.ended.extend(report.ended);
        for (lease, calls) in report.returned {
            *pending.returned.entry(lease).or_default() += calls;
        }
        pending.heard.splice(0..0, report.heard);
        pending.since = report.since.or(pending.since);
        pending.urgent |= report.urgent;
    }

    /// Gives back all that nobody has taken and sends everybody away who waits.
    pub(super) fn clear(&mut self) {
        self.waiters.clear();
        self.empty_pool();
    }

    /// Gives back all that nobody has taken, because the peer wants no calls now.
    pub(super) fn empty_pool(&mut self) {
        if !self.pool.is_empty() {
            self.pending.since.get_or_insert_with(Instant::now);
        }
        for pooled in std::mem::take(&mut self.pool).into_values().flatten() {
            *self.pending.returned.entry(pooled.lease).or_default() += pooled.calls;
        }
    }
}

impl Rate {
    fn count(&mut self, slice: u64) {
        if slice != self.slice {
            self.before = if slice == self.slice + 1 { self.now } else { 0 };
            self.now = 0;
            self.slice = slice;
        }
        self.now += 1;
    }

    fn expected(&self, slice: u64) -> u32 {
        match slice.saturating_sub(self.slice) {
            0 => self.before.max(self.now),
            1 => self.now,
            _ => 0,
        }
    }
}

/// The time from one moment to another, less than nothing for an earlier one.
fn micros(from: Instant, to: Instant) -> i64 {
    let later = i64::try_from(to.saturating_duration_since(from).as_micros());
    let earlier = i64::try_from(from.saturating_duration_since(to).as_micros());
    later.unwrap_or(i64::MAX / 4) - earlier.unwrap_or(i64::MAX / 4)
}

fn is_refused(feedback: &Feedback) -> bool {
    match feedback.status {
        Some(429) => true,
        // An overloaded server that says when to come back means the same.
        Some(503) => feedback.retry_after.is_some(),
        _ => false,
    }
}

fn heard(at: i64, feedback: &Feedback) -> Heard {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4);
    Heard {
        at,
        refused: is_refused(feedback),
        retry_after: feedback.retry_after.map(micros),
        left: feedback.remaining.zip(feedback.reset.map(micros)),
    }
}
