use std::time::Duration;

use wire::control::{ListRunsRequest, Run, RunState};

use crate::house::{House, Replica, SHOP, apply, batch, part_ended, planned, until_state, within};

async fn runs(replica: &Replica) -> Vec<Run> {
    replica.runs().list_runs(ListRunsRequest::default()).await.unwrap().into_inner().runs
}

async fn runs_that_took_place(replica: &Replica) -> Vec<Run> {
    let mut runs = runs(replica).await;
    runs.retain(|run| run.state() != RunState::Skipped);
    runs
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
    let listed = runs_that_took_place(&one).await;
    let listed: Vec<String> = listed.into_iter().map(|run| run.id).collect();
    assert_eq!(listed, ids);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_due_time_takes_place_once_or_is_recorded_as_skipped() {
    let mut house = House::new().await;
    let (one, two) = tokio::join!(house.scheduler(), house.scheduler());
    apply(&one, &SHOP.replace("schema:", "triggers: {every: 1s}\nschema:")).await;
    // The first run goes on for some due times, the second has time for itself.
    let (stages, _) = house.plan().await;
    tokio::time::sleep(Duration::from_millis(3_300)).await;
    stages.tell(vec![planned(&[])]).await;
    until_state(&one, &stages.run, RunState::Succeeded).await;
    let (stages, _) = house.plan().await;
    stages.tell(vec![planned(&[])]).await;
    until_state(&two, &stages.run, RunState::Succeeded).await;

    let mut times = Vec::new();
    let all = runs(&one).await;
    for run in &all {
        let (first, last) = (run.due_at.unwrap(), run.skipped_until.or(run.due_at).unwrap());
        let number = if run.state() == RunState::Skipped { run.skipped } else { 1 };
        assert_eq!(u64::try_from(last.seconds - first.seconds).unwrap() + 1, number, "{run:?}");
        times.extend(first.seconds..=last.seconds);
    }
    times.sort_unstable();
    let (first, last) = (times[0], times[times.len() - 1]);
    assert_eq!(
        times,
        (first..=last).collect::<Vec<_>>(),
        "no time is missing, none is there twice"
    );
    let skipped: u64 = all.iter().map(|run| run.skipped).sum();
    assert!(skipped >= 3, "{all:?}");
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
