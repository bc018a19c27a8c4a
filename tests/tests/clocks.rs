//! The clock of a machine is set while it works.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use tests::{Client, Layout, Role, System};
use tokio::time::{Instant, sleep};
use wire::control::{Run, RunState};

/// A library that has a process see another time of day. Its monotonic clock stays the machine's.
const FAKETIME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/faketime/libfaketime.so.1");
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `number` more runs have succeeded.
async fn more_runs(client: &Client, number: usize) -> Vec<Run> {
    let deadline = Instant::now() + PATIENCE;
    let mut wanted = None;
    loop {
        let runs = client.latest("orders").await;
        let succeeded = runs.iter().filter(|run| run.state() == RunState::Succeeded).count();
        if succeeded >= *wanted.get_or_insert(succeeded + number) {
            return runs;
        }
        assert!(Instant::now() < deadline, "no run follows: {runs:#?}");
        // A run that is yet to come sends no event.
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_moves_no_run_and_loses_no_change() {
    let layout = Layout::for_faults().with_replicas_of(Role::Scheduler, 2).with(
        Role::Scheduler,
        "reconcile_interval",
        "200ms",
    );
    let mut system = System::prepare(layout);
    let clock = system.folder().join("clock");
    // Replaced as a whole, because it is read at any moment.
    let set_clock = |by: &str| {
        let next = clock.with_extension("next");
        fs::write(&next, format!("{by}\n")).unwrap();
        fs::rename(next, &clock).unwrap();
    };
    set_clock("+0");
    assert!(Path::new(FAKETIME).is_file(), "`make test` has built {FAKETIME}");
    // All but the first scheduler.
    for service in system.services().iter_mut().skip(1) {
        service.process.set("LD_PRELOAD", FAKETIME);
        service.process.set("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap());
        service.process.set("FAKETIME_CACHE_DURATION", "1");
        service.process.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    system.start_roles(&Role::ALL).await;
    system.sql(
        "create table orders (id int primary key, state int, changed_at timestamptz); \
         insert into orders values (1, 0, now())",
    );
    let pipeline = format!(
        "pipeline: orders\ntriggers: {{every: 2s}}\n\
         source:\n  postgres: {{url: \"{0}\", table: orders, cursor: changed_at}}\n\
         schema: {{id: integer, state: integer, changed_at: timestamp}}\nkey: [id]\n\
         targets:\n  store:\n    postgres: {{url: \"{0}\", table: copies}}\n",
        system.target
    );
    system.client.apply(&pipeline).await;
    more_runs(&system.client, 2).await;

    let scheduler = system.service(Role::Scheduler).process.pid();
    for (state, by) in [(1, "+3600"), (2, "-3600"), (3, "+86400")] {
        let noticed = system.services()[1].logged("the clock of the database is ahead");
        set_clock(by);
        let deadline = Instant::now() + PATIENCE;
        while system.services()[1].logged("the clock of the database is ahead") == noticed {
            assert!(Instant::now() < deadline, "the clock was not set to {by}");
            sleep(Duration::from_millis(50)).await;
        }
        system.sql(&format!("update orders set state = {state}, changed_at = now()"));
        more_runs(&system.client, 3).await;
        assert_eq!(system.sql("select state from copies"), state.to_string(), "at {by}");
    }
    // Whose clock is right is gone: the other alone decides as well as both.
    system.sql("update orders set state = 4, changed_at = now()");
    assert_eq!(system.service(Role::Scheduler).process.kill().await, scheduler);
    system.services()[0].process.start().await;
    system.services()[0].ready().await;
    let runs = more_runs(&system.client, 3).await;
    assert_eq!(system.sql("select state from copies"), "4");

    let started = |run: &Run| run.started_at.as_ref().unwrap().seconds;
    let due = |run: &Run| {
        let at = run.due_at.as_ref().expect("it has a due time");
        at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000
    };
    let times: BTreeSet<i64> = runs.iter().map(due).collect();
    assert_eq!(times.len(), runs.len(), "no due time has two runs: {runs:#?}");
    let mut held = 0;
    for (run, at) in runs.iter().map(|run| (run, due(run))) {
        let first = times.first().unwrap();
        assert_eq!((at - first) % 2_000, 0, "it was due when the others were: {run:#?}");
        assert!((started(run) - at / 1_000).abs() < 60, "by the right clock: {run:#?}");
        held +=
            if run.state() == RunState::Skipped { i64::try_from(run.skipped).unwrap() } else { 1 };
    }
    let elapsed = (times.last().unwrap() - times.first().unwrap()) / 2_000 + 1;
    assert_eq!(held, elapsed, "each due time has its run or is recorded as skipped: {runs:#?}");
}
