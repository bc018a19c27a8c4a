use store::{Error, NewRun, NewRunTarget, RunState, SweepState, Trigger};
use wire::ledger::{TargetSwept, ledger_entry::Event};

use crate::support::{Database, Stages, at, name, new_run, on_both, revision, started};

on_both! {
    a_pipeline_has_one_running_run;
    a_due_run_is_created_once;
    the_extraction_time_never_goes_back;
    a_sweep_is_handed_out_once;
    runs_are_listed_newest_first;
}

async fn a_pipeline_has_one_running_run(database: Database) {
    let (store, run) = started(&database).await;
    let error = store.create_run(&new_run("shop"), at(2)).await.unwrap_err();
    assert!(matches!(error, Error::StillRunning { run: going, .. } if going == run.id));
    let ended = store.end_run(run.id, RunState::Cancelled, "why", "", at(3)).await.unwrap();
    assert_eq!((ended.state, ended.ended_at), (RunState::Cancelled, Some(at(3))));
    // Ended once is ended.
    let again = store.end_run(run.id, RunState::Succeeded, "", "", at(4)).await.unwrap();
    assert_eq!(again, ended);
    let next = store.create_run(&new_run("shop"), at(5)).await.unwrap();
    assert_eq!(next.accepted_fields, ["extra"]);
    let outdated = NewRun { revision: 2, ..new_run("shop") };
    assert!(matches!(store.create_run(&outdated, at(6)).await, Err(Error::Changed(_))));
}

async fn a_due_run_is_created_once(database: Database) {
    let store = database.open().await;
    let other = database.open().await;
    store.apply(vec![revision("shop", None)], at(0)).await.unwrap();
    let due =
        NewRun { trigger: Trigger::Interval, due_key: Some("first".to_owned()), ..new_run("shop") };
    let (one, two) = tokio::join!(store.create_run(&due, at(1)), other.create_run(&due, at(1)));
    let created: Vec<_> = [one, two].into_iter().filter_map(Result::ok).collect();
    assert_eq!(created.len(), 1);
    store.end_run(created[0].id, RunState::Succeeded, "", "", at(2)).await.unwrap();
    assert!(matches!(store.create_run(&due, at(3)).await, Err(Error::NotDue(_))));
    let last = store.last_reading_run(&name("shop")).await.unwrap();
    assert_eq!(last.map(|run| (run.id, run.started_at)), Some((created[0].id, at(1))));
}

async fn the_extraction_time_never_goes_back(database: Database) {
    let (store, run) = started(&database).await;
    assert_eq!(run.extraction_base, at(1).timestamp_nanos_opt().unwrap());
    let far = at(1_000).timestamp_nanos_opt().unwrap();
    let stages = Stages { run: run.id, attempt: 1 };
    store.record(vec![stages.planned(&[], far)], at(2)).await.unwrap();
    store.end_run(run.id, RunState::Succeeded, "", "", at(3)).await.unwrap();
    // Told again, and less, after the run has ended.
    store.record(vec![stages.planned(&[], far - 5)], at(3)).await.unwrap();
    let next = store.create_run(&new_run("shop"), at(4)).await.unwrap();
    assert_eq!(next.extraction_base, far + 1);
}

async fn a_sweep_is_handed_out_once(database: Database) {
    let store = database.open().await;
    store.apply(vec![revision("shop", None)], at(0)).await.unwrap();
    let target = |name: &str| NewRunTarget { name: name.to_owned(), sweep: true };
    let new = NewRun { targets: vec![target("store"), target("copy")], ..new_run("shop") };
    let run = store.create_run(&new, at(1)).await.unwrap();
    assert_eq!(run.books.targets[0].sweep, SweepState::Pending);
    assert_eq!(store.issue_sweep(run.id, "store", 0, at(2)).await.unwrap(), Some(1));
    assert_eq!(store.issue_sweep(run.id, "store", 0, at(2)).await.unwrap(), None);
    assert_eq!(store.issue_sweep(run.id, "store", 1, at(9)).await.unwrap(), Some(2));
    store.withhold_sweep(run.id, "copy", "because", at(2)).await.unwrap();
    let stages = Stages { run: run.id, attempt: 1 };
    let swept = |target: &str| {
        stages.entry(Event::TargetSwept(TargetSwept { target: target.to_owned(), removed: 7 }))
    };
    store.record(vec![swept("store"), swept("copy")], at(10)).await.unwrap();
    let targets = store.run(run.id).await.unwrap().books.targets;
    assert_eq!((targets[0].sweep, targets[0].swept), (SweepState::Done, 7));
    assert_eq!((targets[1].sweep, targets[1].swept), (SweepState::Withheld, 0));
    assert_eq!(store.notes(run.id).await.unwrap(), ["because"]);
}

async fn runs_are_listed_newest_first(database: Database) {
    let (store, first) = started(&database).await;
    store.end_run(first.id, RunState::Succeeded, "", "", at(2)).await.unwrap();
    store.apply(vec![revision("crm", None)], at(2)).await.unwrap();
    let second = store.create_run(&new_run("crm"), at(3)).await.unwrap();
    let listed = store.runs(None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), [second.id, first.id]);
    assert_eq!(listed[0].books.targets.len(), 2);
    assert_eq!(store.runs(Some(&name("shop")), 10).await.unwrap().len(), 1);
    assert_eq!(store.runs(None, 1).await.unwrap().len(), 1);
    assert_eq!(store.running_runs().await.unwrap(), [second]);
    let unknown = model::RunId::generate();
    assert!(matches!(store.run(unknown).await, Err(Error::NoRun(id)) if id == unknown));
    let mut counted = store.count_runs().await.unwrap();
    counted.sort_by_key(|(state, _)| state.as_str());
    assert_eq!(counted, [(RunState::Running, 1), (RunState::Succeeded, 1)]);
}
