use bus::{Bucket, Change, ConsumerOptions, LedgerWriter, Outgoing, Queue, TaskKind};
use futures::future::join_all;
use wire::{
    Message,
    ledger::{LedgerEntries, LedgerEntry},
};

use crate::{Broker, raw_queue, shop, within};

#[tokio::test]
async fn a_bucket_keeps_the_last_value() {
    let broker = Broker::start().await;
    let progress = broker.bus.key_value(Bucket::Progress);
    assert_eq!(progress.get("run.1.0").await.unwrap(), None);
    progress.put("run.1.0", "a").await.unwrap();
    progress.put("run.1.0", "b").await.unwrap();
    progress.put("run.1.1", "c").await.unwrap();
    assert_eq!(progress.get("run.1.0").await.unwrap().unwrap(), "b");
    progress.delete("run.1.1").await.unwrap();
    progress.delete("run.1.1").await.unwrap();
    assert_eq!(progress.get("run.1.1").await.unwrap(), None);
    assert_eq!(progress.keys().await.unwrap(), ["run.1.0"]);
    assert!(broker.bus.key_value(Bucket::Pipelines).keys().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_watch_tells_what_is_and_what_changes() {
    let broker = Broker::start().await;
    let pipelines = broker.bus.key_value(Bucket::Pipelines);
    pipelines.put("shop.1", "old").await.unwrap();
    pipelines.put("gone", "x").await.unwrap();
    pipelines.delete("gone").await.unwrap();
    let mut watch = pipelines.watch();
    let put = |key: &str, value: &'static str| Change::Put { key: key.into(), value: value.into() };
    assert_eq!(within(watch.next(&broker.shutdown)).await, Some(put("shop.1", "old")));
    pipelines.put("shop.1", "new").await.unwrap();
    assert_eq!(within(watch.next(&broker.shutdown)).await, Some(put("shop.1", "new")));
    pipelines.delete("shop.1").await.unwrap();
    let gone = Change::Delete { key: "shop.1".to_owned() };
    assert_eq!(within(watch.next(&broker.shutdown)).await, Some(gone));
    broker.shutdown.cancel();
    assert_eq!(within(watch.next(&broker.shutdown)).await, None);
}

#[tokio::test]
async fn ledger_entries_that_wait_travel_together() {
    let broker = Broker::start().await;
    let ledger = LedgerWriter::new(&broker.bus);
    let recordings = (1..=500).map(|attempt| {
        let entry = LedgerEntry { run: "run".to_owned(), attempt, event: None, push: None };
        let ledger = ledger.clone();
        async move { ledger.record(&shop(), vec![entry]).await.unwrap() }
    });
    within(join_all(recordings)).await;
    let messages = broker.bus.pending(&shop()).await.unwrap().ledger;
    assert!(messages < 100, "500 recordings in {messages} messages");

    let mut consumer = broker.consumer(Queue::Ledger);
    let mut attempts = Vec::new();
    for _ in 0..messages {
        let delivery = broker.next(&mut consumer).await;
        assert_eq!(delivery.pipeline(), Some(shop()));
        let entries = LedgerEntries::decode(delivery.payload().unwrap()).unwrap().entries;
        attempts.extend(entries.into_iter().map(|entry| entry.attempt));
        delivery.ack().await.unwrap();
    }
    attempts.sort_unstable();
    assert!(attempts.into_iter().eq(1..=500));
}

#[tokio::test]
async fn work_of_one_pipeline_is_counted_and_removed_alone() {
    let broker = Broker::start().await;
    let (names, target) = (broker.bus.names(), "store".parse().unwrap());
    let other = "other".parse().unwrap();
    let subjects = [
        names.task(TaskKind::Plan, &shop()),
        names.task(TaskKind::Extract, &shop()),
        names.raw(&shop()),
        names.ready(&shop(), &target),
        names.ledger(&shop()),
        names.raw(&other),
    ];
    for subject in subjects {
        broker.bus.publish(Outgoing::new(subject, "x".into())).await.unwrap();
    }
    let mut consumer = broker.consumer(raw_queue());
    let in_hand = broker.next(&mut consumer).await;
    let pending = broker.bus.pending(&shop()).await.unwrap();
    assert_eq!((pending.tasks, pending.raw, pending.ready, pending.ledger), (2, 1, 1, 1));
    // What is in hand is pending; what is given back as well.
    drop(in_hand);
    assert_eq!(broker.bus.pending(&shop()).await.unwrap().raw, 1);
    drop(consumer);

    broker.bus.delete_pipeline(&shop()).await.unwrap();
    let pending = broker.bus.pending(&shop()).await.unwrap();
    assert_eq!((pending.tasks, pending.raw, pending.ready, pending.ledger), (0, 0, 0, 1));
    assert_eq!(broker.bus.pending(&other).await.unwrap().raw, 1);
    let options = ConsumerOptions::new(Queue::Raw { pipeline: other });
    let mut consumer = broker.bus.consumer(options);
    broker.next(&mut consumer).await.ack().await.unwrap();
}
