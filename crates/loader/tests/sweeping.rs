use wire::task::SweepTarget;

use crate::stage::Stage;

fn sweep(max_loss_percent: f64) -> SweepTarget {
    SweepTarget {
        target: "store".to_owned(),
        extraction_base: 1_000_000,
        max_loss_percent,
        source_empty: false,
    }
}

#[tokio::test]
async fn a_sweep_removes_what_the_run_did_not_see() {
    let mut stage = Stage::new().await;
    let running = stage.start();
    stage.publish("store", &stage.batch(0, &["a", "b", "gone"])).await;
    stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    stage.run = model::RunId::generate();
    stage.publish("store", &stage.batch(1, &["a", "b"])).await;
    stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    stage.sweep(sweep(50.0)).await;
    let ledger = stage.ledger_until(|ledger| !ledger.swept.is_empty()).await;
    assert_eq!((ledger.swept[0].target.as_str(), ledger.swept[0].removed), ("store", 1));
    assert_eq!(stage.store.state().rows.len(), 2);
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_sweep_that_would_remove_too_much_stops_the_run() {
    let mut stage = Stage::new().await;
    let running = stage.start();
    stage.publish("store", &stage.batch(0, &["a", "b", "c"])).await;
    stage.ledger_until(|ledger| ledger.loaded.len() == 1).await;
    stage.run = model::RunId::generate();
    stage.sweep(sweep(10.0)).await;
    let ledger = stage.ledger_until(|ledger| !ledger.stopped.is_empty()).await;
    assert_eq!(ledger.stopped[0].reason, "target `store`: 3 of 3 rows would be removed");
    assert_eq!(ledger.stopped[0].hint, "confirm the loss");
    assert_eq!(stage.store.state().rows.len(), 3);
    stage.work_done().await;
    running.stop().await;
}
