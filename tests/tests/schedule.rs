//! Runs that start by themselves: windows, ranges, chains, and what polling costs.

use std::time::Duration;

use tests::{Client, Customers, Edition, Layout, Role, System};
use tokio::time::{Instant, sleep};
use tonic::Code;
use wire::control::{Run, RunState, StartRunRequest};

/// Long enough to be stopped in its middle.
const RECORDS: u64 = 400_000;

const CLOSED: &str = "windows: {forbidden: [\"2020-01-01 00:00-2100-01-01 00:00\"]}";

fn layout() -> Layout {
    Layout::for_faults().with(Role::Scheduler, "reconcile_interval", "200ms")
}

/// Waits until the newest run of a pipeline that took place is as wanted.
async fn newest(client: &Client, pipeline: &str, wanted: impl Fn(&Run) -> bool) -> Run {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let runs = client.latest(pipeline).await;
        let newest = runs.into_iter().find(|run| run.state() != RunState::Skipped);
        match newest {
            Some(run) if wanted(&run) => return run,
            newest => assert!(Instant::now() < deadline, "waited too long for {newest:#?}"),
        }
        // A run that is yet to come sends no event.
        sleep(Duration::from_millis(50)).await;
    }
}

fn extracted(run: &Run) -> u64 {
    run.ledger.as_ref().map_or(0, |ledger| ledger.extracted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_pauses_at_the_end_of_its_window_and_goes_on_in_the_next() {
    let system = System::start(layout()).await;
    let customers = Customers::new(71, RECORDS);
    system.write_customers(customers, 3, Edition::First);
    let pipeline = |triggers: &str| {
        let triggers = format!("triggers: {{every: 1d, {triggers}}}\nsource:");
        system.customers_pipeline().replacen("source:", &triggers, 1)
    };
    system.client.apply(&pipeline("overlap: skip")).await;
    let run = newest(&system.client, "customers", |run| extracted(run) > 0).await;
    assert_eq!((run.state(), run.trigger.as_str()), (RunState::Running, "interval"));

    system.client.apply(&pipeline(CLOSED)).await;
    let paused = system.client.until(&run.id, |run| run.state() == RunState::Paused).await;
    assert!(paused.reason.contains("its window has ended"), "{paused:#?}");
    // What was on its way is loaded, and no more is read.
    let loaded = |run: &Run| run.ledger.as_ref().unwrap().targets[0].loaded;
    let mut still = (0, Instant::now());
    while still.0 == 0 || still.1.elapsed() < Duration::from_secs(3) {
        let now = system.client.run(&run.id).await;
        if loaded(&now) != still.0 {
            still = (loaded(&now), Instant::now());
        }
        sleep(Duration::from_millis(100)).await;
    }
    let rests = system.client.run(&run.id).await;
    assert_eq!(rests.state(), RunState::Paused, "{rests:#?}");
    assert!(extracted(&rests) < RECORDS, "it was stopped in its middle: {rests:#?}");
    assert_eq!(loaded(&rests), system.fingerprint().rows);
    assert!(rests.ledger.as_ref().unwrap().targets[0].missing == 0, "{rests:#?}");
    let other = StartRunRequest { pipeline: "customers".to_owned(), ..Default::default() };
    let refused = system.client.runs().start_run(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");

    system.client.apply(&pipeline("overlap: skip")).await;
    let done = system.client.succeeded(&run.id).await;
    assert!(done.attempt > 1, "{done:#?}");
    assert_eq!(extracted(&done), RECORDS, "nothing counts twice: {done:#?}");
    assert_eq!(system.fingerprint(), customers.fingerprint(Edition::First));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_cursor_goes_on_where_it_paused() {
    let system = System::start(layout()).await;
    system.sql(
        "create table events as select id, md5(id::text) || repeat('x', 200) as what \
         from generate_series(1, 200000) id; alter table events add primary key (id)",
    );
    let pipeline = |triggers: &str| {
        format!(
            "pipeline: events\ntriggers: {{every: 1d, {triggers}}}\n\
             source:\n  postgres: {{url: \"{0}\", table: events}}\n\
             schema: {{id: integer, what: text}}\nkey: [id]\n\
             targets:\n  store:\n    postgres: {{url: \"{0}\", table: copies}}\n",
            system.target
        )
    };
    system.client.apply(&pipeline("overlap: skip")).await;
    let run = newest(&system.client, "events", |run| extracted(run) > 0).await;
    system.client.apply(&pipeline(CLOSED)).await;
    let paused = system.client.until(&run.id, |run| run.state() == RunState::Paused).await;
    assert!(extracted(&paused) < 200_000, "{paused:#?}");
    system.client.apply(&pipeline("overlap: skip")).await;
    let done = system.client.succeeded(&run.id).await;
    assert_eq!(extracted(&done), 200_000, "nothing is read twice: {done:#?}");
    assert_eq!(system.sql("select count(*), sum(id) from copies"), "200000|20000100000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_reads_a_range_and_leaves_the_cursor_alone() {
    let system = System::start(layout()).await;
    system.sql(
        "create table orders (id int primary key, state text, changed_at timestamptz); \
         insert into orders select id, 'new', timestamptz '2026-01-01' + id * interval '1 hour' \
         from generate_series(1, 1000) id",
    );
    let pipeline = format!(
        "pipeline: orders\n\
         source:\n  postgres: {{url: \"{0}\", table: orders, cursor: changed_at}}\n\
         schema: {{id: integer, state: text, changed_at: timestamp}}\nkey: [id]\n\
         targets:\n  store:\n    postgres: {{url: \"{0}\", table: copies}}\n",
        system.target
    );
    system.client.apply(&pipeline).await;
    let run = system.client.start("orders").await;
    assert_eq!(extracted(&system.client.succeeded(&run).await), 1_000);

    // A change that the cursor does not show, and rows that a later run would find.
    system.sql("update orders set state = 'paid'");
    system
        .sql("insert into orders values (1001, 'new', '2026-03-01'), (1002, 'new', '2026-03-02')");
    let range = StartRunRequest {
        pipeline: "orders".to_owned(),
        from: Some("2026-01-11 00:00:00+00".to_owned()),
        to: Some("2026-01-20 23:00:00+00".to_owned()),
        ..Default::default()
    };
    let run = system.client.start_with(range).await;
    let run = system.client.succeeded(&run).await;
    assert_eq!((extracted(&run), run.trigger.as_str()), (240, "backfill"));
    assert_eq!(run.range_from.as_deref(), Some("2026-01-11 00:00:00+00"));
    let paid = "select count(*), min(id), max(id) from copies where state = 'paid'";
    assert_eq!(system.sql(paid), "240|240|479");
    assert_eq!(system.sql("select count(*) from copies"), "1000");

    // The next run goes on where the one before the backfill ended: with the last row it knows.
    let run = system.client.start("orders").await;
    assert_eq!(extracted(&system.client.succeeded(&run).await), 3);
    assert_eq!(system.sql("select count(*) from copies"), "1002");

    let without = "pipeline: files\nsource: {csv: {path: a.csv}}\nschema: {id: integer}\nkey: [id]\n\
                   targets: {store: {sqlite: {path: a.db, table: a}}}\n";
    system.client.apply(without).await;
    let from = Some("1".to_owned());
    let range = StartRunRequest { pipeline: "files".to_owned(), from, ..Default::default() };
    let refused = system.client.runs().start_run(range).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_follows_another_and_polling_is_accounted_for() {
    let system = System::start(layout().with_replicas(2)).await;
    system.sql("create table orders (id serial primary key, changed_at timestamptz default now())");
    let pipeline = |name: &str, triggers: &str, source: &str, target: &str| {
        format!(
            "pipeline: {name}\ntriggers: {{{triggers}}}\n\
             source:\n  postgres: {{url: \"{0}\", table: {source}, cursor: changed_at}}\n\
             schema: {{id: integer, changed_at: timestamp}}\nkey: [id]\nnewest_by: changed_at\n\
             targets:\n  store:\n    postgres: {{url: \"{0}\", table: {target}}}\n",
            system.target
        )
    };
    system.client.apply(&pipeline("orders", "every: 2s", "orders", "stored")).await;
    let first = newest(&system.client, "orders", |run| run.state() == RunState::Succeeded).await;
    system.client.apply(&pipeline("copy", "after: [orders]", "stored", "copied")).await;
    let mut last = first.id;
    for _ in 0..3 {
        system.sql("insert into orders default values");
        let next = newest(&system.client, "orders", |run| {
            run.state() == RunState::Succeeded && run.id != last
        });
        last = next.await.id;
    }
    let copy = newest(&system.client, "copy", |run| run.state() == RunState::Succeeded).await;
    assert_eq!(copy.trigger, "after");
    let polled = system.client.polls("orders").await;
    assert!(polled.polls >= 4 && polled.changes >= 2, "{polled:#?}");
    let freshness = polled.freshness.as_ref().expect("`newest_by` is a time");
    let p95 = freshness.p95.as_ref().unwrap().seconds;
    assert!(freshness.measured > 0 && p95 < 30, "{polled:#?}");
    assert!(polled.estimates.iter().any(|estimate| estimate.present), "{polled:#?}");
}
