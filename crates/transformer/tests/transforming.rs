use std::time::Duration;

use wire::ledger::ledger_entry::Event;

use crate::stage::{Stage, YAML, keys, within};

#[tokio::test]
async fn a_batch_goes_to_every_target_without_what_was_refused() {
    let mut stage = Stage::new().await;
    stage.apply(1, YAML).await;
    let running = stage.start();
    let batch = stage.batch(3, &["12", "x", "0", "7"]);
    stage.publish(&batch).await;
    for ready in stage.ready().await {
        assert_eq!(ready.header, batch.header);
        assert_eq!(keys(&ready.records), ["k300", "k303"]);
        assert_eq!(ready.records.id(1), "f:303");
        assert_eq!(ready.records.version(1), (1_303, 1_303));
    }
    let quarantined = stage.quarantined().await;
    assert_eq!(quarantined.header.unwrap(), batch.header);
    assert_eq!((quarantined.stage.as_str(), quarantined.target.as_str()), ("transformer", ""));
    let records = quarantined.records.unwrap();
    assert_eq!(testkit::records::text(&records, "value", 0), "x");
    let reason = &quarantined.reasons[0];
    assert_eq!((reason.record.as_str(), reason.code.as_str()), ("f:301", "type"));
    assert_eq!((reason.field.as_str(), reason.step.as_str()), ("value", ""));
    let entry = stage.transformed().await;
    assert_eq!(entry.batch, batch.header.batch.as_str());
    assert_eq!((entry.filtered, entry.quarantined), (1, 1));
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_comes_twice_has_the_same_result() {
    let mut stage = Stage::new().await;
    stage.apply(1, YAML).await;
    let running = stage.start();
    let batch = stage.batch(0, &["1", "x"]);
    stage.publish(&batch).await;
    stage.publish(&batch).await;
    assert_eq!(stage.transformed().await, stage.transformed().await);
    stage.work_done().await;
    // The broker drops what has the same id.
    let [store, copy] = stage.ready().await;
    assert_eq!(keys(&store.records), keys(&copy.records));
    assert!(stage.nothing_ready().await);
    assert_eq!(stage.quarantined().await.reasons.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_batch_without_records_left_is_only_entered() {
    let mut stage = Stage::new().await;
    stage.apply(1, YAML).await;
    let running = stage.start();
    stage.publish(&stage.batch(0, &["0", "0"])).await;
    let entry = stage.transformed().await;
    assert_eq!((entry.filtered, entry.quarantined), (2, 0));
    stage.work_done().await;
    assert!(stage.nothing_ready().await);
    running.stop().await;
}

#[tokio::test]
async fn a_contract_that_freezes_stops_the_run() {
    let mut stage = Stage::new().await;
    stage.apply(1, &format!("{YAML}contract: {{types: freeze}}\n")).await;
    let running = stage.start();
    stage.publish(&stage.batch(0, &["1", "x"])).await;
    let Event::RunStopped(stopped) = stage.entry().await else { panic!("the run goes on") };
    assert_eq!(stopped.stage, "transformer");
    assert!(stopped.reason.contains("`value`") && stopped.reason.contains("f:1"), "{stopped:?}");
    stage.work_done().await;
    assert!(stage.nothing_ready().await);
    running.stop().await;
}

#[tokio::test]
async fn a_secret_that_is_missing_stops_the_run() {
    let mut stage = Stage::new().await;
    let hash = "steps:\n  - hash: {fields: [key], key: \"${env:TRIBUTARY_NO_SUCH_SECRET}\"}";
    stage.apply(1, &YAML.replace("steps:", hash)).await;
    let running = stage.start();
    stage.publish(&stage.batch(0, &["1"])).await;
    let Event::RunStopped(stopped) = stage.entry().await else { panic!("the run goes on") };
    assert!(stopped.reason.contains("TRIBUTARY_NO_SUCH_SECRET"), "{stopped:?}");
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_quarantined() {
    let mut stage = Stage::new().await;
    stage.apply(1, YAML).await;
    let running = stage.start();
    stage.publish_bytes(vec![0xff; 100]).await;
    stage.publish(&stage.batch(0, &["1"])).await;
    let quarantined = stage.quarantined().await;
    assert_eq!(quarantined.reasons[0].code, "undecodable");
    assert_eq!(quarantined.reasons[0].raw.len(), 100);
    assert_eq!(stage.transformed().await.quarantined, 0);
    stage.work_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_record_that_becomes_too_large_leaves_its_neighbours_alone() {
    let mut stage = Stage::new().await;
    let grow = "steps:\n  - compute: {wide: {expression: \"key + key + key\", type: text}}";
    stage.apply(1, &YAML.replace("steps:", grow)).await;
    let running = stage.start();
    let mut batch = stage.batch(0, &["1", "2"]);
    let rows = vec![(0, "k".repeat(200_000), "1".to_owned()), (1, "k1".to_owned(), "2".to_owned())];
    batch.records = testkit::records::records("f:", 1_000, &rows);
    stage.publish(&batch).await;
    let [store, _] = stage.ready().await;
    assert_eq!(keys(&store.records), ["k1"]);
    let quarantined = stage.quarantined().await;
    assert_eq!((quarantined.reasons.len(), quarantined.reasons[0].code.as_str()), (1, "size"));
    assert_eq!(stage.transformed().await.quarantined, 1);
    running.stop().await;
}

#[tokio::test]
async fn two_transformers_share_the_batches() {
    let mut stage = Stage::new().await;
    stage.apply(1, YAML).await;
    let running = [stage.start(), stage.start()];
    for sequence in 0..20 {
        stage.publish(&stage.batch(sequence, &["1", "0"])).await;
    }
    let mut batches = std::collections::HashSet::new();
    while batches.len() < 20 {
        let entry = stage.transformed().await;
        assert_eq!((entry.filtered, entry.quarantined), (1, 0));
        batches.insert(entry.batch);
    }
    stage.work_done().await;
    for running in running {
        running.stop().await;
    }
}

#[tokio::test]
async fn a_batch_is_acknowledged_only_when_its_result_is_safe() {
    const BATCHES: u64 = 20;
    // Ready for the loaders is less than they all come to.
    let max_bytes = bus::MaxBytes { ready: 1_100_000, ..bus::MaxBytes::default() };
    let mut stage = Stage::with(max_bytes).await;
    let yaml = YAML.replace("value: integer", "value: text").replace("value != 0", "value != ''");
    stage.apply(1, &yaml).await;
    let large = "x".repeat(100_000);
    for sequence in 0..u32::try_from(BATCHES).unwrap() {
        stage.publish(&stage.batch(sequence, &[&large])).await;
    }
    let running = stage.start();
    let mut before = (0, 0);
    within(async {
        loop {
            let (raw, ready) = stage.waiting().await;
            assert!(raw + ready / 2 >= BATCHES, "{raw} wait and {ready} are ready for two targets");
            // It is full when it grows no more.
            if ready > 0 && (raw, ready) == before {
                break;
            }
            before = (raw, ready);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
    .await;
    assert!(before.0 > 0, "the stream is not full: {before:?}");
    for _ in 0..BATCHES {
        stage.ready().await;
    }
    stage.work_done().await;
    assert!(stage.nothing_ready().await);
    running.stop().await;
}
