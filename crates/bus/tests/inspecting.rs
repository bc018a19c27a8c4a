//! What the broker reports about itself, and what waits in it.

use std::time::{Duration, SystemTime};

use async_nats::jetstream;
use bus::{Queue, Stream};

use crate::{Broker, shop};

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_were_provisioned_are_as_they_have_to_be() {
    let broker = Broker::start().await;
    let reports = broker.bus.inspect().await.unwrap();
    assert_eq!(reports.len(), 10, "{reports:#?}");
    for report in reports {
        assert!(report.exists && report.differences.is_empty(), "{report:#?}");
    }
    let skew = broker.bus.clock_skew(now).await.unwrap();
    assert!(skew.at_least < Duration::from_millis(100), "{skew:?}");
    let skew = broker.bus.clock_skew(|| now() - Duration::from_secs(60)).await.unwrap();
    assert!(skew.ahead && skew.at_least > Duration::from_secs(59), "{skew:?}");
    let skew = broker.bus.clock_skew(|| now() + Duration::from_secs(60)).await.unwrap();
    assert!(!skew.ahead && skew.at_least > Duration::from_secs(59), "{skew:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_or_removed_on_the_broker_is_told() {
    let broker = Broker::start().await;
    let client = async_nats::connect(broker.server.url()).await.unwrap();
    let context = jetstream::new(client);
    let name = broker.bus.names().stream(Stream::Raw);
    let mut config = context.get_stream(&name).await.unwrap().cached_info().config.clone();
    config.discard = jetstream::stream::DiscardPolicy::Old;
    context.update_stream(config).await.unwrap();
    context.delete_stream(broker.bus.names().stream(Stream::Ledger)).await.unwrap();

    let reports = broker.bus.inspect().await.unwrap();
    let of = |stream| {
        let name = broker.bus.names().stream(stream);
        reports.iter().find(|report| report.name == name).unwrap()
    };
    assert!(!of(Stream::Ledger).exists);
    let [difference] = &of(Stream::Raw).differences[..] else { panic!("{:#?}", of(Stream::Raw)) };
    assert_eq!((difference.setting, difference.found.as_str()), ("discard", "\"old\""));
    assert!(difference.changeable && of(Stream::Ready).differences.is_empty());

    broker.bus.provision().await.unwrap();
    let reports = broker.bus.inspect().await.unwrap();
    assert!(reports.iter().all(|report| report.exists && report.differences.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_tell_what_waits_and_since_when() {
    let broker = Broker::start().await;
    assert_eq!(broker.bus.lanes().await.unwrap(), []);
    let before = now() - Duration::from_millis(1);
    for size in [1_000, 3_000] {
        broker.bus.publish(broker.raw(vec![0; size])).await.unwrap();
    }
    let lanes = broker.bus.lanes().await.unwrap();
    let [lane] = &lanes[..] else { panic!("{lanes:?}") };
    assert_eq!(lane.queue, Queue::Raw { pipeline: shop() });
    assert_eq!(lane.messages, 2);
    assert!((4_000..5_000).contains(&lane.bytes), "{lane:?}");
    assert!(lane.oldest.is_some_and(|oldest| oldest >= before && oldest <= now()), "{lane:?}");

    // What is in hand counts, because it is work; what is done does not.
    let mut consumer = broker.consumer(Queue::Raw { pipeline: shop() });
    let delivery = broker.next(&mut consumer).await;
    assert_eq!(broker.bus.lanes().await.unwrap()[0].messages, 2);
    delivery.ack().await.unwrap();
    assert_eq!(broker.bus.lanes().await.unwrap()[0].messages, 1);
}

fn now() -> SystemTime {
    SystemTime::now()
}
