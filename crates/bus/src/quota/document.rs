//! The state of one quota as all replicas share it, and the rules by which calls are handed out.
//!
//! A call counts from the moment it is handed out until a whole window after its end is known. Any
//! call that the peer counts in a window `[x, x + W]` was handed out before `x + W` and ended after
//! `x`; so if at each handing out there are no more than the limit of calls that have not ended or
//! ended less than `W` ago, the peer never counts more, whatever its clock shows and however long
//! calls take. Nothing here reads a clock: times are microseconds and are given.

use std::collections::BTreeMap;

use model::Quota;
use serde::{Deserialize, Serialize};

use super::{
    peer::{Heard, Peer},
    window::Window,
};

const SECOND: i64 = 1_000_000;

/// How long a call that was handed out may wait until it starts.
pub(super) const START: i64 = SECOND;
/// How long after its start a call may still reach the peer though its caller is gone.
pub(super) const ARRIVAL: i64 = 10 * SECOND;
/// An owner that was not heard of for so long is gone.
pub(super) const LOST: i64 = 5 * SECOND;

/// The shared state of one quota.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Document {
    /// What was declared.
    pub(super) quota: Quota,
    /// Counts the changes of the document.
    pub(super) version: u64,
    /// By how much the broker's clock runs ahead of the document's.
    pub(super) ahead: i64,
    /// The latest time of a change; never goes back.
    pub(super) time: i64,
    windows: Vec<Window>,
    leases: Vec<Lease>,
    owners: BTreeMap<String, Owner>,
    last_lease: u64,
    /// How much each pipeline has had by its weight; those that are not ahead of the rest are left
    /// out.
    had: BTreeMap<String, f64>,
    /// What a pipeline is taken to have had that comes new.
    even: f64,
    turn: u64,
    pub(super) peer: Peer,
    /// Calls handed out since the quota was made, without those that were given back.
    pub(super) handed_out: u64,
}

/// Calls that were handed out to an owner and have not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) id: u64,
    pub(super) owner: String,
    pub(super) pipeline: String,
    /// Calls that have not ended.
    pub(super) calls: u32,
    /// They may start from here.
    pub(super) from: i64,
}

/// A process that makes calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Owner {
    /// When it was last heard of.
    seen: i64,
    /// Number of its last report.
    report: u64,
    /// Calls that wait, by pipeline.
    waiting: BTreeMap<String, u32>,
    /// When it last got something.
    turn: u64,
}

/// What an owner tells at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Report {
    /// Number of the report, so that one whose acknowledgement was lost is not taken in twice.
    pub(super) number: u64,
    /// Calls that ended: lease, time at the latest, how many.
    pub(super) ended: Vec<(u64, i64, u32)>,
    /// Calls that were not made: lease, how many.
    pub(super) returned: Vec<(u64, u32)>,
    /// All calls that wait now and for which nothing was handed out, by pipeline.
    pub(super) waiting: BTreeMap<String, u32>,
    /// Calls that will soon be wanted, by pipeline; handed out if nobody waits for them.
    pub(super) soon: BTreeMap<String, u32>,
    /// What the peer's answers said.
    pub(super) heard: Vec<Heard>,
    /// The owner ends.
    pub(super) leaving: bool,
}

impl Document {
    /// Makes the document of a quota of which nothing was used.
    pub(super) fn new(quota: Quota, now: i64) -> Self {
        let windows = quota.limits.iter().copied().map(Window::new).collect();
        Self {
            quota,
            version: 1,
            ahead: 0,
            time: now,
            windows,
            leases: Vec::new(),
            owners: BTreeMap::new(),
            last_lease: 0,
            had: BTreeMap::new(),
            even: 0.0,
            turn: 0,
            peer: Peer::default(),
            handed_out: 0,
        }
    }

    /// Takes the limits of windows up to a length to be used up at this moment, because nobody knows
    /// how much was used.
    pub(super) fn use_up(&mut self, now: i64, longest: i64) {
        for window in self.windows.iter_mut().filter(|window| window.length() <= longest) {
            let free = i64::from(window.limit.calls) - window.counted(now);
            window.count(now, u32::try_from(free).unwrap_or(0));
        }
    }

    /// Changes what is declared. What was used stays used.
    pub(super) fn declare(&mut self, quota: Quota) {
        let longest = self.windows.iter().max_by_key(|window| window.length());
        let windows = quota.limits.iter().map(|limit| {
            let same = self.windows.iter().find(|w| w.limit.window_ms == limit.window_ms);
            match (same, longest) {
                (Some(window), _) => window.with(*limit),
                (None, Some(window)) => Window::informed_by(*limit, window),
                (None, None) => Window::new(*limit),
            }
        });
        self.windows = windows.collect();
        if !quota.adaptive {
            self.peer.share = 1.0;
        }
        self.quota = quota;
        self.version += 1;
    }

    /// Takes in what an owner tells and hands out calls that may start until `horizon` from now.
    /// `now` is at the latest the real time.
    pub(super) fn take_in(&mut self, owner: &str, report: &Report, now: i64, horizon: i64) {
        self.version += 1;
        self.time = self.time.max(now);
        let now = self.time;
        for (lease, time, calls) in &report.ended {
            self.end(*lease, *time, *calls);
        }
        for (lease, calls) in &report.returned {
            self.shorten(*lease, *calls);
            self.peer.take(-i64::from(*calls));
            self.handed_out = self.handed_out.saturating_sub(u64::from(*calls));
        }
        let outstanding = self.outstanding();
        for heard in &report.heard {
            self.peer.hear(*heard, outstanding, self.quota.adaptive);
        }
        let known = self.owners.entry(owner.to_owned());
        let known =
            known.or_insert(Owner { seen: now, report: 0, waiting: BTreeMap::new(), turn: 0 });
        known.seen = now;
        known.report = report.number;
        known.waiting.clone_from(&report.waiting);
        if report.leaving {
            self.owners.remove(owner);
        }
        self.give_up_lost(now);
        self.peer.go_on(now, self.shortest_window());
        for window in &mut self.windows {
            window.forget(now);
        }
        self.hand_out(now, horizon);
        self.hand_out_soon(owner, &report.soon, now);
        self.had.retain(|_, had| *had > self.even);
    }

    /// Returns the number of the last report of an owner that was taken in.
    pub(super) fn last_report(&self, owner: &str) -> u64 {
        self.owners.get(owner).map_or(0, |owner| owner.report)
    }

    /// Returns what was handed out to an owner after a lease.
    pub(super) fn leases_after(&self, owner: &str, lease: u64) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(move |found| found.id > lease && found.owner == owner)
    }

    /// Returns the number of the last lease of all.
    pub(super) fn last_lease(&self) -> u64 {
        self.last_lease
    }

    /// Returns the calls that have not ended.
    pub(super) fn outstanding(&self) -> i64 {
        self.leases.iter().map(|lease| i64::from(lease.calls)).sum()
    }

    /// Returns each limit with the calls that it counts at a time.
    pub(super) fn uses(&self, at: i64) -> impl Iterator<Item = (model::Limit, i64)> {
        let outstanding = self.outstanding();
        self.windows.iter().map(move |window| (window.limit, window.counted(at) + outstanding))
    }

    /// Returns the calls that wait, by pipeline, of owners that are there.
    pub(super) fn waiting(&self, at: i64) -> BTreeMap<&str, u64> {
        let mut waiting = BTreeMap::new();
        for owner in self.owners.values().filter(|owner| owner.seen + LOST > at) {
            for (pipeline, calls) in owner.waiting.iter().filter(|(_, calls)| **calls > 0) {
                *waiting.entry(pipeline.as_str()).or_default() += u64::from(*calls);
            }
        }
        waiting
    }

    /// Returns the calls of one owner that wait, by pipeline.
    pub(super) fn waiting_of(&self, owner: &str) -> BTreeMap<String, u32> {
        self.owners.get(owner).map(|owner| owner.waiting.clone()).unwrap_or_default()
    }

    /// Returns the shortest window, a second without one.
    pub(super) fn shortest_window(&self) -> i64 {
        self.windows.iter().map(Window::length).min().unwrap_or(SECOND)
    }

    /// Returns how many owners are there.
    pub(super) fn owners(&self, at: i64) -> usize {
        self.owners.values().filter(|owner| owner.seen + LOST > at).count()
    }

    /// Returns when so many calls will have been handed out at the latest that is known, if no call
    /// in hand would end before that. `None`: that depends on calls that have not ended.
    pub(super) fn estimate(&self, calls: i64, now: i64) -> Option<i64> {
        let mut times = self.events(now, i64::MAX);
        times.insert(0, now);
        let last = *times.last().expect("now is one of them");
        let found = times.into_iter().find(|at| self.free(*at) >= calls);
        found.or_else(|| {
            // Further windows are as this one.
            let slowest = self.windows.iter().map(|window| {
                let missing = calls - self.free(last).max(0);
                let per_window = self.peer.of(window.limit.calls).max(1);
                i128::from(missing) * i128::from(window.length()) / i128::from(per_window)
            });
            let more = i64::try_from(slowest.max()?).ok()?;
            last.checked_add(more)
        })
    }

    /// Returns the next time after `now` from which more can be handed out, as far as it is known.
    pub(super) fn next_free(&self, now: i64) -> Option<i64> {
        self.events(now, i64::MAX).into_iter().find(|at| self.free(*at) > 0)
    }

    fn end(&mut self, lease: u64, time: i64, calls: u32) {
        self.shorten(lease, calls);
        for window in &mut self.windows {
            window.count(time, calls);
        }
    }

    fn shorten(&mut self, lease: u64, calls: u32) {
        if let Some(lease) = self.leases.iter_mut().find(|found| found.id == lease) {
            lease.calls = lease.calls.saturating_sub(calls);
        }
        self.leases.retain(|lease| lease.calls > 0);
    }

    /// Counts the calls of owners that are gone as ended when the last of them can have arrived.
    fn give_up_lost(&mut self, now: i64) {
        let mut over = Vec::new();
        for lease in &self.leases {
            let seen = self.owners.get(&lease.owner).map_or(0, |owner| owner.seen);
            let end = seen.max(lease.from + START) + ARRIVAL;
            if seen + LOST <= now && end <= now {
                over.push((lease.id, end, lease.calls));
            }
        }
        for (lease, end, calls) in over {
            self.end(lease, end, calls);
        }
        let leases = &self.leases;
        self.owners.retain(|name, owner| {
            owner.seen + LOST > now || leases.iter().any(|lease| lease.owner == *name)
        });
    }

    /// Returns how many calls may start at a time, over those that were handed out.
    pub(super) fn free(&self, at: i64) -> i64 {
        if at < self.peer.paused_until {
            return 0;
        }
        let outstanding = self.outstanding();
        let windows = self.windows.iter();
        let free = windows.map(|w| self.peer.of(w.limit.calls) - outstanding - w.counted(at));
        let concurrency = self.quota.concurrency.map(|most| i64::from(most) - outstanding);
        free.chain(concurrency).chain(self.peer.left(at)).min().unwrap_or(0)
    }

    /// Returns the times in `(after, until]` at which there may be more free than before, in order.
    fn events(&self, after: i64, until: i64) -> Vec<i64> {
        let frees = self.windows.iter().flat_map(Window::frees).map(|(at, _)| at);
        let others = [Some(self.peer.paused_until), self.peer.reset()].into_iter().flatten();
        let mut times: Vec<i64> =
            frees.chain(others).filter(|at| *at > after && *at <= until).collect();
        times.sort_unstable();
        times.dedup();
        times
    }

    fn hand_out(&mut self, now: i64, horizon: i64) {
        let mut times = self.events(now, now + horizon);
        times.insert(0, now);
        for at in times {
            let free = self.free(at);
            if free > 0 {
                self.share_out(free, at, now);
            }
        }
    }

    /// Hands out to those who wait: to the pipeline that has had least by its weight, and within it
    /// to the owner whose turn was longest ago.
    fn share_out(&mut self, free: i64, from: i64, now: i64) {
        let mut waiting: BTreeMap<String, u64> =
            self.waiting(now).into_iter().map(|(name, calls)| (name.to_owned(), calls)).collect();
        let mut given: BTreeMap<(String, String), u32> = BTreeMap::new();
        for _ in 0..free {
            let had = |name: &String| self.had.get(name).copied().unwrap_or(0.0).max(self.even);
            let next = waiting.iter().filter(|(_, calls)| **calls > 0).map(|(name, _)| name);
            let Some(pipeline) = next.min_by(|a, b| had(a).total_cmp(&had(b))).cloned() else {
                break;
            };
            self.even = had(&pipeline);
            let share = 1.0 / f64::from(self.quota.weight(&pipeline));
            self.had.insert(pipeline.clone(), self.even + share);
            *waiting.get_mut(&pipeline).expect("it was found there") -= 1;

            let owners = self.owners.iter_mut().filter(|(_, owner)| {
                owner.seen + LOST > now && owner.waiting.get(&pipeline).is_some_and(|n| *n > 0)
            });
            let (name, owner) =
                owners.min_by_key(|(_, owner)| owner.turn).expect("somebody waits for it");
            self.turn += 1;
            owner.turn = self.turn;
            *owner.waiting.get_mut(&pipeline).expect("it waits") -= 1;
            *given.entry((name.clone(), pipeline)).or_default() += 1;
        }
        for ((owner, pipeline), calls) in given {
            self.lease(owner, pipeline, calls, from);
        }
    }

    /// Hands out what will soon be wanted, but leaves half of what is free to the others.
    fn hand_out_soon(&mut self, owner: &str, soon: &BTreeMap<String, u32>, now: i64) {
        for (pipeline, calls) in soon {
            let most = u32::try_from(self.free(now) / 2).unwrap_or(0);
            let calls = (*calls).min(most);
            if calls > 0 && self.waiting(now).is_empty() {
                self.lease(owner.to_owned(), pipeline.clone(), calls, now);
            }
        }
    }

    fn lease(&mut self, owner: String, pipeline: String, calls: u32, from: i64) {
        self.last_lease += 1;
        self.handed_out += u64::from(calls);
        self.peer.take(i64::from(calls));
        self.leases.push(Lease { id: self.last_lease, owner, pipeline, calls, from });
    }
}
