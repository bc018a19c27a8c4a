//! What the stages share, with a real broker.
#![allow(clippy::unwrap_used, reason = "a test may end where it does not find what it expects")]

use std::time::Duration;

use bus::{Bucket, Bus, ConsumerOptions, MAX_PAYLOAD, Queue};
use model::{BatchHeader, BatchId, PipelineName, RunId};
use stage::{Failure, Pipelines};
use testkit::nats::Nats;
use tokio_util::sync::CancellationToken;
use wire::{Quarantined, Reason};

const YAML: &str = "pipeline: shop\nsource: {csv: {path: a.csv}}\nkey: [key]\ntargets: {store: {sqlite: {path: s.db, table: t}}}\n";

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it happens in time")
}

async fn connect() -> (Nats, Bus) {
    let nats = Nats::start();
    let config = bus::Config { servers: vec![nats.url()], ..bus::Config::default() };
    let bus = Bus::connect(&config, &CancellationToken::new()).await.unwrap();
    bus.provision().await.unwrap();
    (nats, bus)
}

fn shop() -> PipelineName {
    "shop".parse().unwrap()
}

fn revision(revision: u32, yaml: &str) -> Vec<u8> {
    let yaml = yaml.to_owned();
    serde_json::to_vec(&spec::Revision { name: shop(), revision, yaml, schema: None }).unwrap()
}

#[tokio::test]
async fn revisions_are_followed_as_they_come_and_go() {
    let (_nats, bus) = connect().await;
    let shutdown = CancellationToken::new();
    let (mut pipelines, follower) = Pipelines::follow(&bus);
    let following = tokio::spawn(follower.run(shutdown.clone()));
    let bucket = bus.key_value(Bucket::Pipelines);

    let waiting = tokio::spawn({
        let (pipelines, shutdown) = (pipelines.clone(), shutdown.clone());
        async move { pipelines.get(&shop(), 2, &shutdown).await }
    });
    bucket.put("other", "not a revision").await.unwrap();
    bucket.put("shop.1", revision(1, "pipeline: [")).await.unwrap();
    // The current revision may come under its other key first.
    bucket.put("shop", revision(2, YAML)).await.unwrap();
    let found = within(waiting).await.unwrap().unwrap();
    assert_eq!((found.revision().revision, found.pipeline().unwrap().name.clone()), (2, shop()));

    let unreadable = within(pipelines.get(&shop(), 1, &shutdown)).await.unwrap();
    let failure = unreadable.pipeline().unwrap_err();
    assert!(matches!(&failure, Failure::Stop { .. }), "{failure:?}");
    assert_eq!(pipelines.names().into_iter().collect::<Vec<_>>(), [shop()]);
    let targets: Vec<_> = pipelines.targets().into_iter().collect();
    assert_eq!(targets, [(shop(), "store".parse().unwrap())]);

    bucket.delete("shop").await.unwrap();
    bucket.delete("shop.1").await.unwrap();
    while !pipelines.names().is_empty() {
        assert!(within(pipelines.changed()).await);
    }
    shutdown.cancel();
    within(following).await.unwrap();
    let ended = pipelines.get(&shop(), 3, &shutdown).await;
    assert!(matches!(ended, Err(Failure::Shutdown)));
}

#[tokio::test]
async fn refused_records_go_out_in_as_many_messages_as_they_need() {
    let (_nats, bus) = connect().await;
    let run = RunId::generate();
    let reason = |(index, size): (usize, &usize)| Reason {
        record: format!("r{index}"),
        code: "shape".to_owned(),
        raw: vec![b'x'; *size].into(),
        ..Reason::default()
    };
    let sizes = [300_000, 10, 300_000, MAX_PAYLOAD];
    let refused = Quarantined {
        header: Some(BatchHeader {
            pipeline: shop(),
            revision: 1,
            run,
            attempt: 1,
            batch: BatchId::new(run, 0, 1, 4, 5),
            part: 0,
            sequence: 0,
            cursor_before: String::new(),
            cursor_after: "4".to_owned(),
            extracted: 4,
            push: None,
        }),
        records: None,
        reasons: sizes.iter().enumerate().map(reason).collect(),
        stage: "extractor".to_owned(),
        target: String::new(),
    };
    // The second time the broker knows all of them already.
    for _ in 0..2 {
        stage::quarantine(&bus, &shop(), refused.clone()).await.unwrap();
    }
    let mut consumer = bus.consumer(ConsumerOptions::new(Queue::Quarantine));
    let mut records = Vec::new();
    while records.len() < sizes.len() {
        let delivery = within(consumer.next(&CancellationToken::new())).await.unwrap();
        let message = wire::decode_quarantined(delivery.payload().unwrap()).unwrap();
        records.extend(message.reasons.into_iter().map(|reason| (reason.record, reason.raw.len())));
        delivery.ack().await.unwrap();
    }
    let kept = MAX_PAYLOAD / 2;
    let expected = [("r0", 300_000), ("r1", 10), ("r2", 300_000), ("r3", kept)];
    assert_eq!(records, expected.map(|(record, size)| (record.to_owned(), size)));
    assert_eq!(bus.pending(&shop()).await.unwrap().quarantine, 0);
}
