use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use model::RunId;
use store::{Error, NewRun, Range, RunState, Schedule, Skip, Store, Taken, Trigger};

use crate::support::{Database, Stages, at, name, new_run, on_both, revision, started};

on_both! {
    what_is_due_is_taken_by_one_of_many;
    due_times_of_one_cause_share_a_record;
    a_schedule_ends_with_its_pipeline;
    as_many_runs_go_on_at_a_connection_as_may;
    the_order_of_places_is_by_priority_and_then_by_age;
    a_paused_run_goes_on_behind_what_is_loaded;
    a_run_that_has_read_everything_does_not_pause;
    a_paused_run_of_everything_goes_on_at_its_own_cursors;
    a_backfill_leaves_the_cursors_alone;
    a_run_that_waits_can_be_cancelled;
    the_ages_of_changes_are_kept_when_the_run_ends;
    what_reading_cost_is_added_up_over_attempts;
}

fn schedule(handled_until: DateTime<Utc>) -> Schedule {
    Schedule {
        triggers: "every 60000 0".to_owned(),
        anchor_at: at(0),
        handled_until,
        after_seen: BTreeMap::from([(name("other"), at(3))]),
    }
}

fn due(pipeline: &str, due_at: DateTime<Utc>) -> NewRun {
    NewRun {
        trigger: Trigger::Interval,
        due_key: Some(format!("at {due_at}")),
        due_at: Some(due_at),
        ..new_run(pipeline)
    }
}

fn skip(first: i64, last: i64, number: u64, cause: Option<&str>) -> Skip {
    Skip {
        first: at(first),
        last: at(last),
        number,
        reason: "the run before it was still going".to_owned(),
        cause: cause.map(str::to_owned),
    }
}

async fn with_shop(database: &Database) -> Store {
    let store = database.open().await;
    store.apply(vec![revision("shop", None)], at(0)).await.unwrap();
    store
}

async fn what_is_due_is_taken_by_one_of_many(database: Database) {
    let store = with_shop(&database).await;
    let then = schedule(at(1));
    let mut seen: Option<Schedule> = None;
    for minute in 1..=5 {
        let then = Schedule { handled_until: at(minute * 60), ..then.clone() };
        let attempts = (0..4).map(|_| {
            let (store, seen, then) = (store.clone(), seen.clone(), then.clone());
            tokio::spawn(async move {
                let taken = Taken {
                    seen: seen.as_ref(),
                    then: &then,
                    runs: vec![due("shop", at(minute * 60))],
                    skips: Vec::new(),
                };
                store.take_due(&name("shop"), &taken, at(minute * 60)).await
            })
        });
        let mut taken = 0;
        for attempt in futures_joined(attempts).await {
            match attempt {
                Ok(runs) => taken += runs.len(),
                Err(Error::NotDue(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(taken, 1, "minute {minute}");
        seen = Some(then);
    }
    assert_eq!(store.schedules().await.unwrap()[&name("shop")], seen.unwrap());
    let waiting = store.runs_without_a_place().await.unwrap();
    assert_eq!(waiting.len(), 5);
    assert!(waiting.iter().all(|run| run.state == RunState::Waiting && run.due_at.is_some()));
    // A due time that has its run already, such as after the schedule was lost, is left out.
    let now = Schedule { handled_until: at(999), ..then };
    let seen = store.schedules().await.unwrap().remove(&name("shop"));
    let again = Taken {
        seen: seen.as_ref(),
        then: &now,
        runs: vec![due("shop", at(60)), due("shop", at(990))],
        skips: Vec::new(),
    };
    let runs = store.take_due(&name("shop"), &again, at(999)).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.due_at).collect::<Vec<_>>(), [Some(at(990))]);
}

async fn futures_joined<T: Send + 'static>(
    tasks: impl Iterator<Item = tokio::task::JoinHandle<T>>,
) -> Vec<T> {
    let mut outcomes = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        outcomes.push(task.await.unwrap());
    }
    outcomes
}

async fn due_times_of_one_cause_share_a_record(database: Database) {
    let store = with_shop(&database).await;
    let mut seen = None;
    for (second, skip) in [
        (60, skip(60, 60, 1, Some("r1"))),
        (120, skip(61, 120, 7, Some("r1"))),
        (180, skip(130, 130, 1, Some("r2"))),
        (240, skip(200, 230, 3, None)),
        (300, skip(250, 250, 1, None)),
    ] {
        let then = schedule(at(second));
        let taken = Taken {
            seen: seen.as_ref(),
            then: &then,
            runs: Vec::new(),
            skips: vec![(skip, due("shop", at(second)))],
        };
        store.take_due(&name("shop"), &taken, at(second)).await.unwrap();
        seen = Some(then);
    }
    let runs = store.runs(Some(&name("shop")), 10).await.unwrap();
    let found: Vec<_> =
        runs.iter().rev().map(|run| (run.skipped, run.due_at, run.skipped_until)).collect();
    assert_eq!(
        found,
        [
            (8, Some(at(60)), Some(at(120))),
            (1, Some(at(130)), Some(at(130))),
            (3, Some(at(200)), Some(at(230))),
            (1, Some(at(250)), Some(at(250))),
        ]
    );
    assert!(runs.iter().all(|run| run.state == RunState::Skipped && run.ended_at.is_some()));
    assert_eq!(store.last_reading_run(&name("shop")).await.unwrap(), None);
}

async fn a_schedule_ends_with_its_pipeline(database: Database) {
    let store = with_shop(&database).await;
    let then = schedule(at(60));
    let taken =
        Taken { seen: None, then: &then, runs: vec![due("shop", at(60))], skips: Vec::new() };
    let run = store.take_due(&name("shop"), &taken, at(60)).await.unwrap().remove(0);
    store.delete_pipeline(&name("shop"), at(61)).await.unwrap();
    assert!(store.schedules().await.unwrap().is_empty());
    assert_eq!(store.run(run.id).await.unwrap().state, RunState::Cancelled);
}

fn at_connection(pipeline: &str, priority: u8) -> NewRun {
    NewRun { connection: Some(name("crm")), places: Some(2), priority, ..new_run(pipeline) }
}

async fn as_many_runs_go_on_at_a_connection_as_may(database: Database) {
    let store = database.open().await;
    let names = ["a", "b", "c", "d"];
    for pipeline in names {
        store.apply(vec![revision(pipeline, None)], at(0)).await.unwrap();
    }
    let created = names.map(|pipeline| {
        let store = store.clone();
        tokio::spawn(
            async move { store.create_run(&at_connection(pipeline, 5), at(1)).await.unwrap() },
        )
    });
    let created = futures_joined(created.into_iter()).await;
    let going = |state| created.iter().filter(|run| run.state == state).collect::<Vec<_>>();
    assert_eq!(going(RunState::Running).len(), 2);
    let waiting = going(RunState::Waiting);
    assert_eq!(waiting.len(), 2);
    let begin = async |run: &store::Run, second| {
        let new = at_connection(run.pipeline.as_str(), 5);
        store.begin_waiting_run(run.id, &new, at(second)).await
    };
    assert!(
        matches!(begin(waiting[0], 2).await, Err(Error::NoPlace(connection)) if connection == name("crm"))
    );
    let done = going(RunState::Running)[0].id;
    store.end_run(done, RunState::Succeeded, "", "", at(3)).await.unwrap();
    let begun = begin(waiting[0], 4).await.unwrap();
    assert_eq!((begun.state, begun.started_at, begun.attempt), (RunState::Running, at(4), 1));
    assert_eq!(begun.books.targets.len(), 2);
    assert!(matches!(begin(waiting[0], 5).await, Err(Error::NoPlace(_) | Error::NotDue(_))));
    assert!(matches!(begin(waiting[1], 5).await, Err(Error::NoPlace(_))));
}

async fn the_order_of_places_is_by_priority_and_then_by_age(database: Database) {
    let store = database.open().await;
    for pipeline in ["a", "b", "c"] {
        store.apply(vec![revision(pipeline, None)], at(0)).await.unwrap();
    }
    for (pipeline, priority, second) in [("a", 5, 1), ("b", 9, 3), ("c", 5, 2)] {
        let new = NewRun { priority, ..due(pipeline, at(second)) };
        store.create_waiting_run(&new, at(10)).await.unwrap();
        let again = store.create_waiting_run(&new, at(10)).await;
        assert!(matches!(again, Err(Error::NotDue(_))), "{again:?}");
    }
    let order = store.runs_without_a_place().await.unwrap();
    let order: Vec<&str> = order.iter().map(|run| run.pipeline.as_str()).collect();
    assert_eq!(order, ["b", "a", "c"]);
}

async fn resumed(store: &Store, run: RunId, second: i64) -> store::HandedOut {
    store.resume_run(run, None, at(second)).await.unwrap().unwrap()
}

async fn a_paused_run_goes_on_behind_what_is_loaded(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    store.record(vec![stages.planned(&["p"], 99)], at(2)).await.unwrap();
    store.record(stages.batch(0, 0), at(3)).await.unwrap();
    store.record(vec![stages.extracted(0, 1)], at(4)).await.unwrap();
    let paused = store.pause_run(run.id, "its window has ended", at(5)).await.unwrap().unwrap();
    assert_eq!((paused.state, paused.active_ms), (RunState::Paused, 4_000));
    assert_eq!(store.pause_run(run.id, "", at(6)).await.unwrap(), None);
    // It keeps its place among the runs of its pipeline, and what is on its way still counts.
    let other = store.create_run(&new_run("shop"), at(6)).await;
    assert!(matches!(other, Err(Error::StillRunning { .. })));
    let mut late = stages.batch(0, 1);
    late.remove(0);
    store.record(late, at(7)).await.unwrap();
    store.record(vec![stages.extracted(0, 2)], at(7)).await.unwrap();
    let settled = store.settle_run(run.id, at(8)).await.unwrap();
    assert_eq!((settled.state, settled.books.extracted), (RunState::Paused, 30));

    let again = resumed(&store, run.id, 9).await;
    assert_eq!((again.run.state, again.run.attempt, again.full), (RunState::Running, 2, false));
    assert_eq!(again.run.active_since, Some(at(9)));
    let cursors: Vec<_> = again.cursors.iter().map(|at| at.cursor.as_str()).collect();
    assert_eq!(cursors, ["c2"]);
    // The batch that was not loaded is read again.
    assert_eq!(again.run.books.extracted, 20);
    assert!(matches!(store.resume_run(run.id, None, at(9)).await, Err(Error::NotDue(_))));
    let stages = Stages { run: run.id, attempt: 2 };
    store.record(vec![stages.planned(&["p"], 199)], at(10)).await.unwrap();
    let mut rest = stages.batch(0, 0);
    rest.push(stages.part_ended(0, 1));
    store.record(rest, at(11)).await.unwrap();
    let done = store.settle_run(run.id, at(12)).await.unwrap();
    assert!(done.books.balanced);
    assert_eq!(done.books.extracted, 30);
}

async fn a_run_that_has_read_everything_does_not_pause(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    let entries = vec![stages.planned(&["p"], 99), stages.extracted(0, 0), stages.part_ended(0, 1)];
    store.record(entries, at(2)).await.unwrap();
    assert_eq!(store.pause_run(run.id, "", at(3)).await.unwrap(), None);
    assert_eq!(store.run(run.id).await.unwrap().state, RunState::Running);
}

async fn a_paused_run_of_everything_goes_on_at_its_own_cursors(database: Database) {
    let (store, first) = started(&database).await;
    let stages = Stages { run: first.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["p", "q"], 99)];
    for part in [0, 1] {
        entries.extend(stages.batch(part, 0));
        entries.push(stages.part_ended(part, 1));
    }
    store.record(entries, at(2)).await.unwrap();
    store.end_run(first.id, RunState::Succeeded, "", "", at(3)).await.unwrap();

    let new = NewRun { full: true, ..new_run("shop") };
    let run = store.create_run(&new, at(4)).await.unwrap();
    let stages = Stages { run: run.id, attempt: 1 };
    store.record(vec![stages.planned(&["p", "q"], 199)], at(5)).await.unwrap();
    store.record(stages.batch(0, 0), at(6)).await.unwrap();
    store.pause_run(run.id, "", at(7)).await.unwrap().unwrap();
    let again = resumed(&store, run.id, 8).await;
    // The other part stands at the end of the run before, which says nothing about this one.
    let cursors: Vec<_> =
        again.cursors.iter().map(|at| (at.part.as_str(), at.cursor.as_str())).collect();
    assert_eq!((cursors.as_slice(), again.full), ([("p", "c1")].as_slice(), false));
    assert_eq!(again.run.books.extracted, 10);
}

async fn a_backfill_leaves_the_cursors_alone(database: Database) {
    let (store, first) = started(&database).await;
    let stages = Stages { run: first.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["p"], 99), stages.part_ended(0, 1)];
    entries.extend(stages.batch(0, 0));
    store.record(entries, at(2)).await.unwrap();
    store.end_run(first.id, RunState::Succeeded, "", "", at(3)).await.unwrap();
    let before = store.loaded_cursors(&name("shop")).await.unwrap();
    assert_eq!(before.len(), 1);

    let range = Range { from: Some("1997-01-01".to_owned()), to: None };
    let new = NewRun {
        trigger: Trigger::Backfill,
        range: Some(range.clone()),
        parameters: BTreeMap::from([("region".to_owned(), "eu".to_owned())]),
        ..new_run("shop")
    };
    let run = store.create_run(&new, at(4)).await.unwrap();
    assert_eq!((run.range.as_ref(), run.parameters["region"].as_str()), (Some(&range), "eu"));
    let stages = Stages { run: run.id, attempt: 1 };
    store.record(vec![stages.planned(&["p"], 199)], at(5)).await.unwrap();
    store.record(stages.batch(0, 0), at(6)).await.unwrap();
    store.settle_run(run.id, at(6)).await.unwrap();
    store.pause_run(run.id, "", at(7)).await.unwrap().unwrap();
    let again = resumed(&store, run.id, 8).await;
    assert_eq!(again.cursors[0].cursor, "c1");
    // Lost work of a range is read from the beginning of the range.
    let lost = store.hand_out_again(&again.run, at(9)).await.unwrap().unwrap();
    assert!(lost.cursors.is_empty() && lost.run.books.extracted == 0);
    let stages = Stages { run: run.id, attempt: 3 };
    let mut entries = vec![stages.planned(&["p"], 299), stages.part_ended(0, 1)];
    entries.extend(stages.batch(0, 0));
    store.record(entries, at(10)).await.unwrap();
    assert!(store.settle_run(run.id, at(11)).await.unwrap().books.balanced);
    store.end_run(run.id, RunState::Succeeded, "", "", at(12)).await.unwrap();
    assert_eq!(store.loaded_cursors(&name("shop")).await.unwrap(), before);
}

async fn a_run_that_waits_can_be_cancelled(database: Database) {
    let store = with_shop(&database).await;
    let run = store.create_waiting_run(&due("shop", at(1)), at(2)).await.unwrap();
    store.tell_why_it_waits(run.id, "no place").await.unwrap();
    assert_eq!(store.run(run.id).await.unwrap().reason, "no place");
    store.end_run(run.id, RunState::Cancelled, "why", "", at(3)).await.unwrap();
    let begun = store.begin_waiting_run(run.id, &new_run("shop"), at(4)).await;
    assert!(matches!(begun, Err(Error::NotDue(_))), "{begun:?}");
    // It stands in nobody's way.
    store.create_run(&new_run("shop"), at(5)).await.unwrap();
    assert!(store.last_success(&name("shop")).await.unwrap().is_none());
}

async fn what_reading_cost_is_added_up_over_attempts(database: Database) {
    use wire::ledger::{PartPaused, Usage, ledger_entry::Event};

    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    store.record(vec![stages.planned(&["p"], 99)], at(2)).await.unwrap();
    store.record(stages.batch(0, 0), at(3)).await.unwrap();
    store.pause_run(run.id, "", at(4)).await.unwrap().unwrap();
    let usage = |calls| {
        Some(Usage { calls, received_bytes: 1_000 * calls, slowed_ms: 5, ..Usage::default() })
    };
    let paused = stages.entry(Event::PartPaused(PartPaused { part: 0, usage: usage(3) }));
    store.record(vec![paused.clone(), paused], at(5)).await.unwrap();
    resumed(&store, run.id, 6).await;
    let stages = Stages { run: run.id, attempt: 2 };
    let mut end = stages.part_ended(0, 0);
    if let Some(Event::PartExtracted(end)) = &mut end.event {
        end.usage = usage(4);
    }
    store.record(vec![stages.planned(&["p"], 199), end], at(7)).await.unwrap();
    store.settle_run(run.id, at(8)).await.unwrap();
    let ended = store.end_run(run.id, RunState::Succeeded, "", "", at(9)).await.unwrap();
    assert_eq!(
        (ended.usage.calls, ended.usage.received_bytes, ended.usage.slowed_ms),
        (7, 7_000, 10)
    );
}

async fn the_ages_of_changes_are_kept_when_the_run_ends(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    store.record(vec![stages.planned(&["p"], 99)], at(2)).await.unwrap();
    for sequence in 0..3 {
        store.record(stages.batch(0, sequence), at(3)).await.unwrap();
        store.record(stages.batch(0, sequence), at(3)).await.unwrap();
    }
    let ended = store.end_run(run.id, RunState::Succeeded, "", "", at(9)).await.unwrap();
    // Three of each batch in each of two targets.
    assert_eq!(ended.ages.classes().collect::<Vec<_>>(), [(40, 18)]);
}
