use std::time::Duration;

use bus::{MAX_PAYLOAD, MaxBytes, PublishError, PublishWindow, WindowLimits};
use model::Remedy;

use crate::{Broker, raw_queue, shop, within};

#[tokio::test]
async fn what_is_published_is_delivered_and_gone_after_its_ack() {
    let broker = Broker::start().await;
    broker.bus.publish(broker.raw("one")).await.unwrap();
    let mut consumer = broker.consumer(raw_queue());
    let delivery = broker.next(&mut consumer).await;
    assert_eq!(delivery.payload().unwrap(), "one");
    assert_eq!(delivery.attempt(), 1);
    assert_eq!(delivery.pipeline(), Some(shop()));
    assert_eq!(broker.bus.pending(&shop()).await.unwrap().raw, 1);
    delivery.ack().await.unwrap();
    assert!(broker.bus.pending(&shop()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_second_copy_is_dropped_by_its_id() {
    let broker = Broker::start().await;
    for _ in 0..2 {
        broker.bus.publish(broker.raw("one").with_id("batch#1")).await.unwrap();
    }
    broker.bus.publish(broker.raw("one").with_id("batch#2")).await.unwrap();
    assert_eq!(broker.bus.pending(&shop()).await.unwrap().raw, 2);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_disturbs_nobody() {
    let broker = Broker::start().await;
    let size = MAX_PAYLOAD + 1;
    let mut window = PublishWindow::new(&broker.bus, WindowLimits::default());
    for index in 0..8 {
        window.push(broker.raw(vec![index; 1000]), index);
    }
    let error = broker.bus.publish(broker.raw(vec![0; size])).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { size: found } if found == size));
    assert_eq!(error.remedy(), Remedy::Quarantine);
    for index in 0..8 {
        let (tag, result) = within(window.next()).await.unwrap();
        assert_eq!(tag, index);
        result.unwrap();
    }
    broker.bus.publish(broker.raw(vec![0; MAX_PAYLOAD])).await.unwrap();
    assert_eq!(broker.bus.pending(&shop()).await.unwrap().raw, 9);
}

#[tokio::test]
async fn a_full_stream_holds_the_writer_until_there_is_room() {
    const MIB: u64 = 1024 * 1024;
    let broker = Broker::with(|config| {
        config.max_bytes = MaxBytes { raw: MIB, ..MaxBytes::default() };
        // A full stream is waited for longer than any other failure.
        config.publish_patience = Duration::from_millis(200);
    })
    .await;
    let payload = vec![7; 300 * 1024];
    for _ in 0..3 {
        broker.bus.publish(broker.raw(payload.clone())).await.unwrap();
    }
    let (bus, message) = (broker.bus.clone(), broker.raw(payload));
    let waiting = tokio::spawn(async move { bus.publish(message).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());

    let mut consumer = broker.consumer(raw_queue());
    broker.next(&mut consumer).await.ack().await.unwrap();
    within(waiting).await.unwrap().unwrap();
    for _ in 0..3 {
        broker.next(&mut consumer).await.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_window_is_bounded_by_messages_and_bytes() {
    let broker = Broker::start().await;
    let mut window = PublishWindow::new(&broker.bus, WindowLimits { messages: 2, bytes: 1000 });
    assert!(window.has_room(5000), "one message is always let in");
    window.push(broker.raw(vec![0; 600]), 'a');
    assert!(window.has_room(400));
    assert!(!window.has_room(401));
    window.push(broker.raw(vec![0; 1]), 'b');
    assert!(!window.has_room(1));
    assert_eq!(within(window.next()).await.unwrap().0, 'a');
    assert!(window.has_room(900));
    assert_eq!(within(window.next()).await.unwrap().0, 'b');
    assert!(window.is_empty());
    assert!(window.next().await.is_none());
}
