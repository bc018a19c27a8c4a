use std::collections::BTreeSet;

use testkit::{
    gate::Gate,
    source::{Fault, Source},
};

use crate::stage::{Stage, keys, within};

#[tokio::test]
async fn a_part_goes_on_from_where_a_stopped_extractor_stood() {
    let source = Source::new(10).with_rows("a", 100);
    let gate = Gate::closed();
    source.arm("a", 50, Fault::Hold(gate.clone()));
    let mut stage = Stage::new(&source).await;
    let first = stage.start();
    stage.extract(1, "a").await;
    within(gate.arrived()).await;
    let before = stage.ledger_until(|ledger| ledger.batches.len() == 5).await;
    first.stop().await;
    assert!(before.ended.is_empty());

    let second = stage.start();
    let after = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;
    assert_eq!(source.opened().last().unwrap(), &("a".to_owned(), "50".to_owned()));
    let sequences: Vec<u32> =
        before.batches.iter().chain(&after.batches).map(|batch| batch.sequence).collect();
    assert_eq!(sequences, (0..10).collect::<Vec<_>>());
    assert_eq!(after.ended[0].batches, 10);
    assert_eq!((before.records(), after.records()), (50, 50));
    stage.tasks_done().await;
    second.stop().await;
}

#[tokio::test]
async fn a_range_that_is_read_twice_gives_the_same_batches() {
    let source = Source::new(10).with_rows("a", 35);
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.extract(1, "a").await;
    let first = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;
    // Another attempt has read nothing yet.
    stage.extract(2, "a").await;
    let second = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;
    assert_eq!(source.opened().len(), 2);
    assert_eq!(first.batches, second.batches);
    assert_eq!(first.batches.len(), 4);

    // Both were published: the broker's memory does not swallow what a new attempt sends again.
    let mut attempts = BTreeSet::new();
    for _ in 0..8 {
        let header = stage.batch().await.header;
        attempts.insert((header.attempt, header.sequence));
    }
    assert_eq!(attempts.len(), 8);
    running.stop().await;
}

#[tokio::test]
async fn a_source_that_fails_is_opened_again_behind_the_last_chunk() {
    let source = Source::new(10).with_rows("a", 60);
    for index in [25, 25, 45] {
        source.arm("a", index, Fault::Retry);
    }
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.extract(1, "a").await;
    let ledger = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;
    let cursors: Vec<String> = source.opened().into_iter().map(|(_, cursor)| cursor).collect();
    assert_eq!(cursors, ["", "20", "20", "40"]);
    let batches = stage.batches(&ledger).await;
    assert_eq!(keys(&batches).len(), 60);
    running.stop().await;
}

#[tokio::test]
async fn a_part_whose_attempts_are_spent_comes_back_later() {
    let source = Source::new(10).with_rows("a", 60);
    for _ in 0..5 {
        source.arm("a", 25, Fault::Retry);
    }
    let mut stage = Stage::new(&source).await;
    stage.config.retry.attempts = 2;
    let running = stage.start();
    stage.extract(1, "a").await;
    let ledger = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;
    assert_eq!(ledger.records(), 60, "what was read before is not read again");
    assert_eq!(source.opened().len(), 6);
    stage.tasks_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_source_that_breaks_stops_the_run_and_keeps_what_was_read() {
    let source = Source::new(10).with_rows("a", 60);
    source.arm("a", 35, Fault::Stop("a.csv, line 37: a quote is never closed"));
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.extract(1, "a").await;
    let ledger = stage.ledger_until(|ledger| !ledger.stopped.is_empty()).await;
    assert_eq!(ledger.stopped[0].reason, "a.csv, line 37: a quote is never closed");
    assert_eq!(ledger.records(), 30);
    assert!(ledger.ended.is_empty());
    stage.tasks_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_part_of_a_run_that_was_ended_is_not_read_on() {
    let source = Source::new(10).with_rows("a", 100);
    let gate = Gate::closed();
    source.arm("a", 50, Fault::Hold(gate.clone()));
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.extract(1, "a").await;
    within(gate.arrived()).await;
    stage.ledger_until(|ledger| ledger.batches.len() == 5).await;
    let bucket = stage.bus.key_value(bus::Bucket::Progress);
    bucket.put(&format!("{}.ended", stage.run), "").await.unwrap();
    // The task is acknowledged though the gate stays closed.
    stage.tasks_done().await;
    assert_eq!(source.opened().len(), 1);
    running.stop().await;
}
