use wire::{
    control::{RunState, StartRunRequest},
    ledger::{TargetSwept, ledger_entry::Event},
};

use crate::house::{
    House, SNAPSHOT, batch, extracted, loaded, part_ended, planned, start, transformed, until_state,
};

fn swept(removed: u64) -> Event {
    Event::TargetSwept(TargetSwept { target: "store".to_owned(), removed })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_ends_with_its_sweep() {
    let (mut house, replica) = House::with(SNAPSHOT).await;
    let run = start(&replica).await;
    let (stages, plan) = house.plan().await;
    assert!(plan.full);
    stages.whole_part(1).await;
    let (stages, sweep) = house.sweep().await;
    assert_eq!((sweep.target.as_str(), sweep.max_loss_percent), ("store", 10.0));
    assert_eq!((sweep.extraction_base, sweep.source_empty), (plan.extraction_base, false));
    stages.tell(vec![swept(4)]).await;
    let ended = until_state(&replica, &run.id, RunState::Succeeded).await;
    assert_eq!(ended.ledger.unwrap().targets[0].swept, 4);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_source_is_told_and_a_confirmation_is_passed_on() {
    let (mut house, replica) = House::with(SNAPSHOT).await;
    let request = StartRunRequest {
        pipeline: "shop".to_owned(),
        confirm_loss: true,
        ..StartRunRequest::default()
    };
    let run = replica.runs().start_run(request).await.unwrap().into_inner().run.unwrap();
    let (stages, _) = house.plan().await;
    stages.tell(vec![planned(&[])]).await;
    let (stages, sweep) = house.sweep().await;
    assert_eq!((sweep.source_empty, sweep.max_loss_percent), (true, 100.0));
    stages.tell(vec![swept(0)]).await;
    until_state(&replica, &run.id, RunState::Succeeded).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_withheld_while_something_is_quarantined() {
    let (mut house, replica) = House::with(SNAPSHOT).await;
    let run = start(&replica).await;
    let (stages, _) = house.plan().await;
    let mut events = vec![planned(&["f"])];
    events.extend(batch(0));
    events.extend([extracted(1), transformed("b1", 1), loaded("b1", 9, 0), part_ended(2)]);
    stages.tell(events).await;
    let ended = until_state(&replica, &run.id, RunState::Succeeded).await;
    assert_eq!(ended.notes.len(), 1);
    assert!(ended.notes[0].contains("are quarantined"), "{}", ended.notes[0]);
    assert_eq!(house.bus.pending(&house.pipeline).await.unwrap().tasks, 0);
    replica.stop().await;
}
