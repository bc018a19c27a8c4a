//! Replicas, calls and a peer in simulated time: the peer counts by a clock of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{Limit, Quota};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    document::{Document, Lease, Report, START},
    peer::Heard,
};

const MILLI: i64 = 1_000;
const SECOND: i64 = 1_000_000;

struct World {
    quota: Quota,
    replicas: usize,
    /// Calls that wait at each replica, by pipeline.
    waiting: BTreeMap<&'static str, u32>,
    /// Greatest time from the start of a call to its arrival, and from there to its end.
    latency: (i64, i64),
    /// A replica is killed about every so often, and comes back as another one.
    kills: Option<i64>,
    length: i64,
    horizon: i64,
    seed: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Report(usize),
    Start { replica: usize, lease: u64, pipeline: String, from: i64, life: u32 },
    Arrive(String),
    End { replica: usize, lease: u64, life: u32 },
    Kill,
}

#[derive(Default)]
struct Replica {
    life: u32,
    seen: u64,
    reports: u64,
    ended: Vec<(u64, i64, u32)>,
    returned: Vec<(u64, u32)>,
    heard: Vec<Heard>,
}

/// What the peer saw: the time of each call by its own clock, and for which pipeline it was.
struct Seen {
    calls: Vec<(i64, String)>,
    reports: u64,
}

impl World {
    fn run(&self) -> Seen {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut document = Document::new(self.quota.clone(), 0);
        let mut replicas: Vec<Replica> = (0..self.replicas).map(|_| Replica::default()).collect();
        let mut events = BTreeSet::new();
        let mut ties = 0_u64;
        let mut later = |events: &mut BTreeSet<(i64, u64, Event)>, at: i64, event: Event| {
            ties += 1;
            events.insert((at, ties, event));
        };
        for index in 0..self.replicas {
            later(&mut events, random.random_range(0..self.horizon), Event::Report(index));
        }
        if let Some(kills) = self.kills {
            later(&mut events, kills, Event::Kill);
        }
        // The peer's clock is somewhere else and runs at another speed.
        let speed = 1.0 + random.random_range(-3e-4..3e-4);
        let mut seen = Seen { calls: Vec::new(), reports: 0 };
        while let Some((now, _, event)) = events.pop_first() {
            if now > self.length {
                break;
            }
            match event {
                Event::Report(index) => {
                    let replica = &mut replicas[index];
                    let owner = format!("{index}.{}", replica.life);
                    replica.reports += 1;
                    seen.reports += 1;
                    let report = Report {
                        number: replica.reports,
                        ended: std::mem::take(&mut replica.ended),
                        returned: std::mem::take(&mut replica.returned),
                        waiting: self.waiting.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect(),
                        heard: std::mem::take(&mut replica.heard),
                        ..Report::default()
                    };
                    // What the replica takes for now, it takes a little too early.
                    let known = now - random.random_range(0..8 * MILLI);
                    document.take_in(&owner, &report, known, self.horizon);
                    for other in 0..self.replicas {
                        let replica = &mut replicas[other];
                        let owner = format!("{other}.{}", replica.life);
                        let new: Vec<Lease> =
                            document.leases_after(&owner, replica.seen).cloned().collect();
                        replica.seen = document.last_lease();
                        for lease in new {
                            let there = now + random.random_range(0..5 * MILLI);
                            for _ in 0..lease.calls {
                                let at = there.max(lease.from) + random.random_range(0..3 * MILLI);
                                let start = Event::Start {
                                    replica: other,
                                    lease: lease.id,
                                    pipeline: lease.pipeline.clone(),
                                    from: lease.from,
                                    life: replica.life,
                                };
                                later(&mut events, at, start);
                            }
                        }
                    }
                    let next = now + random.random_range(self.horizon / 4..self.horizon);
                    later(&mut events, next, Event::Report(index));
                }
                Event::Start { replica, lease, pipeline, from, life } => {
                    if replicas[replica].life != life {
                        continue;
                    }
                    if now > from + START || random.random_bool(0.01) {
                        replicas[replica].returned.push((lease, 1));
                        continue;
                    }
                    let arrival = now + random.random_range(0..self.latency.0);
                    let end = arrival + random.random_range(0..self.latency.1);
                    later(&mut events, arrival, Event::Arrive(pipeline));
                    later(&mut events, end, Event::End { replica, lease, life });
                }
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    reason = "a clock that is a little off"
                )]
                Event::Arrive(pipeline) => {
                    seen.calls.push(((now as f64 * speed) as i64 + 77 * SECOND, pipeline));
                }
                Event::End { replica, lease, life } => {
                    if replicas[replica].life == life {
                        let late = now + random.random_range(0..8 * MILLI);
                        replicas[replica].ended.push((lease, late, 1));
                    }
                }
                Event::Kill => {
                    let index = random.random_range(0..self.replicas);
                    let life = replicas[index].life + 1;
                    let seen = document.last_lease();
                    replicas[index] = Replica { life, seen, ..Replica::default() };
                    let kills = self.kills.expect("there are kills");
                    later(
                        &mut events,
                        now + random.random_range(kills / 2..kills * 2),
                        Event::Kill,
                    );
                }
            }
            // The document travels as JSON.
            if seen.reports.is_multiple_of(97) {
                let text = serde_json::to_vec(&document).unwrap();
                assert!(text.len() < 64 * 1024, "{} bytes", text.len());
                document = serde_json::from_slice(&text).unwrap();
            }
        }
        seen.calls.sort();
        seen
    }
}

impl Seen {
    /// Asserts that no window of the limit holds more calls than it may.
    fn assert_within(&self, limit: Limit, what: &str) {
        let length = i64::try_from(limit.window_ms).unwrap() * MILLI;
        let mut window: VecDeque<i64> = VecDeque::new();
        for (time, _) in &self.calls {
            while window.front().is_some_and(|first| *first <= *time - length) {
                window.pop_front();
            }
            window.push_back(*time);
            assert!(window.len() <= limit.calls as usize, "{limit} exceeded at {time} in {what}");
        }
    }

    /// Share of a limit that was used after the first window.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    fn use_of(&self, limit: Limit, length: i64) -> f64 {
        let window = i64::try_from(limit.window_ms).unwrap() * MILLI;
        let from = 77 * SECOND + window;
        let calls = self.calls.iter().filter(|(time, _)| *time >= from).count();
        let windows = (length - window) as f64 / window as f64;
        calls as f64 / windows / f64::from(limit.calls)
    }
}

fn limit(calls: u32, window_ms: u64) -> Limit {
    Limit { calls, window_ms }
}

fn quota(limits: &[Limit]) -> Quota {
    Quota { limits: limits.to_vec(), ..Quota::default() }
}

#[test]
fn no_window_of_the_peer_ever_holds_more_than_the_limit() {
    for seed in 0..24 {
        let mut random = StdRng::seed_from_u64(seed);
        let second = limit(random.random_range(1..60), 1_000);
        let minute = limit(random.random_range(1..1_500), 60_000);
        let odd = limit(random.random_range(1..40), random.random_range(1_000..9_000));
        let choices = [vec![second], vec![minute], vec![second, minute], vec![odd]];
        let world = World {
            quota: quota(&choices[random.random_range(0..choices.len())]),
            replicas: random.random_range(1..=8),
            waiting: [("a", random.random_range(1..30)), ("b", random.random_range(0..30))].into(),
            latency: (random.random_range(1..900) * MILLI, random.random_range(1..900) * MILLI),
            kills: random.random_bool(0.7).then_some(random.random_range(2..20) * SECOND),
            length: 130 * SECOND,
            horizon: random.random_range(20..1_000) * MILLI,
            seed,
        };
        let seen = world.run();
        assert!(!seen.calls.is_empty());
        for limit in &world.quota.limits {
            seen.assert_within(*limit, &format!("seed {seed}"));
        }
    }
}

#[test]
fn a_quota_is_used_while_work_waits() {
    for (limit, replicas, horizon, latency) in [
        (limit(100, 1_000), 1, 50 * MILLI, 4 * MILLI),
        (limit(100, 1_000), 8, 50 * MILLI, 4 * MILLI),
        (limit(1_000, 10_000), 8, 250 * MILLI, 100 * MILLI),
        (limit(5_000, 60_000), 8, SECOND, 300 * MILLI),
    ] {
        let length = 5 * i64::try_from(limit.window_ms).unwrap() * MILLI;
        let world = World {
            quota: quota(&[limit]),
            replicas,
            waiting: [("a", 200), ("b", 200)].into(),
            latency: (latency / 2, latency / 2),
            kills: None,
            length,
            horizon,
            seed: 7,
        };
        let seen = world.run();
        seen.assert_within(limit, "use");
        let used = seen.use_of(limit, length);
        assert!(used >= 0.95, "{limit} with {replicas} replicas: {used:.3}");
    }
}

#[test]
fn pipelines_share_by_weight() {
    let mut quota = quota(&[limit(100, 1_000)]);
    quota.weights = [("a".parse().unwrap(), 3)].into();
    let world = World {
        quota,
        replicas: 4,
        waiting: [("a", 50), ("b", 50), ("c", 50)].into(),
        latency: (5 * MILLI, 5 * MILLI),
        kills: None,
        length: 20 * SECOND,
        horizon: 50 * MILLI,
        seed: 3,
    };
    let seen = world.run();
    let count = |name| seen.calls.iter().filter(|(_, pipeline)| pipeline == name).count();
    let (a, b, c) = (count("a"), count("b"), count("c"));
    assert!(b.abs_diff(c) <= 2 + b / 50, "{a} {b} {c}");
    assert!(a.abs_diff(3 * b) <= 2 + a / 25, "{a} {b} {c}");
}
