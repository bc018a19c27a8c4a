use bus::questions::{Checks, LoadQuestion, Plan, PlanOutcome};
use testkit::{gate::Gate, target::Fault};

use crate::stage::{Stage, within};

#[tokio::test]
async fn batches_are_loaded_entered_and_acknowledged() {
    let mut stage = Stage::new().await;
    let running = stage.start();
    stage.publish("store", &stage.batch(0, &["a", "b"])).await;
    stage.publish("store", &stage.batch(1, &["c"])).await;
    let ledger = stage.ledger_until(|ledger| ledger.loaded.len() == 2).await;
    let entry = ledger.loaded.iter().find(|entry| entry.loaded == 2).unwrap();
    assert_eq!(entry.batch, stage.batch(0, &["a", "b"]).header.batch.as_str());
    assert_eq!((entry.target.as_str(), entry.unchanged, entry.quarantined), ("store", 0, 0));
    assert_eq!(stage.store.state().rows.len(), 3);
    assert!(stage.copy.state().rows.is_empty());
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_comes_twice_changes_nothing() {
    let mut stage = Stage::new().await;
    let running = stage.start();
    let batch = stage.batch(0, &["a", "b"]);
    stage.publish("store", &batch).await;
    let first = stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    let rows = stage.store.state().rows;
    stage.publish("store", &batch).await;
    let second = stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    assert_eq!((first.loaded[0].loaded, first.loaded[0].unchanged), (2, 0));
    assert_eq!((second.loaded[0].loaded, second.loaded[0].unchanged), (0, 2));
    assert_eq!(stage.store.state().rows, rows);
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn what_waits_is_written_together() {
    let mut stage = Stage::new().await;
    stage.config.connections_per_target = 1;
    let gate = Gate::closed();
    stage.store.arm(Fault::Hold(gate.clone()));
    let running = stage.start();
    stage.publish("store", &stage.batch(0, &["a"])).await;
    within(gate.arrived()).await;
    for sequence in 1..=6 {
        stage.publish("store", &stage.batch(sequence, &[&format!("k{sequence}")])).await;
    }
    gate.open();
    stage.ledger_until(|ledger| ledger.loaded.len() == 7).await;
    let writes = stage.store.state().writes;
    assert_eq!(writes.iter().sum::<usize>(), 7);
    assert!(writes.len() < 7, "{writes:?}");
    running.stop().await;
}

#[tokio::test]
async fn refused_rows_are_quarantined_and_their_neighbours_loaded() {
    let mut stage = Stage::new().await;
    stage.store.refuse("b");
    let running = stage.start();
    let batch = stage.batch(3, &["a", "b", "c"]);
    stage.publish("store", &batch).await;
    let ledger = stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    assert_eq!((ledger.loaded[0].loaded, ledger.loaded[0].quarantined), (2, 1));
    assert_eq!(stage.store.state().rows.len(), 2);

    let quarantined = stage.quarantined().await;
    assert_eq!(quarantined.header.unwrap(), batch.header);
    assert_eq!((quarantined.stage.as_str(), quarantined.target.as_str()), ("loader", "store"));
    let records = quarantined.records.unwrap();
    assert_eq!((records.len(), testkit::records::text(&records, "key", 0)), (1, "b".to_owned()));
    let reason = &quarantined.reasons[0];
    assert_eq!((reason.record.as_str(), reason.code.as_str()), ("f:301", "constraint"));
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_quarantined() {
    let mut stage = Stage::new().await;
    let running = stage.start();
    stage.publish_bytes("store", vec![0xff; 100]).await;
    stage.publish("store", &stage.batch(0, &["a"])).await;
    let quarantined = stage.quarantined().await;
    assert!(quarantined.header.is_none());
    assert_eq!(quarantined.reasons[0].code, "undecodable");
    assert_eq!(quarantined.reasons[0].raw.len(), 100);
    stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_batch_of_a_revision_that_has_not_arrived_is_waited_for() {
    let mut stage = Stage::new().await;
    let running = stage.start();
    let mut batch = stage.batch(0, &["a"]);
    batch.header.revision = 2;
    stage.publish("store", &batch).await;
    stage.publish("copy", &stage.batch(1, &["b"])).await;
    stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    assert!(stage.store.state().writes.is_empty());
    stage.apply(2).await;
    stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    assert_eq!(stage.store.state().rows.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn two_loaders_share_a_target() {
    let mut stage = Stage::new().await;
    stage.config.connections_per_target = 1;
    stage.config.group_messages = 1;
    let gate = Gate::closed();
    for _ in 0..2 {
        stage.store.arm(Fault::Hold(gate.clone()));
    }
    let (one, two) = (stage.start(), stage.start());
    for sequence in 0..20 {
        stage.publish("store", &stage.batch(sequence, &[&format!("k{sequence}")])).await;
    }
    // One loader with one connection could not come twice.
    within(gate.arrived()).await;
    within(gate.arrived()).await;
    gate.open();
    let ledger = stage.ledger_until(|ledger| ledger.loaded.len() == 20).await;
    assert!(ledger.loaded.iter().all(|entry| entry.loaded == 1));
    assert_eq!(stage.store.state().rows.len(), 20);
    stage.work_done().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn questions_about_targets_are_answered() {
    let stage = Stage::new().await;
    stage.copy.set_away(true);
    let running = stage.start();
    let subject = stage.bus.names().ask_load();
    let patience = std::time::Duration::from_secs(20);
    let pipeline = crate::stage::YAML.to_owned();
    // Until it listens nobody answers.
    let checks: Checks = within(async {
        loop {
            let question = LoadQuestion::Check { pipeline: pipeline.clone() };
            match stage.bus.ask(&subject, &question, patience).await {
                Err(bus::AskError::NoResponders(_)) => tokio::task::yield_now().await,
                answer => break answer.unwrap(),
            }
        }
    })
    .await;
    let ok: Vec<bool> = checks.results.iter().map(|check| check.ok).collect();
    assert_eq!(ok, [true, false]);
    assert!(checks.results[1].message.contains("start it"));
    let question = LoadQuestion::Plan { pipeline, fields: Vec::new() };
    let plan: Plan = stage.bus.ask(&subject, &question, patience).await.unwrap();
    let expected = PlanOutcome::Actions(vec!["create a table with 0 columns".to_owned()]);
    assert_eq!((plan.targets[0].target.as_str(), &plan.targets[0].outcome), ("store", &expected));
    running.stop().await;
}
