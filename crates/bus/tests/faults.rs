use std::{collections::BTreeSet, time::Duration};

use bus::{AckError, Bucket, Change, PublishWindow, Stream, WindowLimits};
use bytes::Bytes;

use crate::{Broker, raw_queue, shop, within};

/// Takes and acknowledges until every number below `count` was seen.
async fn drain(broker: &Broker, count: u32) {
    let mut missing: BTreeSet<u32> = (0..count).collect();
    let mut consumer = broker.consumer(raw_queue());
    while !missing.is_empty() {
        let delivery = broker.next(&mut consumer).await;
        let payload = delivery.payload().unwrap();
        missing.remove(&u32::from_le_bytes(payload[..].try_into().unwrap()));
        delivery.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_broker_killed_while_publishing_loses_nothing() {
    const COUNT: u32 = 3_000;
    let mut broker = Broker::start().await;
    let mut window = PublishWindow::new(&broker.bus, WindowLimits { messages: 64, bytes: 1 << 20 });
    for number in 0..COUNT {
        if number == COUNT / 3 || number == 2 * COUNT / 3 {
            assert!(!window.is_empty(), "the kill hits publishes in flight");
            broker.server.kill();
            broker.server.restart();
        }
        while !window.has_room(4) {
            within(window.next()).await.unwrap().1.unwrap();
        }
        let payload = Bytes::copy_from_slice(&number.to_le_bytes());
        window.push(broker.raw(payload).with_id(number.to_string()), ());
    }
    while let Some(((), result)) = within(window.next()).await {
        result.unwrap();
    }
    drain(&broker, COUNT).await;
}

#[tokio::test]
async fn a_broker_killed_while_consuming_delivers_the_rest() {
    const COUNT: u32 = 60;
    let mut broker = Broker::start().await;
    for number in 0..COUNT {
        let payload = Bytes::copy_from_slice(&number.to_le_bytes());
        broker.bus.publish(broker.raw(payload)).await.unwrap();
    }
    let mut consumer = broker.consumer(raw_queue());
    let in_hand = broker.next(&mut consumer).await;
    broker.server.kill();
    broker.server.restart();
    // The disk is the same, so what was delivered before can still be acknowledged, unless the broker had no
    // time to write down that it was: then it says so soon and delivers it again.
    let mut acknowledged = BTreeSet::new();
    let mut delivery = in_hand;
    loop {
        let payload = delivery.payload().unwrap();
        match within(delivery.ack()).await {
            Ok(()) => _ = acknowledged.insert(payload),
            Err(AckError::Forgotten) => {}
            Err(error) => panic!("{error}"),
        }
        if acknowledged.len() == COUNT as usize {
            break;
        }
        delivery = broker.next(&mut consumer).await;
    }
    assert!(broker.bus.pending(&shop()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_broker_that_comes_back_empty_is_set_up_by_whoever_uses_it() {
    let mut broker = Broker::start().await;
    let pipelines = broker.bus.key_value(Bucket::Pipelines);
    let mut watch = pipelines.watch();
    pipelines.put("shop", "first").await.unwrap();
    let put = |value: &str| Change::Put { key: "shop".into(), value: value.to_owned().into() };
    assert_eq!(within(watch.next(&broker.shutdown)).await, Some(put("first")));
    broker.bus.publish(broker.raw("lost")).await.unwrap();
    let mut consumer = broker.consumer(raw_queue());
    let in_hand = broker.next(&mut consumer).await;

    broker.server.wipe();
    broker.server.restart();

    within(broker.bus.publish(broker.raw("new"))).await.unwrap();
    let new = broker.next(&mut consumer).await;
    assert_eq!(new.payload().unwrap(), "new");
    // Both are number one of their stream; the old answer must not count for the new message.
    let error = within(in_hand.ack()).await.unwrap_err();
    assert!(matches!(error, AckError::Replaced), "{error}");
    assert_eq!(broker.bus.pending(&shop()).await.unwrap().raw, 1);
    within(new.ack()).await.unwrap();
    assert!(broker.bus.pending(&shop()).await.unwrap().is_empty());

    assert_eq!(within(pipelines.get("shop")).await.unwrap(), None);
    within(pipelines.put("shop", "first")).await.unwrap();
    within(pipelines.put("shop", "second")).await.unwrap();
    // The bucket was empty for a moment; only what differs is told.
    assert_eq!(within(watch.next(&broker.shutdown)).await, Some(put("second")));
}

#[tokio::test]
async fn a_consumer_that_is_deleted_comes_back() {
    let broker = Broker::start().await;
    let mut consumer = broker.consumer(raw_queue());
    broker.assert_nothing_comes(&mut consumer).await;
    broker.bus.publish(broker.raw("one")).await.unwrap();
    broker.next(&mut consumer).await.ack().await.unwrap();

    let client = async_nats::connect(broker.server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(broker.bus.names().stream(Stream::Raw)).await.unwrap();
    assert!(stream.delete_consumer("transform=shop").await.unwrap().success);
    broker.bus.publish(broker.raw("two")).await.unwrap();
    let delivery = broker.next(&mut consumer).await;
    assert_eq!(delivery.payload().unwrap(), "two");
    delivery.ack().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_deleted_comes_back() {
    let broker = Broker::start().await;
    let mut consumer = broker.consumer(raw_queue());
    broker.assert_nothing_comes(&mut consumer).await;
    let client = async_nats::connect(broker.server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream(broker.bus.names().stream(Stream::Raw)).await.unwrap();
    within(broker.bus.publish(broker.raw("one"))).await.unwrap();
    let delivery = broker.next(&mut consumer).await;
    assert_eq!(delivery.payload().unwrap(), "one");
    delivery.ack().await.unwrap();
}

#[tokio::test]
async fn a_publish_that_nobody_acknowledges_ends_with_its_patience() {
    let mut broker = Broker::with(|config| config.publish_patience = Duration::from_secs(1)).await;
    broker.server.kill();
    let error = within(broker.bus.publish(broker.raw("one"))).await.unwrap_err();
    assert_eq!(error.remedy(), model::Remedy::RETRY);
}

#[tokio::test]
async fn an_acknowledgement_to_a_consumer_that_is_gone_ends_soon() {
    let mut broker = Broker::start().await;
    broker.bus.publish(broker.raw("lost")).await.unwrap();
    let mut consumer = broker.consumer(raw_queue());
    let in_hand = broker.next(&mut consumer).await;
    broker.server.wipe();
    broker.server.restart();
    // The stream is there again, the consumer is not: its owner waits for the acknowledgement.
    within(broker.bus.publish(broker.raw("new"))).await.unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(20), in_hand.ack()).await;
    let error = answered.expect("nobody waits for a minute").unwrap_err();
    assert!(matches!(error, AckError::Replaced), "{error}");
}
