use model::{Remedy, RunId};
use testkit::{gate::Gate, target::Fault};

use crate::stage::{Stage, within};

#[tokio::test]
async fn a_target_that_is_away_is_waited_for_and_holds_nobody_up() {
    let mut stage = Stage::new().await;
    stage.store.set_away(true);
    let running = stage.start();
    for sequence in 0..40 {
        let key = format!("k{sequence}");
        stage.publish("store", &stage.batch(sequence, &[&key])).await;
        stage.publish("copy", &stage.batch(sequence, &[&key])).await;
    }
    let ledger = stage.ledger_until(|ledger| ledger.loaded.len() == 40).await;
    assert!(ledger.loaded.iter().all(|entry| entry.target == "copy"));
    // Longer than a message may stay unanswered: what is in hand is kept, and no more is written.
    let away = within(stage.store.wait_for(|state| state.checks >= 100)).await;
    assert!(away.rows.is_empty());
    assert_eq!(stage.ready().await, 40);
    let writes = stage.store.state().writes.len();
    assert!(writes <= 4, "it was probed, not written to: {writes} writes");

    stage.store.set_away(false);
    let ledger = stage.ledger_until(|ledger| ledger.loaded.len() == 40).await;
    assert!(ledger.loaded.iter().all(|entry| entry.target == "store" && entry.loaded == 1));
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_repeated_and_counts_once() {
    let mut stage = Stage::new().await;
    stage.store.arm(Fault::LoseAnswer);
    let running = stage.start();
    stage.publish("store", &stage.batch(0, &["a", "b"])).await;
    let ledger = stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    assert_eq!((ledger.loaded[0].loaded, ledger.loaded[0].unchanged), (0, 2));
    assert_eq!(stage.store.state().writes.len(), 2);
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_write_that_is_never_answered_is_repeated() {
    let mut stage = Stage::new().await;
    stage.config.write_timeout = std::time::Duration::from_secs(1);
    let gate = Gate::closed();
    stage.store.arm(Fault::Hold(gate.clone()));
    let running = stage.start();
    stage.publish("store", &stage.batch(0, &["a"])).await;
    within(gate.arrived()).await;
    let ledger = stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    assert_eq!(ledger.loaded[0].loaded, 1);
    assert_eq!(stage.store.state().writes.len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_always_fails_does_not_hold_back_its_neighbours() {
    let mut stage = Stage::new().await;
    stage.config.connections_per_target = 1;
    let gate = Gate::closed();
    stage.store.arm(Fault::Hold(gate.clone()));
    stage.store.poison("bad", Remedy::RETRY);
    let running = stage.start();
    stage.publish("store", &stage.batch(0, &["first"])).await;
    within(gate.arrived()).await;
    for (sequence, key) in [(1, "bad"), (2, "b"), (3, "c")] {
        stage.publish("store", &stage.batch(sequence, &[key])).await;
    }
    gate.open();
    stage.ledger_until(|ledger| ledger.loaded.len() == 3).await;
    assert_eq!(stage.ready().await, 1);
    stage.store.heal("bad");
    stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    assert_eq!(stage.store.state().rows.len(), 4);
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_refused_as_a_whole_is_quarantined_alone() {
    let mut stage = Stage::new().await;
    stage.config.connections_per_target = 1;
    let gate = Gate::closed();
    stage.store.arm(Fault::Hold(gate.clone()));
    stage.store.poison("bad", Remedy::Quarantine);
    let running = stage.start();
    stage.publish("store", &stage.batch(0, &["first"])).await;
    within(gate.arrived()).await;
    stage.publish("store", &stage.batch(1, &["bad", "too"])).await;
    stage.publish("store", &stage.batch(2, &["b"])).await;
    gate.open();
    let ledger = stage.ledger_until(|ledger| ledger.loaded.len() == 3).await;
    let quarantined: u32 = ledger.loaded.iter().map(|entry| entry.quarantined).sum();
    assert_eq!(quarantined, 2);
    assert_eq!(stage.quarantined().await.reasons.len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_target_that_refuses_for_good_stops_the_run_and_no_other() {
    let mut stage = Stage::new().await;
    stage.config.connections_per_target = 1;
    let gate = Gate::closed();
    stage.store.arm(Fault::Hold(gate.clone()));
    stage.store.poison("bad", Remedy::Stop);
    let running = stage.start();
    stage.publish("store", &stage.batch(0, &["first"])).await;
    within(gate.arrived()).await;
    stage.publish("store", &stage.batch(1, &["bad"])).await;
    let mut other = stage.batch(2, &["other"]);
    other.header.run = RunId::generate();
    stage.publish("store", &other).await;
    gate.open();
    let ledger =
        stage.ledger_until(|ledger| ledger.loaded.len() == 2 && ledger.stopped.len() == 1).await;
    let stopped = &ledger.stopped[0];
    assert_eq!(stopped.reason, "target `store`: the table is locked away");
    assert_eq!((stopped.stage.as_str(), stopped.hint.as_str()), ("loader", "give it back"));
    stage.work_done().await;

    // What else comes of the stopped run is not tried.
    let writes = stage.store.state().writes.len();
    stage.publish("store", &stage.batch(3, &["bad"])).await;
    stage.work_done().await;
    assert_eq!(stage.store.state().writes.len(), writes);
    running.stop().await;
}

#[tokio::test]
async fn a_loader_that_stops_in_the_middle_gives_its_work_back() {
    let mut stage = Stage::new().await;
    let gate = Gate::closed();
    stage.store.arm(Fault::Hold(gate.clone()));
    let first = stage.start();
    stage.publish("store", &stage.batch(0, &["a"])).await;
    within(gate.arrived()).await;
    first.stop().await;
    assert_eq!(stage.ready().await, 1);
    let second = stage.start();
    let ledger = stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    assert_eq!(ledger.loaded[0].loaded, 1);
    stage.work_done().await;
    second.stop().await;
}

#[tokio::test]
async fn a_loader_that_stops_while_its_target_is_away_gives_its_work_back() {
    let mut stage = Stage::new().await;
    stage.store.set_away(true);
    let first = stage.start();
    stage.publish("store", &stage.batch(0, &["a"])).await;
    within(stage.store.wait_for(|state| state.checks >= 2)).await;
    first.stop().await;
    stage.store.set_away(false);
    let second = stage.start();
    stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    second.stop().await;
}
