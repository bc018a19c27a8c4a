use model::{Field, FieldType, Schema};
use store::{Error, LoadedCursor, NewRevision, RunState};

use crate::support::{Database, Stages, at, name, new_run, on_both, revision, started};

on_both! {
    revisions_are_counted_and_stored_all_or_none;
    the_first_schema_is_kept;
    a_deleted_pipeline_leaves_its_history;
    cursors_of_another_source_are_forgotten;
    several_processes_start_at_once;
}

async fn revisions_are_counted_and_stored_all_or_none(database: Database) {
    let store = database.open().await;
    let both = vec![revision("shop", None), revision("crm", None)];
    let applied = store.apply(both, at(0)).await.unwrap();
    assert_eq!(applied.iter().map(|r| r.revision).collect::<Vec<_>>(), [1, 1]);
    // One of the two was changed by somebody else.
    let outdated = vec![revision("crm", Some(1)), revision("shop", Some(7))];
    let error = store.apply(outdated, at(1)).await.unwrap_err();
    assert!(matches!(error, Error::Changed(name) if name.as_str() == "shop"));
    let stored = store.pipelines().await.unwrap();
    let stored: Vec<_> =
        stored.iter().map(|p| (p.revision.name.as_str(), p.revision.revision)).collect();
    assert_eq!(stored, [("crm", 1), ("shop", 1)]);
    let applied = store.apply(vec![revision("shop", Some(1))], at(2)).await.unwrap();
    assert_eq!(applied[0].revision, 2);
    assert_eq!(store.pipeline(&name("shop")).await.unwrap().unwrap().applied_at, at(2));
    assert!(store.revision(&name("shop"), 1).await.unwrap().is_some());
    assert!(store.revision(&name("shop"), 3).await.unwrap().is_none());
}

async fn the_first_schema_is_kept(database: Database) {
    let store = database.open().await;
    store.apply(vec![revision("shop", None)], at(0)).await.unwrap();
    let schema = |name: &str| Schema { fields: vec![Field::new(name, FieldType::Text)] };
    let kept = store.keep_schema(&name("shop"), 1, &schema("a")).await.unwrap();
    assert_eq!(kept, schema("a"));
    let kept = store.keep_schema(&name("shop"), 1, &schema("b")).await.unwrap();
    assert_eq!(kept, schema("a"));
    let stored = store.pipeline(&name("shop")).await.unwrap().unwrap();
    assert_eq!(stored.revision.schema, Some(schema("a")));
}

async fn a_deleted_pipeline_leaves_its_history(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["a"], 9)];
    entries.extend(stages.batch(0, 0));
    store.record(entries, at(2)).await.unwrap();
    store.delete_pipeline(&name("shop"), at(3)).await.unwrap();
    assert!(matches!(store.delete_pipeline(&name("shop"), at(3)).await, Err(Error::NoPipeline(_))));
    assert_eq!(store.pipeline(&name("shop")).await.unwrap(), None);
    assert_eq!(store.run(run.id).await.unwrap().state, RunState::Cancelled);
    assert_eq!(store.loaded_cursors(&name("shop")).await.unwrap(), []);
    assert!(matches!(store.create_run(&new_run("shop"), at(4)).await, Err(Error::NoPipeline(_))));
    // The name may come back; its revisions are counted on.
    let applied = store.apply(vec![revision("shop", None)], at(5)).await.unwrap();
    assert_eq!(applied[0].revision, 2);
}

async fn cursors_of_another_source_are_forgotten(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["a"], 9)];
    entries.extend(stages.batch(0, 0));
    store.record(entries, at(2)).await.unwrap();
    store.settle_run(run.id, at(2)).await.unwrap();
    let stands = vec![LoadedCursor { part: "a".to_owned(), cursor: "c1".to_owned() }];
    assert_eq!(store.loaded_cursors(&name("shop")).await.unwrap(), stands);
    store.apply(vec![revision("shop", Some(1))], at(3)).await.unwrap();
    assert_eq!(store.loaded_cursors(&name("shop")).await.unwrap(), stands);
    let change = NewRevision { forget_cursors: true, ..revision("shop", Some(2)) };
    store.apply(vec![change], at(3)).await.unwrap();
    // The run of the old source goes on.
    store.record(stages.batch(0, 1), at(4)).await.unwrap();
    store.settle_run(run.id, at(4)).await.unwrap();
    assert_eq!(store.loaded_cursors(&name("shop")).await.unwrap(), []);
}

async fn several_processes_start_at_once(database: Database) {
    let opened = futures_of(&database, 4).await;
    for store in opened {
        assert!(store.is_reachable().await);
    }
}

async fn futures_of(database: &Database, number: usize) -> Vec<store::Store> {
    let address = database.address.clone();
    let tasks: Vec<_> = (0..number)
        .map(|_| {
            let address = address.clone();
            tokio::spawn(async move { store::Store::open(&address.into(), 2).await.unwrap() })
        })
        .collect();
    let mut opened = Vec::new();
    for task in tasks {
        opened.push(task.await.unwrap());
    }
    opened
}
