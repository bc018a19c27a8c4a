use std::time::Duration;

use bus::{Bucket, Outgoing};
use bytes::Bytes;
use wire::control::RunState;

use crate::house::{
    House, SHOP, apply, batch, extracted, loaded, part_ended, planned, run_of, start, transformed,
    until, until_state, within,
};

async fn impatient() -> House {
    let mut house = House::new().await;
    house.config.stalled_after = Duration::from_millis(800);
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_lost_is_extracted_again_from_the_loaded_cursor() {
    let mut house = impatient().await;
    let replica = house.scheduler().await;
    apply(&replica, SHOP).await;
    let run = start(&replica).await;
    let (first, plan) = house.plan().await;
    let mut events = vec![planned(&["f"])];
    events.extend(batch(0));
    // The second batch is lost on its way; the third has arrived.
    events.push(extracted(1));
    events.extend(batch(2));
    first.tell(events).await;

    let (second, again) = house.plan().await;
    assert_eq!((second.run.as_str(), second.attempt), (run.id.as_str(), 2));
    assert_eq!(again.cursors.len(), 1);
    assert_eq!((again.cursors[0].part.as_str(), again.cursors[0].cursor.as_str()), ("f", "c1"));
    assert!(again.extraction_base > plan.extraction_base);

    // What was on its way nevertheless does not count.
    first.tell(vec![transformed("b1", 0), loaded("b1", 10, 0), part_ended(3)]).await;
    let mut events = vec![planned(&["f"]), extracted(0), transformed("b0", 0), loaded("b0", 7, 3)];
    events.push(part_ended(1));
    second.tell(events).await;
    let ended = until_state(&replica, &run.id, RunState::Succeeded).await;
    let ledger = ended.ledger.unwrap();
    assert_eq!((ended.attempt, ledger.extracted), (2, 20));
    assert_eq!((ledger.targets[0].loaded, ledger.targets[0].quarantined), (17, 3));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_the_broker_still_holds_is_not_lost() {
    let mut house = impatient().await;
    let replica = house.scheduler().await;
    apply(&replica, SHOP).await;
    let run = start(&replica).await;
    let (stages, _) = house.plan().await;
    stages.tell(vec![planned(&["f"]), extracted(0), part_ended(1)]).await;
    let raw = house.bus.names().raw(&house.pipeline);
    house.bus.publish(Outgoing::new(raw, Bytes::from_static(b"b0"))).await.unwrap();
    // Longer than it takes to find a loss.
    let waiting = until(&replica, &run.id, |run| run.reason.contains("for a transformer")).await;
    assert_eq!((waiting.attempt, waiting.state()), (1, RunState::Running));
    // A transformer takes it and dies with it.
    let delivery = house.delivery(house.raw()).await;
    delivery.ack().await.unwrap();
    let (second, _) = house.plan().await;
    assert_eq!(second.attempt, 2);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_empty_gets_everything_back() {
    let mut house = impatient().await;
    let replica = house.scheduler().await;
    apply(&replica, SHOP).await;
    let run = start(&replica).await;
    let (stages, _) = house.plan().await;
    let mut events = vec![planned(&["f"])];
    events.extend(batch(0));
    events.push(extracted(1));
    stages.tell(events).await;
    until(&replica, &run.id, |run| run.ledger.as_ref().is_some_and(|l| l.batches == 2)).await;

    tokio::task::block_in_place(|| {
        house.nats.kill();
        house.nats.wipe();
        house.nats.restart();
    });
    let (second, plan) = house.plan().await;
    assert_eq!((second.attempt, plan.cursors[0].cursor.as_str()), (2, "c1"));
    let bucket = house.bus.key_value(Bucket::Pipelines);
    let keys = async {
        loop {
            let mut keys = bucket.keys().await.unwrap();
            keys.sort();
            if keys == ["shop", "shop.1"] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(keys).await;
    let mut events = vec![planned(&["f"])];
    events.extend(batch(0));
    events.push(part_ended(1));
    second.tell(events).await;
    let ended = until_state(&replica, &run.id, RunState::Succeeded).await;
    assert_eq!(ended.ledger.unwrap().extracted, 20);
    assert_eq!(run_of(&replica, &run.id).await.attempt, 2);
    replica.stop().await;
}
