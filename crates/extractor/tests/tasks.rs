use std::time::Duration;

use bus::questions::{Checks, ExtractQuestion, Inferred, Menu};
use testkit::source::{Fault, Source};
use wire::task::{PartCursor, PlanParts};

use crate::stage::{Stage, keys, within};

#[tokio::test]
async fn a_run_is_planned_and_every_part_is_read() {
    let source = Source::new(10).with_rows("a", 25).with_rows("b", 10);
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.plan().await;
    let ledger = stage.ledger_until(|ledger| ledger.ended.len() == 2).await;

    assert_eq!(ledger.planned[0].parts, ["a", "b"]);
    assert!(ledger.planned[0].extraction_end > 1_000 + 35);
    assert_eq!((ledger.batches.len(), ledger.records()), (4, 35));
    let mut ended: Vec<_> =
        ledger.ended.iter().map(|end| (end.part, end.batches, end.cursor.as_str())).collect();
    ended.sort_unstable();
    assert_eq!(ended, [(0, 3, "25"), (1, 1, "10")]);
    let batches = stage.batches(&ledger).await;
    assert_eq!(keys(&batches).len(), 35);
    let newest = |part| {
        let of_part = batches.iter().filter(|batch| batch.header.part == part);
        of_part.map(|batch| batch.records.extraction_base).max().unwrap()
    };
    assert!(newest(1) > newest(0) + 25, "a later part is newer");
    stage.tasks_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_changed_shape_stops_the_run_before_anything_is_published() {
    let source = Source::new(10).with_rows("a", 25);
    source.misshape("column `age` of a.csv, line 1, is not in the schema");
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.plan().await;
    let ledger = stage.ledger_until(|ledger| !ledger.stopped.is_empty()).await;

    assert_eq!(ledger.stopped[0].reason, "column `age` of a.csv, line 1, is not in the schema");
    assert_eq!(ledger.stopped[0].hint, "accept the column");
    assert_eq!(ledger.stopped[0].stage, "extractor");
    stage.tasks_done().await;
    assert_eq!(stage.bus.pending(&stage.pipeline).await.unwrap().raw, 0);
    running.stop().await;
}

#[tokio::test]
async fn without_news_a_plan_is_empty() {
    let source = Source::new(10).with_rows("a", 5);
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    let cursors = vec![PartCursor { part: "a".to_owned(), cursor: "5".to_owned() }];
    stage.plan_of(1, PlanParts { cursors, ..PlanParts::default() }).await;
    let ledger = stage.ledger_until(|ledger| !ledger.planned.is_empty()).await;
    assert!(ledger.planned[0].parts.is_empty());
    stage.tasks_done().await;
    running.stop().await;
}

#[tokio::test]
async fn a_plan_that_is_delivered_again_names_the_same_parts() {
    let source = Source::new(10).with_rows("a", 5);
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.plan().await;
    let first = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;
    let grown = source.clone().with_rows("b", 5);
    stage.plan().await;
    let again = stage.ledger_until(|ledger| !ledger.planned.is_empty()).await;
    assert_eq!(first.planned, again.planned);
    assert_eq!(grown.looked(), 1, "the source was asked once");
    running.stop().await;
}

#[tokio::test]
async fn a_revision_that_has_not_arrived_is_waited_for() {
    let source = Source::new(10).with_rows("a", 5);
    let mut stage = Stage::new(&source).await;
    let running = stage.start();
    stage.plan_of(2, PlanParts::default()).await;
    // It arrives while the task is in hand, or before; both have to work.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(source.looked(), 0);
    stage.apply(2).await;
    let ledger = stage.ledger_until(|ledger| ledger.ended.len() == 1).await;
    assert_eq!(ledger.records(), 5);
    assert_eq!(stage.batch().await.header.revision, 2);
    running.stop().await;
}

#[tokio::test]
async fn two_extractors_share_the_parts_of_a_run() {
    let names: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    let source = names.iter().fold(Source::new(10), |source, name| source.with_rows(name, 30));
    let gate = testkit::gate::Gate::closed();
    for name in &names {
        source.arm(name, 15, Fault::Hold(gate.clone()));
    }
    let mut stage = Stage::new(&source).await;
    stage.config.concurrent_parts = 4;
    let (one, two) = (stage.start(), stage.start());
    stage.plan().await;
    // All eight are open at once, which one extractor with four places cannot do.
    for _ in &names {
        within(gate.arrived()).await;
    }
    gate.open();
    let ledger = stage.ledger_until(|ledger| ledger.ended.len() == 8).await;
    assert_eq!(ledger.records(), 240);
    let batches = stage.batches(&ledger).await;
    assert_eq!(keys(&batches).len(), 240);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn questions_about_a_source_are_answered() {
    let source = Source::new(10).with_rows("a", 5);
    let stage = Stage::new(&source).await;
    let running = stage.start();
    let yaml = "pipeline: x\nsource: {csv: {path: a.csv}}\nkey: [key]\ntargets: {store: {sqlite: {path: s.db, table: t}}}\n";
    let subject = stage.bus.names().ask_extract();
    let patience = Duration::from_secs(20);
    let pipeline = yaml.to_owned();
    // Until it listens nobody answers.
    let checks: Checks = within(async {
        loop {
            let question = ExtractQuestion::Check { pipeline: pipeline.clone() };
            match stage.bus.ask(&subject, &question, patience).await {
                Err(bus::AskError::NoResponders(_)) => tokio::task::yield_now().await,
                answer => break answer.unwrap(),
            }
        }
    })
    .await;
    assert!(checks.results[0].ok);
    let question = ExtractQuestion::Discover { pipeline: pipeline.clone() };
    let menu: Menu = stage.bus.ask(&subject, &question, patience).await.unwrap();
    assert_eq!(menu.streams[0].name, "a");
    assert!(menu.streams[0].fields[0].key);
    let question = ExtractQuestion::Infer { pipeline };
    let inferred: Inferred = stage.bus.ask(&subject, &question, patience).await.unwrap();
    assert_eq!(inferred.schema.fields.len(), 2);
    let question = ExtractQuestion::Infer { pipeline: "pipelin: x".to_owned() };
    let refused = stage.bus.ask::<_, Inferred>(&subject, &question, patience).await;
    assert!(matches!(refused, Err(bus::AskError::Refused(_))), "{refused:?}");
    running.stop().await;
}
