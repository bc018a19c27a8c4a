use crate::support::{Database, Stages, at, on_both, started};

on_both! {
    of_two_extractions_of_one_part_one_counts;
}

/// The first extractor died behind its third batch. The second went on from the first batch and
/// found a changed table, so it cut other batches.
async fn of_two_extractions_of_one_part_one_counts(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    let done = |batch: &str| {
        vec![stages.transformed(batch), stages.loaded(batch, "store"), stages.loaded(batch, "copy")]
    };
    let mut entries = vec![stages.planned(&["a"], 9)];
    entries.push(stages.extracted_as("a0", 0, 0, "", "1"));
    entries.push(stages.extracted_as("a1", 0, 1, "1", "2"));
    entries.push(stages.extracted_as("a2", 0, 2, "2", "3"));
    for batch in ["a0", "a1", "a2"] {
        entries.extend(done(batch));
    }
    store.record(entries, at(2)).await.unwrap();
    assert_eq!(store.settle_run(run.id, at(2)).await.unwrap().books.extracted, 30);

    let mut entries = vec![
        stages.extracted_as("b1", 0, 1, "1", "2x"),
        stages.extracted_as("b2", 0, 2, "2x", "3x"),
        stages.extracted_as("b3", 0, 3, "3x", "end"),
    ];
    entries.extend(done("b1"));
    entries.extend(done("b3"));
    store.record(entries, at(3)).await.unwrap();
    // Until the end is known, nobody knows which of them counts, and each place counts once.
    let books = store.settle_run(run.id, at(3)).await.unwrap().books;
    assert_eq!(books.extracted, 40);

    store.record(vec![stages.part_ended(0, 4)], at(4)).await.unwrap();
    let books = store.settle_run(run.id, at(4)).await.unwrap().books;
    assert_eq!((books.extracted, books.balanced), (40, false));
    store.record(done("b2"), at(5)).await.unwrap();
    let books = store.settle_run(run.id, at(5)).await.unwrap().books;
    assert_eq!((books.extracted, books.targets[0].loaded, books.balanced), (40, 12, true));
}
