use std::time::Duration;

use bus::{ConsumerOptions, Damaged};

use crate::{Broker, raw_queue, shop, within};

#[tokio::test]
async fn a_delivery_that_is_dropped_comes_back() {
    let broker = Broker::start().await;
    broker.bus.publish(broker.raw("one")).await.unwrap();
    let mut consumer = broker.consumer(raw_queue());
    drop(broker.next(&mut consumer).await);
    let again = broker.next(&mut consumer).await;
    assert_eq!(again.attempt(), 2);
    again.nak(Duration::ZERO).await;
    assert_eq!(broker.next(&mut consumer).await.attempt(), 3);
}

#[tokio::test]
async fn a_delivery_that_is_held_goes_to_nobody_else() {
    let broker = Broker::start().await;
    broker.bus.publish(broker.raw("one")).await.unwrap();
    let options = || ConsumerOptions {
        ack_wait: Some(Duration::from_secs(1)),
        ..ConsumerOptions::new(raw_queue())
    };
    let (mut one, mut two) = (broker.bus.consumer(options()), broker.bus.consumer(options()));
    let held = broker.next(&mut one).await;
    let other = tokio::time::timeout(Duration::from_secs(3), two.next(&broker.shutdown));
    assert!(other.await.is_err());
    held.ack().await.unwrap();
    assert!(broker.bus.pending(&shop()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_a_dropped_consumer_had_fetched_goes_to_another() {
    let broker = Broker::start().await;
    for number in 0..8 {
        broker.bus.publish(broker.raw(vec![number])).await.unwrap();
    }
    let mut one = broker.consumer(raw_queue());
    broker.next(&mut one).await.ack().await.unwrap();
    // The others arrive, but nobody takes them.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(one);
    let mut two = broker.consumer(raw_queue());
    // Much sooner than the time after which the broker would deliver them by itself.
    tokio::time::timeout(Duration::from_secs(10), async {
        for _ in 0..7 {
            broker.next(&mut two).await.ack().await.unwrap();
        }
    })
    .await
    .unwrap();
    assert!(broker.bus.pending(&shop()).await.unwrap().is_empty());
}

#[tokio::test]
async fn large_messages_arrive_whatever_is_fetched_ahead() {
    let broker = Broker::start().await;
    for number in 0..40 {
        broker.bus.publish(broker.raw(vec![number; bus::MAX_PAYLOAD])).await.unwrap();
    }
    let options = ConsumerOptions {
        fetch_messages: 100,
        fetch_bytes: 1,
        ..ConsumerOptions::new(raw_queue())
    };
    let mut consumer = broker.bus.consumer(options);
    for number in 0..40 {
        let delivery = broker.next(&mut consumer).await;
        assert_eq!(delivery.payload().unwrap()[0], number);
        assert_eq!(delivery.attempt(), 1);
        delivery.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_message_without_a_checksum_is_told_apart() {
    let broker = Broker::start().await;
    let client = async_nats::connect(broker.server.url()).await.unwrap();
    let subject = broker.bus.names().raw(&shop()).to_string();
    client.publish(subject, "foreign".into()).await.unwrap();
    client.flush().await.unwrap();
    let mut consumer = broker.consumer(raw_queue());
    let delivery = broker.next(&mut consumer).await;
    assert_eq!(delivery.payload(), Err(Damaged::Unmarked));
    assert_eq!(delivery.damaged_payload(), "foreign");
    delivery.ack().await.unwrap();
}

#[tokio::test]
async fn shutdown_ends_the_waiting() {
    let broker = Broker::start().await;
    let mut consumer = broker.consumer(raw_queue());
    broker.assert_nothing_comes(&mut consumer).await;
    broker.shutdown.cancel();
    assert!(within(consumer.next(&broker.shutdown)).await.is_none());
}
