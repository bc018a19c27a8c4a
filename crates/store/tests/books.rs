use store::{Recorded, RunState};
use wire::ledger::{Noted, RunStopped, ledger_entry::Event};

use crate::support::{Database, Stages, at, name, on_both, started};

on_both! {
    entries_count_once_in_any_order;
    a_missing_entry_keeps_the_books_open;
    the_loaded_cursor_stops_at_a_hole;
    a_later_part_waits_for_the_earlier_ones;
    what_was_lost_is_voided_and_counted_anew;
    a_full_run_starts_over_after_a_loss;
    what_was_told_in_the_last_moment_is_not_lost;
    a_stopped_run_keeps_its_reason_and_its_books;
    entries_of_nobody_are_counted;
    two_schedulers_share_one_ledger;
    nothing_extracted_is_balanced;
}

async fn entries_count_once_in_any_order(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["a", "b"], 9), stages.part_ended(0, 3)];
    entries.extend((0..3).flat_map(|sequence| stages.batch(0, sequence)));
    entries.extend(stages.batch(1, 0));
    entries.push(stages.part_ended(1, 1));
    // Last things first, each alone and then all again.
    for entry in entries.iter().rev() {
        store.record(vec![entry.clone()], at(2)).await.unwrap();
    }
    let settled = store.settle_run(run.id, at(3)).await.unwrap();
    let repeated = store.record(entries.clone(), at(4)).await.unwrap();
    assert_eq!(repeated, Recorded::default());
    assert_eq!(store.settle_run(run.id, at(5)).await.unwrap(), settled);

    let books = settled.books;
    assert_eq!((books.extracted, books.batches, books.batches_transformed), (40, 4, 4));
    assert_eq!((books.filtered, books.quarantined), (8, 8));
    for target in &books.targets {
        assert_eq!((target.loaded, target.unchanged, target.quarantined), (12, 8, 4));
        assert_eq!(target.missing, 0);
    }
    assert!(books.extraction_ended && books.balanced);
    let cursors = store.loaded_cursors(&name("shop")).await.unwrap();
    let cursors: Vec<_> = cursors.iter().map(|c| (c.part.as_str(), c.cursor.as_str())).collect();
    assert_eq!(cursors, [("a", "end"), ("b", "end")]);
}

async fn a_missing_entry_keeps_the_books_open(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    let mut complete = vec![stages.planned(&["a"], 9), stages.part_ended(0, 2)];
    complete.extend((0..2).flat_map(|sequence| stages.batch(0, sequence)));
    for missing in 0..complete.len() {
        let database = if database.address.starts_with("sqlite") {
            Database::sqlite()
        } else {
            Database::postgres().await
        };
        let (store, run) = started(&database).await;
        let mut entries = complete.clone();
        entries.remove(missing);
        for entry in &mut entries {
            entry.run = run.id.to_string();
        }
        store.record(entries, at(2)).await.unwrap();
        let books = store.settle_run(run.id, at(3)).await.unwrap().books;
        assert!(!books.balanced, "without entry {missing}");
        store.close().await;
    }
    store.record(complete, at(2)).await.unwrap();
    assert!(store.settle_run(run.id, at(3)).await.unwrap().books.balanced);
}

async fn the_loaded_cursor_stops_at_a_hole(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["a"], 9)];
    entries.extend(stages.batch(0, 0));
    entries.extend(stages.batch(0, 1));
    entries.extend(stages.batch(0, 3));
    // One target is not done with the third batch.
    entries.extend(stages.batch(0, 2).into_iter().take(3));
    store.record(entries, at(2)).await.unwrap();
    store.settle_run(run.id, at(3)).await.unwrap();
    let cursors = store.loaded_cursors(&name("shop")).await.unwrap();
    assert_eq!(cursors[0].cursor, "c2");
    store.record(stages.batch(0, 2), at(4)).await.unwrap();
    let settled = store.settle_run(run.id, at(5)).await.unwrap();
    assert_eq!(store.loaded_cursors(&name("shop")).await.unwrap()[0].cursor, "c4");
    assert!(!settled.books.extraction_ended);
}

async fn a_later_part_waits_for_the_earlier_ones(database: Database) {
    let (store, run) = started(&database).await;
    let first = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![first.planned(&["a", "b"], 9)];
    // The later part is loaded to its end, the earlier one is not.
    entries.extend(first.batch(0, 0));
    entries.extend(first.batch(1, 0));
    entries.extend([first.part_ended(0, 2), first.part_ended(1, 1)]);
    store.record(entries, at(2)).await.unwrap();
    let seen = store.settle_run(run.id, at(3)).await.unwrap();
    let again = store.hand_out_again(&seen, at(9)).await.unwrap().unwrap();
    let cursors: Vec<_> = again.cursors.iter().map(|c| (&*c.part, &*c.cursor)).collect();
    // So both are read again, and the later part's records stay the newer ones.
    assert_eq!(cursors, [("a", "c1")]);
    assert_eq!(again.run.books.extracted, 10);
}

async fn what_was_lost_is_voided_and_counted_anew(database: Database) {
    let (store, run) = started(&database).await;
    let first = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![first.planned(&["a", "b"], 5_000_000_000_000_000)];
    entries.extend(first.batch(0, 0));
    // The second batch reached one target, the third both, and then everything was lost.
    entries.extend(first.batch(0, 1).into_iter().take(3));
    entries.extend(first.batch(0, 2));
    store.record(entries, at(2)).await.unwrap();
    let seen = store.settle_run(run.id, at(3)).await.unwrap();

    let again = store.hand_out_again(&seen, at(9)).await.unwrap().unwrap();
    assert_eq!(again.run.attempt, 2);
    assert_eq!(again.cursors.len(), 1);
    assert_eq!(again.cursors[0].cursor, "c1");
    // Later than all that the first attempt gave to a record.
    assert_eq!(again.run.attempt_base, 5_000_000_000_000_001);
    assert_eq!(again.run.extraction_base, run.extraction_base);
    assert_eq!(again.run.books.extracted, 10);
    // Somebody who saw the same is too late.
    assert_eq!(store.hand_out_again(&seen, at(9)).await.unwrap(), None);

    // What was on its way all the time does not count any more, also when it comes only now.
    let mut late = first.batch(0, 1);
    late.extend(first.batch(0, 3));
    late.push(first.part_ended(0, 4));
    store.record(late, at(10)).await.unwrap();
    assert_eq!(store.settle_run(run.id, at(10)).await.unwrap().books.extracted, 10);

    let second = Stages { run: run.id, attempt: 2 };
    let mut entries = vec![second.planned(&["a", "b"], 6_000_000_000_000_000)];
    // The same range, cut as before and otherwise.
    entries.extend(second.batch(0, 0).into_iter().map(|mut entry| {
        if let Some(Event::BatchExtracted(batch)) = &mut entry.event {
            batch.cursor_before = "c1".to_owned();
        }
        entry
    }));
    entries.extend(second.batch(1, 0));
    entries.extend([second.part_ended(0, 1), second.part_ended(1, 1)]);
    store.record(entries, at(11)).await.unwrap();
    let books = store.settle_run(run.id, at(12)).await.unwrap().books;
    assert_eq!((books.extracted, books.batches), (30, 3));
    assert!(books.balanced, "{books:?}");
    assert_eq!(books.targets[0].loaded, 9);
}

async fn what_was_told_in_the_last_moment_is_not_lost(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["a"], 9), stages.part_ended(0, 3)];
    entries.extend(stages.batch(0, 0));
    store.record(entries, at(2)).await.unwrap();
    let why =
        |run: &store::Run| (format!("{} missing", run.books.targets[0].missing), String::new());
    let seen = store.settle_run(run.id, at(3)).await.unwrap();
    store.record(stages.batch(0, 1), at(4)).await.unwrap();
    assert_eq!(store.end_lost(&seen, why, at(5)).await.unwrap(), None, "it moves");
    let seen = store.run(run.id).await.unwrap();
    store.record(vec![stages.extracted(0, 2)], at(6)).await.unwrap();
    let seen = store::Run { last_progress_at: at(6), ..seen };
    let lost = store.end_lost(&seen, why, at(7)).await.unwrap().unwrap();
    assert_eq!((lost.state, lost.ended_at), (RunState::Failed, Some(at(7))));
    assert_ne!(lost.reason, "0 missing", "it is counted anew");
    assert_eq!(store.end_lost(&seen, why, at(8)).await.unwrap(), None, "it has ended");

    let run = store.create_run(&crate::support::new_run("shop"), at(10)).await.unwrap();
    let stages = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["a"], 9), stages.part_ended(0, 1)];
    entries.extend(stages.batch(0, 0));
    store.record(entries, at(12)).await.unwrap();
    let seen = store::Run { last_progress_at: at(12), ..run };
    assert_eq!(store.end_lost(&seen, why, at(13)).await.unwrap(), None, "its books balance");
}

async fn a_full_run_starts_over_after_a_loss(database: Database) {
    let store = database.open().await;
    store.apply(vec![crate::support::revision("shop", None)], at(0)).await.unwrap();
    let new = store::NewRun { full: true, ..crate::support::new_run("shop") };
    let run = store.create_run(&new, at(1)).await.unwrap();
    let stages = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["a"], 9)];
    entries.extend(stages.batch(0, 0));
    store.record(entries, at(2)).await.unwrap();
    let seen = store.settle_run(run.id, at(3)).await.unwrap();
    assert_eq!(seen.books.extracted, 10);
    let again = store.hand_out_again(&seen, at(9)).await.unwrap().unwrap();
    assert_eq!((again.run.books.extracted, again.cursors.len()), (0, 0));
}

async fn a_stopped_run_keeps_its_reason_and_its_books(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["a"], 9)];
    entries.extend(stages.batch(0, 0));
    let note = |text: &str| {
        let (stage, text) = ("extractor".to_owned(), text.to_owned());
        stages.entry(Event::Noted(Noted { stage, text }))
    };
    entries.extend([note("a new field"), note("a new field"), note("another")]);
    entries.push(stages.entry(Event::RunStopped(RunStopped {
        stage: "extractor".to_owned(),
        reason: "a column is gone".to_owned(),
        hint: "accept it".to_owned(),
    })));
    let recorded = store.record(entries, at(2)).await.unwrap();
    assert_eq!(recorded.stopped, [run.id]);
    let run = store.run(run.id).await.unwrap();
    assert_eq!((run.state, run.ended_at), (RunState::Failed, Some(at(2))));
    assert_eq!((run.reason.as_str(), run.hint.as_str()), ("a column is gone", "accept it"));
    assert_eq!((run.books.extracted, run.books.targets[1].loaded), (10, 3));
    assert_eq!(store.notes(run.id).await.unwrap().len(), 2);
    // What comes later changes nothing, and the next run goes on from what is loaded.
    assert_eq!(store.record(stages.batch(0, 1), at(3)).await.unwrap(), Recorded::default());
    assert_eq!(store.settle_run(run.id, at(4)).await.unwrap(), run);
    assert_eq!(store.loaded_cursors(&name("shop")).await.unwrap()[0].cursor, "c1");
}

async fn entries_of_nobody_are_counted(database: Database) {
    let (store, run) = started(&database).await;
    let stranger = Stages { run: model::RunId::generate(), attempt: 1 };
    let mut entries = stranger.batch(0, 0);
    entries[0].run = "nonsense".to_owned();
    entries.extend(Stages { run: run.id, attempt: 1 }.batch(0, 0));
    let recorded = store.record(entries, at(2)).await.unwrap();
    assert_eq!((recorded.unknown, recorded.changed), (4, vec![run.id]));
}

async fn two_schedulers_share_one_ledger(database: Database) {
    let (store, run) = started(&database).await;
    let other = database.open().await;
    let stages = Stages { run: run.id, attempt: 1 };
    let mut entries = vec![stages.planned(&["a"], 9), stages.part_ended(0, 200)];
    entries.extend((0..200).flat_map(|sequence| stages.batch(0, sequence)));
    // Both get most of it, in another order.
    let (mut forward, mut backward) = (entries.clone(), entries);
    backward.reverse();
    let work = |store: store::Store, entries: Vec<_>| async move {
        for entries in entries.chunks(37) {
            loop {
                match store.record(entries.to_vec(), at(2)).await {
                    Ok(_) => break,
                    Err(error) => assert_eq!(error.remedy(), model::Remedy::RETRY, "{error:?}"),
                }
            }
            store.settle_run(run.id, at(3)).await.unwrap();
        }
    };
    forward.truncate(600);
    let one = tokio::spawn(work(store.clone(), forward));
    let two = tokio::spawn(work(other, backward));
    one.await.unwrap();
    two.await.unwrap();
    let books = store.settle_run(run.id, at(4)).await.unwrap().books;
    assert_eq!((books.extracted, books.targets[0].loaded, books.balanced), (2_000, 600, true));
}

async fn nothing_extracted_is_balanced(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    assert!(!store.settle_run(run.id, at(2)).await.unwrap().books.balanced);
    store.record(vec![stages.planned(&[], 9)], at(2)).await.unwrap();
    assert!(store.settle_run(run.id, at(3)).await.unwrap().books.balanced);
}
