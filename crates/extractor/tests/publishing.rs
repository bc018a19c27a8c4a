use std::time::Duration;

use bus::Bucket;
use testkit::{
    nats::Nats,
    source::{Record, Source},
};

use crate::stage::{Stage, keys};

fn row(key: &str, size: usize) -> Record {
    Record::Row(key.to_owned(), "x".repeat(size))
}

#[tokio::test]
async fn refused_records_are_quarantined_and_counted() {
    let refused = |text: &str| Record::Refused(text.to_owned());
    let records = vec![
        row("k1", 3),
        refused("a;b"),
        row("k2", 3),
        refused("c;d"),
        refused("e;f"),
        refused(""),
    ];
    let source = Source::new(3).with_part("a", records);
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.extract(1, "a").await;
    let ledger = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;

    let counts: Vec<_> =
        ledger.batches.iter().map(|batch| (batch.records, batch.quarantined)).collect();
    assert_eq!(counts, [(3, 1), (3, 3)]);
    assert_eq!(ledger.batches[1].size_bytes, 0, "nothing of it was published");
    assert_eq!(keys(&stage.batches(&ledger).await), ["k1", "k2"]);

    let first = stage.quarantined().await;
    assert_eq!(first.header.unwrap().batch.as_str(), ledger.batches[0].batch);
    assert_eq!(
        (first.reasons[0].record.as_str(), first.reasons[0].code.as_str()),
        ("a:2", "shape")
    );
    assert_eq!(&first.reasons[0].raw[..], b"a;b");
    let second = stage.quarantined().await;
    assert_eq!(second.reasons.len(), 3);
    assert_eq!((second.stage.as_str(), second.target.as_str()), ("extractor", ""));
    running.stop().await;
}

#[tokio::test]
async fn a_chunk_that_is_too_large_is_split() {
    let records: Vec<_> = (0..12).map(|n| row(&format!("k{n:02}"), 100_000)).collect();
    let source = Source::new(12).with_part("a", records);
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.extract(1, "a").await;
    let ledger = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;
    assert!(ledger.batches.len() > 2);
    assert_eq!((ledger.records(), ledger.quarantined()), (12, 0));
    assert_eq!(ledger.ended[0].batches as usize, ledger.batches.len());
    // Only the last piece ends at a place from where reading can go on.
    let (last, pieces) = ledger.batches.split_last().unwrap();
    assert!(pieces.iter().all(|piece| piece.cursor_after.is_empty()));
    assert_eq!(last.cursor_after, "12");
    assert_eq!(keys(&stage.batches(&ledger).await).len(), 12);
    running.stop().await;
}

#[tokio::test]
async fn a_record_that_is_too_large_is_quarantined_alone() {
    let records = vec![row("k1", 10), row("k2", 600_000), row("k3", 10)];
    let source = Source::new(10).with_part("a", records);
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.extract(1, "a").await;
    let ledger = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;
    assert_eq!((ledger.records(), ledger.quarantined()), (3, 1));
    assert_eq!(keys(&stage.batches(&ledger).await), ["k1", "k3"]);
    let reason = stage.quarantined().await.reasons.remove(0);
    assert_eq!((reason.record.as_str(), reason.code.as_str()), ("a:2", "size"));
    running.stop().await;
}

#[tokio::test]
async fn a_full_stream_slows_the_source_down_and_loses_nothing() {
    let records: Vec<_> = (0..60).map(|n| row(&format!("k{n:02}"), 100_000)).collect();
    let source = Source::new(2).with_part("a", records);
    let nats = Nats::start();
    let mut config = extractor::Config::default();
    config.bus.servers = vec![nats.url()];
    config.bus.max_bytes.raw = 2 * 1024 * 1024;
    let mut stage = Stage::with(&source, config, nats).await;
    let running = stage.start();
    stage.extract(1, "a").await;
    // Ten batches of 200 kB fill the stream; the others wait.
    let before = stage.ledger_until(|ledger| ledger.batches.len() >= 9).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The read cursor counts batches, and is never ahead of what the broker has.
    let progress = stage.bus.key_value(Bucket::Progress).get(&format!("{}.1.0", stage.run)).await;
    let progress: serde_json::Value = serde_json::from_slice(&progress.unwrap().unwrap()).unwrap();
    let published = stage.bus.pending(&stage.pipeline).await.unwrap().raw;
    assert!(published <= 10, "{published}");
    assert!(progress["sequence"].as_u64().unwrap() <= published, "{progress} of {published}");
    let mut batches = Vec::new();
    for _ in 0..30 {
        batches.push(stage.batch().await);
    }
    let after = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;
    assert_eq!(before.records() + after.records(), 60);
    assert_eq!(keys(&batches).len(), 60);
    running.stop().await;
}
