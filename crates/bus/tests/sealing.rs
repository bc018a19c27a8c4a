//! What the broker keeps when there are keys.

use std::{fs, path::Path, time::Duration};

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

#[tokio::test]
async fn values_are_sealed_anew_while_they_are_written() {
    const VALUES: u64 = 300;
    const WRITES: u64 = 200;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("keys");
    let broker = sealed(&folder).await;
    let bucket = broker.bus.key_value(Bucket::Sent);
    for index in 0..VALUES {
        bucket.put(&format!("shop.api.{index}"), index.to_string()).await.unwrap();
    }
    bucket.put("shop.gone", CANARY).await.unwrap();
    bucket.delete("shop.gone").await.unwrap();
    // Written before there were keys, and damaged.
    let raw = jetstream::new(async_nats::connect(broker.server.url()).await.unwrap());
    let raw = raw.get_key_value(broker.bus.names().bucket(Bucket::Sent)).await.unwrap();
    raw.put("shop.plain", CANARY.into()).await.unwrap();
    raw.put("shop.damaged", raw.get("shop.api.1").await.unwrap().unwrap()).await.unwrap();

    let (old, new) = (parent.path().join("old"), parent.path().join("new"));
    fs::create_dir(&old).unwrap();
    fs::copy(folder.join("1"), old.join("1")).unwrap();
    SealKeys::create(&new).unwrap();
    fs::rename(new.join("1"), new.join("2")).unwrap();
    // The one that writes meanwhile takes it up in a moment.
    fs::copy(new.join("2"), folder.join("2")).unwrap();
    let keys = SealKeys::read(&folder).unwrap();
    let writer = async {
        let mut written = 0;
        while written < WRITES {
            let found = bucket.read("shop.api.0").await.unwrap();
            let number: u64 = std::str::from_utf8(&found.value.unwrap()).unwrap().parse().unwrap();
            let next = (number + 1).to_string();
            let replaced = bucket.replace("shop.api.0", next, found.revision).await.unwrap();
            written += u64::from(replaced.is_some());
        }
    };
    let (first, ()) = futures::join!(broker.bus.renew(Bucket::Sent, &keys), writer);
    let second = broker.bus.renew(Bucket::Sent, &keys).await.unwrap();
    let first = first.unwrap();
    assert!(first.renewed + second.renewed > VALUES, "{first:?} {second:?}");
    assert_eq!((first.damaged, second.damaged), (1, 1));
    assert!(first.left.is_empty() && second.left.is_empty(), "{first:?} {second:?}");
    let third = broker.bus.renew(Bucket::Sent, &keys).await.unwrap();
    assert_eq!((third.renewed, third.damaged), (0, 1), "{third:?}");
    assert!(raw.get("shop.gone").await.unwrap().is_none());

    // What somebody writes with the older key afterwards is found by the next time.
    let with_keys = |folder: &Path| Config {
        servers: vec![broker.server.url()],
        seal_keys: Some(folder.to_owned()),
        publish_patience: Duration::from_secs(1),
        ..Config::default()
    };
    let behind = Bus::connect(&with_keys(&old), &CancellationToken::new()).await.unwrap();
    behind.key_value(Bucket::Sent).put("shop.late", "late").await.unwrap();
    let keys = SealKeys::read(&new).unwrap();
    let late = broker.bus.renew(Bucket::Sent, &keys).await.unwrap();
    assert_eq!(late.left, [("1".to_owned(), 2)].into(), "the damaged one too: {late:?}");
    let ahead = Bus::connect(&with_keys(&new), &CancellationToken::new()).await.unwrap();
    let bucket = ahead.key_value(Bucket::Sent);
    assert_eq!(bucket.get("shop.api.0").await.unwrap().unwrap(), WRITES.to_string());
    assert_eq!(bucket.get("shop.api.299").await.unwrap().unwrap(), "299");
    assert_eq!(bucket.get("shop.plain").await.unwrap().unwrap(), CANARY);
    bucket.get("shop.late").await.unwrap_err();
}
