//! Whatever the order in which records come: the row is what they say in the order of their versions.

use std::collections::BTreeMap;

use model::{Batch, Operation};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use spec::Deletes;

use crate::support::{Db, Wanted, at, for_each_database, write};

for_each_database!(
    a_late_patch_of_another_field_counts,
    a_late_record_fills_what_patches_left,
    a_late_delete_leaves_what_was_patched_later,
    a_patch_after_a_delete_begins_anew,
    versions_of_fields_are_forgotten_when_a_whole_record_comes,
    any_order_gives_the_same_rows,
);

const FIELDS: [&str; 3] = ["a", "b", "c"];

/// A record of one key.
#[derive(Debug, Clone)]
struct Event {
    key: i64,
    version: i64,
    operation: Operation,
    /// What a patch leaves alone is absent.
    values: [Option<String>; 3],
}

fn patch(key: i64, version: i64, values: [Option<&str>; 3]) -> Event {
    let values = values.map(|value| value.map(str::to_owned));
    Event { key, version, operation: Operation::Patch, values }
}

fn whole(key: i64, version: i64, value: &str) -> Event {
    let values = [(); 3].map(|()| Some(value.to_owned()));
    Event { key, version, operation: Operation::Upsert, values }
}

fn delete(key: i64, version: i64) -> Event {
    Event { key, version, operation: Operation::Delete, values: [None, None, None] }
}

fn batch(base: i64, events: &[Event]) -> Batch {
    let mut made = at(base).ids(events.iter().map(|event| event.key));
    for (index, name) in FIELDS.into_iter().enumerate() {
        let values: Vec<_> =
            events.iter().map(|event| event.values[index].as_deref().unwrap_or("")).collect();
        let present: Vec<_> = events.iter().map(|event| event.values[index].is_some()).collect();
        made = made.text(name, values).present(&present);
    }
    let versions: Vec<_> = events.iter().map(|event| event.version).collect();
    let operations: Vec<_> = events.iter().map(|event| event.operation).collect();
    made.versions(&versions).operations(&operations).batch()
}

/// Writes one record after the other, each as a batch of its own.
async fn bring(target: &dyn connect::Target, events: &[Event]) -> Vec<u32> {
    let mut loaded = Vec::new();
    for event in events {
        let one = batch(event.version, std::slice::from_ref(event));
        let written = target.write(&[one]).await.unwrap_or_else(|e| panic!("{}", e.chain()));
        assert!(written[0].refused.is_empty());
        loaded.push(written[0].loaded);
    }
    loaded
}

async fn rows(database: &Db, wanted: &Wanted) -> Vec<String> {
    let live = if wanted.deletes == Deletes::Soft { " where _deleted_at is null" } else { "" };
    database.sql(&format!("select id, a, b, c, _version from t{live} order by id")).await
}

async fn a_late_patch_of_another_field_counts(database: Db) {
    let wanted = Wanted::default();
    let target = database.target(&wanted);
    bring(&*target, &[whole(1, 10, "old")]).await;
    let late = [
        patch(1, 30, [Some("a30"), None, None]),
        patch(1, 20, [Some("a20"), Some("b20"), None]),
        patch(1, 20, [Some("a20"), Some("b20"), None]),
        patch(1, 5, [None, None, Some("c5")]),
    ];
    assert_eq!(bring(&*target, &late).await, [1, 1, 0, 0]);
    assert_eq!(rows(&database, &wanted).await, ["1|a30|b20|old|30"]);
}

async fn a_late_record_fills_what_patches_left(database: Db) {
    let wanted = Wanted::default();
    let target = database.target(&wanted);
    let late = [
        patch(1, 30, [Some("a30"), None, None]),
        whole(1, 10, "w10"),
        whole(1, 20, "w20"),
        whole(1, 15, "w15"),
    ];
    assert_eq!(bring(&*target, &late).await, [1, 1, 1, 0]);
    assert_eq!(rows(&database, &wanted).await, ["1|a30|w20|w20|30"]);
}

async fn a_late_delete_leaves_what_was_patched_later(database: Db) {
    for deletes in [Deletes::Hard, Deletes::Soft] {
        database.sql("drop table if exists t; drop table if exists _tributary_patches_t").await;
        database.sql("drop table if exists _tributary_deleted_t").await;
        let wanted = Wanted { deletes, ..Wanted::default() };
        let target = database.target(&wanted);
        let late = [
            whole(1, 10, "w10"),
            patch(1, 30, [Some("a30"), None, None]),
            delete(1, 20),
            whole(1, 15, "w15"),
        ];
        assert_eq!(bring(&*target, &late).await, [1, 1, 1, 0]);
        assert_eq!(rows(&database, &wanted).await, ["1|a30|||30"], "{deletes:?}");
        assert_eq!(bring(&*target, &[delete(1, 40), whole(1, 35, "w35")]).await, [1, 0]);
        assert!(rows(&database, &wanted).await.is_empty());
    }
}

async fn a_patch_after_a_delete_begins_anew(database: Db) {
    let wanted = Wanted { deletes: Deletes::Soft, ..Wanted::default() };
    let target = database.target(&wanted);
    let events = [whole(1, 10, "w10"), delete(1, 20), patch(1, 30, [None, Some("b30"), None])];
    assert_eq!(bring(&*target, &events).await, [1, 1, 1]);
    assert_eq!(rows(&database, &wanted).await, ["1||b30||30"]);
}

async fn versions_of_fields_are_forgotten_when_a_whole_record_comes(database: Db) {
    let wanted = Wanted::default();
    let target = database.target(&wanted);
    let count = "select count(*) from _tributary_patches_t";
    bring(&*target, &[whole(1, 10, "w10"), patch(1, 20, [Some("a20"), None, None])]).await;
    assert_eq!(database.sql(count).await, ["2"]);
    bring(&*target, &[whole(1, 30, "w30"), patch(2, 20, [None, None, Some("c20")])]).await;
    assert_eq!(database.sql(count).await, ["2"]);
    bring(&*target, &[delete(2, 30)]).await;
    assert_eq!(database.sql(count).await, ["0"]);
    // Another process finds out by itself that there are versions of fields.
    let other = database.target(&wanted);
    write(&*other, at(40).ids([3]).text("a", ["x"]).text("b", ["y"]).text("c", ["z"])).await;
    bring(&*target, &[patch(3, 60, [Some("a60"), None, None])]).await;
    write(&*other, at(50).ids([3]).text("a", ["p"]).text("b", ["q"]).text("c", ["r"])).await;
    assert_eq!(rows(&database, &wanted).await, ["1|w30|w30|w30|30", "3|a60|q|r|60"]);
}

/// What the rows have to be: the events one by one, in the order of their versions.
fn expected(events: &[Event]) -> Vec<String> {
    let mut sorted = events.to_vec();
    sorted.sort_by_key(|event| event.version);
    let mut rows: BTreeMap<i64, ([Option<String>; 3], i64)> = BTreeMap::new();
    for event in sorted {
        if event.operation == Operation::Delete {
            rows.remove(&event.key);
            continue;
        }
        let (row, version) = rows.entry(event.key).or_default();
        *version = event.version;
        for (kept, value) in row.iter_mut().zip(event.values) {
            *kept = value.or(kept.take());
        }
    }
    rows.into_iter()
        .map(|(key, (row, version))| {
            let [a, b, c] = row.map(Option::unwrap_or_default);
            format!("{key}|{a}|{b}|{c}|{version}")
        })
        .collect()
}

fn history(random: &mut StdRng) -> Vec<Event> {
    (1..=14)
        .map(|version| {
            let key = random.random_range(1..=2);
            match random.random_range(0..10) {
                0..3 => whole(key, version, &format!("w{version}")),
                3 => delete(key, version),
                _ => {
                    let first = random.random_range(0..3);
                    let values = [0, 1, 2].map(|index| {
                        let carried = index == first || random.random_bool(0.3);
                        carried.then(|| format!("p{version}"))
                    });
                    patch(key, version, values.each_ref().map(Option::as_deref))
                }
            }
        })
        .collect()
}

async fn any_order_gives_the_same_rows(database: Db) {
    let seed = std::env::var("TRIBUTARY_TEST_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    eprintln!("TRIBUTARY_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..24 {
        let deletes = if round % 2 == 0 { Deletes::Hard } else { Deletes::Soft };
        let newest_by = (round % 4 < 2).then(|| "v".to_owned());
        let mut events = history(&mut random);
        let expected = expected(&events);
        for event in events.clone() {
            if random.random_bool(0.3) {
                events.push(event);
            }
        }
        for order in 0..3 {
            if order > 0 {
                events.shuffle(&mut random);
            }
            for table in ["t", "_tributary_patches_t", "_tributary_deleted_t"] {
                database.sql(&format!("drop table if exists {table}")).await;
            }
            let batches_have_one = newest_by.is_none();
            let wanted = Wanted { deletes, newest_by: newest_by.clone(), ..Wanted::default() };
            let target = database.target(&wanted);
            let mut left = &events[..];
            while !left.is_empty() {
                // Batches of one write, which have to be accounted for each by itself.
                let mut batches = Vec::new();
                for _ in 0..random.random_range(1..=3) {
                    let most = if batches_have_one { 1 } else { 4 };
                    let size = random.random_range(1..=most).min(left.len());
                    let (now, later) = left.split_at(size);
                    left = later;
                    if let Some(first) = now.first() {
                        batches.push(batch(first.version, now));
                    }
                }
                let written =
                    target.write(&batches).await.unwrap_or_else(|e| panic!("{}", e.chain()));
                for (batch, written) in batches.iter().zip(&written) {
                    let count = written.loaded as usize + written.unchanged as usize;
                    assert_eq!(count, batch.records.len());
                    assert!(written.refused.is_empty());
                }
            }
            let found = rows(&database, &wanted).await;
            assert_eq!(
                found,
                expected,
                "round {round}, order {order}: {wanted_by:?} {events:#?}",
                wanted_by = (deletes, &newest_by)
            );
        }
    }
}
