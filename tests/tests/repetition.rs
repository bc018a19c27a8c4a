//! What comes twice, in another order or too late changes nothing.

use std::collections::HashSet;

use bus::Stream;
use tests::{Customers, Edition, Layout, Role, Seed, System};
use wire::control::StartRunRequest;

use crate::{RECORDS, Story};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_may_come_twice() {
    let mut seed = Seed::of_test("doubled messages");
    let system = System::start(Layout::for_faults()).await;
    let tap = system.doubler().await;
    let story = Story::begin_with(system, tap, seed.number(), 10).await;
    story.ends_complete().await;
    for stream in [Stream::Tasks, Stream::Raw, Stream::Ready, Stream::Ledger] {
        story.tap.drained(stream).await;
    }
    let seen = story.tap.seen();
    assert!(seen.raw >= 100 && seen.copies >= seen.tasks + seen.raw + seen.ready, "{seen:?}");
    // Every copy has been worked on by now, also those that came after the end.
    story.ends_complete().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_may_come_in_any_order() {
    let mut seed = Seed::of_test("reversed batches");
    let mut system = System::prepare(Layout::for_faults());
    system.start_roles(&[Role::Scheduler, Role::Extractor]).await;
    // Every customer comes twice, the newer state in the earlier files.
    let customers = Customers::new(seed.number(), RECORDS / 2);
    for (index, part) in customers.split(5).into_iter().enumerate() {
        for (order, edition) in [(0, Edition::Second), (1, Edition::First)] {
            let name = format!("customers-{order}-{index}.csv");
            part.write_csv(&system.folder().join(name), edition).unwrap();
        }
    }
    let tap = system.tap().await;
    system.client.apply(&system.customers_pipeline()).await;
    let run = system.client.start("customers").await;
    let read = |ended: &wire::control::Run| {
        ended.ledger.as_ref().is_some_and(|ledger| ledger.extraction_ended)
    };
    let extracted = system.client.until(&run, read).await.ledger.unwrap();
    assert_eq!(tap.reverse(Stream::Raw).await, extracted.batches);
    system.start_roles(&[Role::Transformer]).await;
    tap.until(|seen| seen.transformed >= extracted.batches).await;
    tap.drained(Stream::Raw).await;
    assert_eq!(tap.reverse(Stream::Ready).await, extracted.batches);
    system.start_roles(&[Role::Loader]).await;
    let run = system.client.succeeded(&run).await;
    assert_eq!(run.ledger.unwrap().extracted, RECORDS);
    assert_eq!(system.fingerprint(), customers.fingerprint(Edition::Second));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_range_may_be_extracted_twice() {
    let mut seed = Seed::of_test("doubled tasks");
    let system = System::start(Layout::for_faults().with_replicas(2)).await;
    let story = Story::begin(system, seed.number(), 4).await;
    story.tap.until(|seen| seen.tasks >= 5).await;
    let tasks = story.tap.captured("task.extract");
    assert_eq!(tasks.len(), 4);
    for task in &tasks {
        story.tap.repeat(task).await;
    }
    story.ends_complete().await;
    story.tap.drained(Stream::Tasks).await;
    let batches = story.tap.captured("raw");
    let id = |message: &tests::Captured| message.headers.get("Nats-Msg-Id").unwrap().to_string();
    let different: HashSet<String> = batches.iter().map(id).collect();
    assert!(batches.len() > different.len(), "no range was extracted twice");
    story.ends_complete().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_record_never_overwrites_a_newer_one() {
    let mut seed = Seed::of_test("late batches");
    let system = System::start(Layout::for_faults()).await;
    let story = Story::begin(system, seed.number(), 3).await;
    story.ends_complete().await;
    // The broker still knows what the transformer published, so the copies enter behind it.
    let old = story.tap.captured("ready");
    assert!(old.len() > 100, "{} batches", old.len());

    let (system, customers) = (&story.system, story.customers);
    system.write_customers(customers, 3, Edition::Second);
    let request = StartRunRequest {
        pipeline: "customers".to_owned(),
        full: true,
        ..StartRunRequest::default()
    };
    let run = system.client.start_with(request.clone()).await;
    let run = system.client.succeeded(&run).await;
    let books = &run.ledger.as_ref().unwrap().targets[0];
    let changed = customers.changed();
    assert_eq!((books.loaded, books.unchanged), (changed, RECORDS - changed), "{run:#?}");
    let newer = customers.fingerprint(Edition::Second);
    assert_eq!(system.fingerprint(), newer);

    // The batches of the first run come once more.
    let before = story.tap.seen().loaded;
    for message in &old {
        story.tap.repeat(message).await;
    }
    story.tap.until(|seen| seen.loaded >= before + old.len() as u64).await;
    story.tap.drained(Stream::Ready).await;
    assert_eq!(system.fingerprint(), newer);

    // The files are the old ones again.
    system.write_customers(customers, 3, Edition::First);
    let run = system.client.start_with(request).await;
    let run = system.client.succeeded(&run).await;
    assert_eq!(run.ledger.unwrap().targets[0].unchanged, RECORDS);
    assert_eq!(system.fingerprint(), newer);
}
