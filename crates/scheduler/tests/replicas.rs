use std::time::Duration;

use wire::control::{ListRunsRequest, Run, RunState};

use crate::house::{House, Replica, SHOP, apply, batch, part_ended, planned, until_state, within};

async fn runs(replica: &Replica) -> Vec<Run> {
    replica.runs().list_runs(ListRunsRequest::default()).await.unwrap().into_inner().runs
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_create_a_due_run_once_and_share_the_ledger() {
    let mut house = House::new().await;
    let (one, two) = tokio::join!(house.scheduler(), house.scheduler());
    apply(&one, &SHOP.replace("schema:", "triggers: {every: 1s}\nschema:")).await;

    let mut ids = Vec::new();
    for _ in 0..2 {
        let (stages, _) = house.plan().await;
        let mut events = vec![planned(&["f"])];
        events.extend((0..30).flat_map(batch));
        events.push(part_ended(30));
        // Each message goes to one of the two.
        for event in events {
            stages.tell(vec![event]).await;
        }
        let ended = until_state(&two, &stages.run, RunState::Succeeded).await;
        assert_eq!(ended.trigger, "interval");
        assert_eq!(ended.ledger.unwrap().targets[0].loaded, 300);
        ids.insert(0, stages.run);
    }
    // Let the third run begin, so that a second one for the same time would show.
    let (stages, _) = house.plan().await;
    ids.insert(0, stages.run);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let listed: Vec<String> = runs(&one).await.into_iter().map(|run| run.id).collect();
    assert_eq!(listed, ids);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_what_another_scheduler_did() {
    let mut house = House::new().await;
    let one = house.scheduler().await;
    apply(&one, SHOP).await;
    let two = house.scheduler().await;
    let run = crate::house::start(&one).await;
    let request = wire::control::WatchRunRequest { id: run.id.clone() };
    let mut watch = two.runs().watch_run(request).await.unwrap().into_inner();
    assert!(within(watch.message()).await.unwrap().is_some());
    // The first one ends the run.
    let (_stages, _) = house.plan().await;
    let request = wire::control::CancelRunRequest { id: run.id };
    one.runs().cancel_run(request).await.unwrap();
    let mut last = None;
    while let Some(message) = within(watch.message()).await.unwrap() {
        last = message.run;
    }
    assert_eq!(last.unwrap().state(), RunState::Cancelled);
    one.stop().await;
    two.stop().await;
}
