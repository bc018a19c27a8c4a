//! What the broker keeps when there are keys.

use std::{fs, path::Path};

use async_nats::jetstream;
use bus::{Bucket, Bus, Change, Config, Outgoing, SealKeys, Stream};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use crate::{Broker, raw_queue, shop, within};

const CANARY: &str = "ada.canary@example.com";

async fn sealed(folder: &Path) -> Broker {
    SealKeys::create(folder).unwrap();
    Broker::with(|config| config.seal_keys = Some(folder.to_owned())).await
}

/// All that the server keeps, as it lies in its files.
fn kept(folder: &Path, found: &mut Vec<u8>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            kept(&path, found);
        } else {
            found.extend(fs::read(&path).unwrap_or_default());
        }
    }
}

fn is_in(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

#[tokio::test]
async fn messages_and_values_are_encrypted_and_come_back_as_they_were() {
    let parent = tempfile::tempdir().unwrap();
    let broker = sealed(&parent.path().join("keys")).await;
    let subject = broker.bus.names().raw(&shop());
    let message = Outgoing::new(subject, CANARY.into()).with_id(format!("id-{CANARY}"));
    broker.bus.publish(message.clone()).await.unwrap();
    broker.bus.publish(message).await.unwrap();
    let bucket = broker.bus.key_value(Bucket::Pipelines);
    let mut watch = bucket.watch();
    bucket.put("shop", CANARY).await.unwrap();
    let revision = bucket.read("shop").await.unwrap().revision;
    assert!(bucket.replace("shop", format!("{CANARY}!"), revision).await.unwrap().is_some());

    let mut files = Vec::new();
    kept(broker.server.folder(), &mut files);
    assert!(is_in(&files, "Nats-Msg-Id"), "the test does not look where messages are kept");
    assert!(!is_in(&files, "ada.canary"), "the broker keeps a text that can be read");

    assert_eq!(bucket.get("shop").await.unwrap().unwrap(), format!("{CANARY}!"));
    let told = within(watch.next(&broker.shutdown)).await.unwrap();
    let Change::Put { key, value } = told else { panic!("{told:?}") };
    assert_eq!((key.as_str(), is_in(&value, CANARY)), ("shop", true));
    let mut consumer = broker.consumer(raw_queue());
    let delivery = broker.next(&mut consumer).await;
    assert_eq!(delivery.payload().unwrap(), CANARY);
    delivery.ack().await.unwrap();
    assert_eq!(broker.bus.pending(&shop()).await.unwrap().raw, 0, "the copy was not recognised");
}

/// Waits until the server has handed the message to somebody.
async fn delivered(broker: &Broker) {
    let jetstream = jetstream::new(async_nats::connect(broker.server.url()).await.unwrap());
    let stream = jetstream.get_stream(broker.bus.names().stream(Stream::Raw)).await.unwrap();
    loop {
        let consumers: Vec<_> = stream.consumers().try_collect().await.unwrap();
        if consumers.iter().any(|consumer| consumer.delivered.consumer_sequence > 0) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_message_waits_for_the_key_that_has_not_arrived_yet() {
    let parent = tempfile::tempdir().unwrap();
    let (first, second) = (parent.path().join("first"), parent.path().join("second"));
    let broker = sealed(&first).await;
    broker.bus.publish(broker.raw("new")).await.unwrap();
    fs::create_dir(&second).unwrap();
    fs::write(second.join("0"), fs::read(first.join("1")).unwrap()).unwrap();
    let config = Config {
        servers: vec![broker.server.url()],
        seal_keys: Some(second.clone()),
        ..Config::default()
    };
    let behind = Bus::connect(&config, &CancellationToken::new()).await.unwrap();
    let mut consumer = behind.consumer(bus::ConsumerOptions::new(raw_queue()));
    let next = tokio::spawn({
        let shutdown = broker.shutdown.clone();
        async move { consumer.next(&shutdown).await }
    });
    within(delivered(&broker)).await;
    assert!(!next.is_finished());
    fs::copy(first.join("1"), second.join("1")).unwrap();
    let delivery = within(next).await.unwrap().unwrap();
    assert_eq!((delivery.payload().unwrap().as_ref(), delivery.attempt() > 1), (&b"new"[..], true));
    delivery.ack().await.unwrap();
}
