//! A process dies between two steps: each of them once, all in one run.

use std::time::Duration;

use tests::{Customer, Customers, Edition, Layout, Role, Seed, System};

use crate::{RECORDS, Story};

const PATIENCE: Duration = Duration::from_secs(60);

/// The variable that names the next point, see the module `fault` of the crate `runtime`.
const VARIABLE: &str = "TRIBUTARY_CRASH_AT";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extractor_may_die_at_every_step() {
    let points = [
        "extractor.planned",
        "extractor.read:5",
        "extractor.published:4",
        "extractor.ledgered:3",
        "extractor.progressed:5",
        "extractor.part_ended",
    ];
    dies(Role::Extractor, &points).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transformer_may_die_at_every_step() {
    let points = [
        "transformer.received:3",
        "transformer.published:4",
        "transformer.ledgered:5",
        "transformer.acked:6",
    ];
    dies(Role::Transformer, &points).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_may_die_at_every_step() {
    let points = ["loader.received:2", "loader.written:2", "loader.ledgered:2", "loader.acked:2"];
    dies(Role::Loader, &points).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_may_die_between_recording_and_acknowledging() {
    dies(Role::Scheduler, &["scheduler.recorded:3", "scheduler.recorded:2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_dies_with_refused_records_in_hand_keeps_each_once() {
    let mut system = System::prepare(Layout::for_faults());
    system.service(Role::Scheduler).process.set(VARIABLE, "scheduler.quarantined");
    system.start_roles(&Role::ALL).await;
    let customers = Customers::new(9, RECORDS);
    system.write_customers(customers, 10, Edition::First);
    let poison = "1000000,p@mail.example,Ed,Poe,,US,Boston,,many,1.00,true,2026-01-01T00:00:00Z\n";
    let text = format!("{}\n{}", Customer::HEADER, poison.repeat(3));
    std::fs::write(system.folder().join("customers-poisoned.csv"), text).unwrap();
    system.client.apply(&system.customers_pipeline()).await;
    let run = system.client.start("customers").await;
    let process = &mut system.service(Role::Scheduler).process;
    process.ended(PATIENCE).await;
    assert!(process.log().contains("crash point `scheduler.quarantined` reached"));
    process.unset(VARIABLE);
    process.start().await;
    let books = system.client.succeeded(&run).await.ledger.unwrap();
    assert_eq!((books.extracted, books.quarantined), (RECORDS + 3, 3));
    assert_eq!(system.client.quarantined("customers").await.len(), 3);
    assert_eq!(system.fingerprint(), customers.fingerprint(Edition::First));
}

async fn dies(role: Role, points: &[&str]) {
    let mut seed = Seed::of_test(&format!("crash points of the {}", role.name()));
    let mut system = System::prepare(Layout::for_faults());
    system.service(role).process.set(VARIABLE, points[0]);
    system.start_roles(&Role::ALL).await;
    let mut story = Story::begin(system, seed.number(), 10).await;
    for (index, point) in points.iter().enumerate() {
        let process = &mut story.system.service(role).process;
        let status = process.ended(PATIENCE).await;
        let name = point.split(':').next().expect("a name");
        let said = format!("crash point `{name}` reached");
        assert!(process.log().contains(&said) && status.contains("signal"), "{status}");
        match points.get(index + 1) {
            Some(next) => process.set(VARIABLE, next),
            None => process.unset(VARIABLE),
        }
        process.start().await;
    }
    story.ends_complete().await;
}
