use std::collections::HashMap;

use store::{NewQuarantined, NewRun, ReplayBatch, RunState, Selection, Trigger};
use wire::ledger::{BatchLoaded, BatchTransformed, ledger_entry::Event};

use crate::support::{Database, Stages, at, name, new_run, on_both, started};

on_both! {
    refused_records_are_kept_once_listed_and_dropped;
    a_replayed_record_leaves_when_it_is_accounted_for;
    a_lost_batch_of_a_replay_goes_out_again;
}

fn refused(run: &str, record: &str, target: &str) -> NewQuarantined {
    NewQuarantined {
        pipeline: name("shop"),
        revision: 1,
        run: run.to_owned(),
        stage: if target.is_empty() { "transformer" } else { "loader" }.to_owned(),
        target: target.to_owned(),
        record: record.to_owned(),
        code: "type".to_owned(),
        message: "not a number".to_owned(),
        step: "1 (cast)".to_owned(),
        field: "total".to_owned(),
        contents: Some(vec![1, 2, 3]),
        raw: None,
        waits: None,
    }
}

async fn refused_records_are_kept_once_listed_and_dropped(database: Database) {
    let (store, run) = started(&database).await;
    let run = run.id.to_string();
    let mut records = vec![refused(&run, "f:1", ""), refused(&run, "f:2", "")];
    records.push(NewQuarantined { pipeline: name("unknown"), ..refused(&run, "f:3", "") });
    assert_eq!(store.quarantine(records.clone(), at(2)).await.unwrap(), 2);
    records.push(NewQuarantined { code: "size".to_owned(), ..refused(&run, "f:1", "store") });
    assert_eq!(store.quarantine(records, at(3)).await.unwrap(), 1);

    let all = Selection::default();
    let listed = store.quarantined(&all, 2).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].record.target, "store");
    assert_eq!(listed[0].record.contents, None);
    assert_eq!(store.count_quarantined(&all).await.unwrap(), 3);
    let full = store.quarantined_record(listed[0].id).await.unwrap().unwrap();
    assert_eq!(full.record.contents, Some(vec![1, 2, 3]));
    assert_eq!(full.quarantined_at, at(3));
    assert_eq!(store.quarantined_record(9_999).await.unwrap(), None);

    let size = Selection { code: Some("size".to_owned()), ..Selection::default() };
    assert_eq!(store.drop_quarantined(&size).await.unwrap(), 1);
    let one = Selection { ids: vec![listed[1].id], run: Some(run), ..Selection::default() };
    assert_eq!(store.drop_quarantined(&one).await.unwrap(), 1);
    assert_eq!(store.drop_quarantined(&all).await.unwrap(), 1);
}

fn replay_run() -> NewRun {
    NewRun { trigger: Trigger::Replay, ..new_run("shop") }
}

async fn a_replayed_record_leaves_when_it_is_accounted_for(database: Database) {
    let (store, run) = started(&database).await;
    let old = run.id.to_string();
    let never_parsed = NewQuarantined { contents: None, ..refused(&old, "f:9", "") };
    let records =
        vec![refused(&old, "f:1", ""), refused(&old, "f:2", ""), refused(&old, "f:3", "copy")];
    store.quarantine(records, at(2)).await.unwrap();
    store.quarantine(vec![never_parsed], at(2)).await.unwrap();
    store.end_run(run.id, RunState::Succeeded, "", "", at(3)).await.unwrap();

    let all = Selection::default();
    assert_eq!(store.pipelines_to_replay(&all).await.unwrap(), [name("shop")]);
    let (run, records) = store.create_replay(&replay_run(), &all, at(4)).await.unwrap().unwrap();
    assert_eq!(records, 3);
    assert_eq!(store.pipelines_to_replay(&all).await.unwrap(), []);
    let page = store.replayable(run.id, 10).await.unwrap();
    let targets: Vec<_> = page.iter().map(|record| record.target.as_str()).collect();
    assert_eq!(targets, ["", "", "copy"]);
    let batch = |batch: &str, sequence, only_target: Option<&str>, ids| ReplayBatch {
        batch: batch.to_owned(),
        sequence,
        only_target: only_target.map(ToOwned::to_owned),
        ids,
    };
    let raw = batch("r", 0, None, vec![page[0].id, page[1].id]);
    let ready = batch("l", 1, Some("copy"), vec![page[2].id]);
    assert!(store.register_replay_batch(run.id, 1, &raw, at(5)).await.unwrap());
    assert!(store.register_replay_batch(run.id, 1, &ready, at(5)).await.unwrap());
    // Of another attempt: somebody else goes on with the replay.
    assert!(!store.register_replay_batch(run.id, 2, &ready, at(5)).await.unwrap());
    assert_eq!(store.replayable(run.id, 10).await.unwrap(), []);
    store.replay_is_planned(run.id, 1, at(5)).await.unwrap();

    let stages = Stages { run: run.id, attempt: 1 };
    let loaded = |batch: &str, target: &str, loaded| {
        stages.entry(Event::BatchLoaded(BatchLoaded {
            batch: batch.to_owned(),
            target: target.to_owned(),
            loaded,
            unchanged: 0,
            quarantined: 0,
            ages: HashMap::new(),
        }))
    };
    let transformed =
        BatchTransformed { batch: "r".to_owned(), filtered: 0, quarantined: 1, extracted: 0 };
    store
        .record(
            vec![
                stages.entry(Event::BatchTransformed(transformed)),
                loaded("r", "store", 1),
                loaded("r", "copy", 1),
            ],
            at(6),
        )
        .await
        .unwrap();
    // The transformer refused one of the two again.
    let again = refused(&run.id.to_string(), "f:2", "");
    store.quarantine(vec![again], at(6)).await.unwrap();
    let books = store.settle_run(run.id, at(6)).await.unwrap().books;
    assert_eq!((books.balanced, books.targets[0].missing, books.targets[1].missing), (false, 0, 1));
    store.record(vec![loaded("l", "copy", 1)], at(7)).await.unwrap();
    assert!(store.settle_run(run.id, at(7)).await.unwrap().books.balanced);
    store.end_run(run.id, RunState::Succeeded, "", "", at(8)).await.unwrap();
    let left = store.quarantined(&all, 10).await.unwrap();
    let left: Vec<_> = left.iter().map(|q| q.record.record.as_str()).collect();
    assert_eq!(left, ["f:2", "f:9"]);
    assert!(store.create_replay(&replay_run(), &all, at(9)).await.unwrap().is_some());
}

async fn a_lost_batch_of_a_replay_goes_out_again(database: Database) {
    let (store, run) = started(&database).await;
    let old = run.id.to_string();
    let records = (0..2).map(|n| refused(&old, &format!("f:{n}"), "copy")).collect();
    store.quarantine(records, at(2)).await.unwrap();
    store.end_run(run.id, RunState::Succeeded, "", "", at(3)).await.unwrap();
    let all = Selection::default();
    let (run, _) = store.create_replay(&replay_run(), &all, at(4)).await.unwrap().unwrap();
    let page = store.replayable(run.id, 10).await.unwrap();
    for (sequence, record) in (0..).zip(&page) {
        let batch = ReplayBatch {
            batch: format!("l{sequence}"),
            sequence,
            only_target: Some("copy".to_owned()),
            ids: vec![record.id],
        };
        store.register_replay_batch(run.id, 1, &batch, at(5)).await.unwrap();
    }
    store.replay_is_planned(run.id, 1, at(5)).await.unwrap();
    let stages = Stages { run: run.id, attempt: 1 };
    let loaded = BatchLoaded {
        batch: "l0".to_owned(),
        target: "copy".to_owned(),
        loaded: 0,
        unchanged: 1,
        quarantined: 0,
        ages: HashMap::new(),
    };
    store.record(vec![stages.entry(Event::BatchLoaded(loaded))], at(6)).await.unwrap();
    let seen = store.settle_run(run.id, at(7)).await.unwrap();
    let again = store.hand_out_again(&seen, at(20)).await.unwrap().unwrap();
    assert_eq!((again.run.attempt, again.run.books.extracted), (2, 1));
    let page = store.replayable(run.id, 10).await.unwrap();
    assert_eq!(page.len(), 1);
    // Cancelled: what is accounted for is gone, the rest is free again.
    store.end_run(run.id, RunState::Cancelled, "", "", at(21)).await.unwrap();
    let left = store.quarantined(&all, 10).await.unwrap();
    assert_eq!(left.iter().map(|q| q.id).collect::<Vec<_>>(), [page[0].id]);
    assert_eq!(store.pipelines_to_replay(&all).await.unwrap().len(), 1);
}
