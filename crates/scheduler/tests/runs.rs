use bus::Outgoing;
use bytes::Bytes;
use tonic::Code;
use wire::{
    control::{
        CancelRunRequest, GetRunRequest, ListRunsRequest, RunState, StartRunRequest,
        WatchRunRequest,
    },
    ledger::{Noted, RunStopped, ledger_entry::Event},
};

use crate::house::{
    House, SHOP, batch, extracted, loaded, part_ended, planned, run_of, start, transformed, until,
    until_state, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_balanced_run_succeeds_and_is_watched_to_its_end() {
    let (mut house, replica) = House::with(SHOP).await;
    let run = start(&replica).await;
    assert_eq!((run.state(), run.attempt, run.trigger.as_str()), (RunState::Running, 1, "manual"));
    let request = WatchRunRequest { id: run.id.clone() };
    let mut watch = replica.runs().watch_run(request).await.unwrap().into_inner();

    let (stages, plan) = house.plan().await;
    assert_eq!((stages.run.as_str(), plan.cursors.len(), plan.full), (run.id.as_str(), 0, false));
    stages.whole_part(3).await;

    let mut seen = Vec::new();
    while let Some(message) = within(watch.message()).await.unwrap() {
        seen.push(message.run.unwrap());
    }
    let last = seen.pop().unwrap();
    assert_eq!(last.state(), RunState::Succeeded);
    assert!(last.ended_at.is_some());
    let ledger = last.ledger.clone().unwrap();
    assert_eq!((ledger.extracted, ledger.batches, ledger.batches_transformed), (30, 3, 3));
    assert_eq!((ledger.targets[0].loaded, ledger.targets[0].missing), (30, 0));
    assert!(ledger.balanced && ledger.extraction_ended);
    assert_eq!(run_of(&replica, &run.id).await, last);

    // The next run goes on from there, and later.
    start(&replica).await;
    let (_, next) = house.plan().await;
    let cursors: Vec<_> =
        next.cursors.iter().map(|c| (c.part.as_str(), c.cursor.as_str())).collect();
    assert_eq!(cursors, [("orders/1.csv", "end")]);
    assert!(next.extraction_base > plan.extraction_base);
    let listed = replica.runs().list_runs(ListRunsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.runs.len(), 2);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_a_missing_record_goes_on_and_says_what_is_missing() {
    let (mut house, replica) = House::with(SHOP).await;
    let run = start(&replica).await;
    let (stages, _) = house.plan().await;
    stages.tell(vec![planned(&["f"]), extracted(0), transformed("b0", 1), part_ended(1)]).await;
    // One of nine has not arrived.
    stages.tell(vec![loaded("b0", 8, 0)]).await;
    let waiting = until(&replica, &run.id, |run| !run.reason.is_empty()).await;
    assert_eq!(waiting.state(), RunState::Running);
    let ledger = waiting.ledger.unwrap();
    assert_eq!((ledger.targets[0].missing, ledger.balanced), (1, false));
    assert!(waiting.reason.contains("`store`, which lacks 1 records"), "{}", waiting.reason);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_may_come_twice_and_backwards() {
    let (mut house, replica) = House::with(SHOP).await;
    let run = start(&replica).await;
    let (stages, _) = house.plan().await;
    let mut events: Vec<Event> = (0..20).flat_map(batch).collect();
    events.insert(0, planned(&["f"]));
    events.push(part_ended(20));
    events.reverse();
    let last = events.pop().unwrap();
    for event in &events {
        stages.tell(vec![event.clone()]).await;
        stages.tell(vec![event.clone()]).await;
    }
    let ledger = until(&replica, &run.id, |run| {
        run.ledger.as_ref().is_some_and(|ledger| ledger.extracted == 200)
    })
    .await
    .ledger
    .unwrap();
    assert!(!ledger.extraction_ended && !ledger.balanced);
    stages.tell(vec![last]).await;
    let ended = until_state(&replica, &run.id, RunState::Succeeded).await;
    assert_eq!(ended.ledger.unwrap().targets[0].loaded, 200);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_run_fails_with_reason_and_hint() {
    let (mut house, replica) = House::with(SHOP).await;
    let run = start(&replica).await;
    let (stages, _) = house.plan().await;
    let noted = Noted { stage: "extractor".to_owned(), text: "field `x` is new".to_owned() };
    let stopped = RunStopped {
        stage: "extractor".to_owned(),
        reason: "column `x` is new".to_owned(),
        hint: "accept it".to_owned(),
    };
    stages.tell(vec![Event::Noted(noted), Event::RunStopped(stopped)]).await;
    let failed = until_state(&replica, &run.id, RunState::Failed).await;
    assert_eq!((failed.reason.as_str(), failed.hint.as_str()), ("column `x` is new", "accept it"));
    assert_eq!(failed.notes, ["field `x` is new"]);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_leaves_no_work_and_keeps_what_is_loaded() {
    let (mut house, replica) = House::with(SHOP).await;
    let run = start(&replica).await;
    let request = StartRunRequest { pipeline: "shop".to_owned(), ..StartRunRequest::default() };
    let error = replica.runs().start_run(request).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);

    let (stages, _) = house.plan().await;
    let mut events = vec![planned(&["f"])];
    events.extend(batch(0));
    events.push(extracted(1));
    stages.tell(events).await;
    let raw = house.bus.names().raw(&house.pipeline);
    house.bus.publish(Outgoing::new(raw, Bytes::from_static(b"b1"))).await.unwrap();
    until(&replica, &run.id, |run| run.ledger.as_ref().is_some_and(|l| l.batches == 2)).await;

    let request = CancelRunRequest { id: run.id.clone() };
    let cancelled = replica.runs().cancel_run(request.clone()).await.unwrap().into_inner();
    assert_eq!(cancelled.run.clone().unwrap().state(), RunState::Cancelled);
    let pending = house.bus.pending(&house.pipeline).await.unwrap();
    assert_eq!((pending.tasks, pending.raw, pending.ready), (0, 0, 0));
    // Cancelled once is cancelled, and late entries change nothing.
    stages.tell(batch(1)).await;
    let again = replica.runs().cancel_run(request).await.unwrap().into_inner();
    assert_eq!(again, cancelled);

    start(&replica).await;
    let (_, plan) = house.plan().await;
    assert_eq!(plan.cursors[0].cursor, "c1");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let (_house, replica) = House::with(SHOP).await;
    let mut runs = replica.runs();
    let unknown = model::RunId::generate().to_string();
    let error = runs.get_run(GetRunRequest { id: unknown.clone() }).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let error = runs.watch_run(WatchRunRequest { id: unknown }).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let error = runs.get_run(GetRunRequest { id: "7".to_owned() }).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let request = StartRunRequest { pipeline: "none".to_owned(), ..StartRunRequest::default() };
    let error = runs.start_run(request).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("`none`"), "{}", error.message());
    replica.stop().await;
}
