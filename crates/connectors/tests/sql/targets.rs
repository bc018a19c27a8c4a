use std::{sync::Arc, time::Duration};

use connect::Sweep;
use model::{Contract, FieldType, Operation, RunId, TablePolicy, TypePolicy};
use spec::{Deletes, Mode};
use tokio::time::sleep;

use crate::support::{Db, Wanted, at, field, for_each_database, ints, texts, write};

for_each_database!(
    a_batch_written_twice_changes_nothing,
    an_older_batch_that_comes_later_changes_nothing,
    equal_values_raise_the_version_but_count_as_unchanged,
    the_newest_of_a_key_within_a_call_wins,
    an_empty_batch_is_nothing,
    two_writers_agree_on_overlapping_keys,
    bad_rows_are_refused_alone,
    many_bad_rows_are_refused_alone,
    absent_fields_do_not_overwrite,
    patches_of_one_key_add_up,
    a_hard_delete_is_not_undone_by_an_older_record,
    a_delete_of_an_unknown_key_keeps_older_records_out,
    a_soft_delete_marks_and_a_newer_record_revives,
    ignored_deletes_do_nothing,
    append_takes_every_record_once,
    a_snapshot_removes_what_the_run_did_not_see,
    a_sweep_needs_a_confirmation_for_a_great_loss,
    a_swept_row_is_not_brought_back_by_an_older_run,
    newest_by_decides_and_equal_records_are_not_written,
    new_fields_become_columns_and_types_widen,
    a_type_that_does_not_fit_is_refused,
    hostile_names_are_only_names,
    a_name_that_cannot_be_kept_stops,
    a_table_without_a_unique_key_stops,
    a_frozen_table_is_not_created,
    a_table_of_the_user_gets_our_columns,
    audit_columns_tell_where_a_row_comes_from,
    several_batches_are_counted_apart,
    the_plan_says_exactly_what_will_happen,
    a_check_reaches_the_database,
);

async fn rows(database: &Db) -> Vec<String> {
    database.sql("select id, x from t order by id").await
}

async fn a_batch_written_twice_changes_nothing(database: Db) {
    let target = database.target(&Wanted::default());
    let make = || at(100).ids([1, 2, 3]).text("x", ["a", "b", "c"]);
    assert_eq!(write(&*target, make()).await, (3, 0, vec![]));
    assert_eq!(write(&*target, make()).await, (0, 3, vec![]));
    let other_process = database.target(&Wanted::default());
    assert_eq!(write(&*other_process, make()).await, (0, 3, vec![]));
    assert_eq!(rows(&database).await, ["1|a", "2|b", "3|c"]);
}

async fn an_older_batch_that_comes_later_changes_nothing(database: Db) {
    let target = database.target(&Wanted::default());
    write(&*target, at(200).ids([1, 2]).text("x", ["new", "new"])).await;
    let old = at(100).ids([1, 2, 3]).text("x", ["old", "old", "old"]);
    assert_eq!(write(&*target, old).await, (1, 2, vec![]));
    assert_eq!(rows(&database).await, ["1|new", "2|new", "3|old"]);
}

async fn equal_values_raise_the_version_but_count_as_unchanged(database: Db) {
    let target = database.target(&Wanted::default());
    write(&*target, at(100).ids([1]).text("x", ["a"])).await;
    assert_eq!(write(&*target, at(300).ids([1]).text("x", ["a"])).await, (0, 1, vec![]));
    // Between the two there was another value, which comes late.
    assert_eq!(write(&*target, at(200).ids([1]).text("x", ["b"])).await, (0, 1, vec![]));
    assert_eq!(rows(&database).await, ["1|a"]);
}

async fn the_newest_of_a_key_within_a_call_wins(database: Db) {
    let target = database.target(&Wanted::default());
    let make = at(100).ids([2, 1, 2, 1]).text("x", ["a", "b", "c", "d"]);
    assert_eq!(write(&*target, make).await, (2, 2, vec![]));
    assert_eq!(rows(&database).await, ["1|d", "2|c"]);
    let newer = at(300).ids([1]).text("x", ["newest"]).batch();
    let older = at(200).ids([1]).text("x", ["older"]).batch();
    target.write(&[newer, older]).await.unwrap();
    assert_eq!(rows(&database).await, ["1|newest", "2|c"]);
}

async fn an_empty_batch_is_nothing(database: Db) {
    let target = database.target(&Wanted::default());
    assert_eq!(write(&*target, at(100).ids([]).text("x", [])).await, (0, 0, vec![]));
    write(&*target, at(100).ids([1]).text("x", ["a"])).await;
    assert_eq!(write(&*target, at(200).ids([]).text("x", [])).await, (0, 0, vec![]));
}

async fn two_writers_agree_on_overlapping_keys(database: Db) {
    let wanted = Wanted::default();
    let mut tasks = Vec::new();
    for writer in 0..4_i64 {
        let target = database.target(&wanted);
        tasks.push(tokio::spawn(async move {
            for round in 0..5_i64 {
                let base = 1_000_000 * (round + 1) + writer * 100_000;
                let ids: Vec<_> = (0..200).map(|n| (n * 7 + writer * 13) % 200).collect();
                let value = base.to_string();
                let make = || at(base).ids(ids.clone()).text("x", vec![value.as_str(); 200]);
                // As the loader does: what can be retried is retried.
                while let Err(error) = target.write(&[make().batch()]).await {
                    assert!(
                        matches!(error.remedy, model::Remedy::Retry { .. }),
                        "{}",
                        error.chain()
                    );
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let newest = 5_000_000 + 300_000;
    assert_eq!(
        database.sql("select count(*), min(x), max(x) from t").await,
        [format!("200|{newest}|{newest}")]
    );
}

/// The older record is compared with the target while a newer one is written but not committed yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_record_that_waited_for_a_newer_one_changes_nothing() {
    let database = Arc::new(tokio::task::spawn_blocking(Db::postgres).await.unwrap());
    let target = database.target(&Wanted::default());
    // The second time, it learns that keys may be there already, and merges from then on.
    for _ in 0..2 {
        write(&*target, at(100).ids([1]).text("x", ["first"])).await;
    }
    let newer = Arc::clone(&database);
    let newer = tokio::spawn(async move {
        newer
            .sql(
                "begin; update t set x = 'newer', _version = 500 where id = 1; \
                 select pg_advisory_xact_lock(7); \
                 do $$ begin while not exists (select 1 from pg_locks where not granted and \
                 pg_backend_pid() = any(pg_blocking_pids(pid))) loop perform pg_sleep(0.01); \
                 end loop; end $$; commit",
            )
            .await;
    });
    let written = "select 1 from pg_locks where locktype = 'advisory' and objid = 7 and \
                   database = (select oid from pg_database where datname = current_database())";
    while database.sql(written).await.is_empty() {
        // What another session does, one has to ask for.
        sleep(Duration::from_millis(10)).await;
    }
    let older = at(200).ids([1]).text("x", ["older"]);
    // As the loader does: what can be retried is retried.
    let older = [older.batch()];
    while let Err(error) = target.write(&older).await {
        assert!(matches!(error.remedy, model::Remedy::Retry { .. }), "{}", error.chain());
    }
    newer.await.unwrap();
    assert_eq!(rows(&database).await, ["1|newer"]);
}

async fn bad_rows_are_refused_alone(database: Db) {
    database
        .sql("create table t (id bigint primary key, x text not null constraint short check (length(x) < 5), y text unique)")
        .await;
    let target = database.target(&Wanted::default());
    let make = || {
        at(100)
            .column(
                "id",
                FieldType::Integer,
                std::sync::Arc::new(arrow_array::Int64Array::from(vec![
                    Some(1),
                    Some(2),
                    None,
                    Some(4),
                    Some(5),
                    Some(6),
                    Some(7),
                ])),
            )
            .column(
                "x",
                FieldType::Text,
                std::sync::Arc::new(arrow_array::StringArray::from(vec![
                    Some("a"),
                    Some("too long"),
                    Some("c"),
                    None,
                    Some("n\0l"),
                    Some("f"),
                    Some("g"),
                ])),
            )
            .text("y", ["1", "2", "3", "4", "5", "same", "same"])
    };
    let refused = ["1 constraint", "2 key", "3 constraint", "4 nul", "6 constraint"];
    let (loaded, unchanged, found) = write(&*target, make()).await;
    assert_eq!((loaded, unchanged), (2, 0));
    assert_eq!(found, refused);
    assert_eq!(rows(&database).await, ["1|a", "6|f"]);
    assert_eq!(write(&*target, make()).await.1, 2);
    let written = target.write(&[make().batch()]).await.unwrap();
    let told: Vec<_> = written[0].refused.iter().map(|refused| refused.message.as_str()).collect();
    assert!(told[0].contains("short"), "{told:?}");
    assert_eq!(written[0].refused[2].field, "x");
    assert!(!told.concat().contains("too long"), "{told:?}");
}

async fn many_bad_rows_are_refused_alone(database: Db) {
    database.sql("create table t (id bigint primary key, x text check (x <> 'bad'))").await;
    let target = database.target(&Wanted::default());
    let values = (0..3_000).map(|n| if n % 10 == 3 { "bad" } else { "good" });
    let (loaded, unchanged, refused) = write(&*target, at(1).ids(0..3_000).text("x", values)).await;
    assert_eq!((loaded, unchanged, refused.len()), (2_700, 0, 300));
    assert_eq!(refused[1], "13 constraint");
}

async fn absent_fields_do_not_overwrite(database: Db) {
    let target = database.target(&Wanted::default());
    write(&*target, at(100).ids([1, 2]).text("x", ["a", "b"]).text("y", ["c", "d"])).await;
    let partial = at(200)
        .ids([1, 2, 3])
        .text("x", ["A", "B", "C"])
        .present(&[true, false, true])
        .text("y", ["", "D", ""])
        .present(&[false, true, false])
        .operations(&[Operation::Upsert, Operation::Patch, Operation::Patch]);
    assert_eq!(write(&*target, partial).await, (3, 0, vec![]));
    assert_eq!(
        database.sql("select id, x, y from t order by id").await,
        ["1|A|c", "2|b|D", "3|C|"]
    );
    // A key that is absent is none.
    let nameless = at(300).ids([1]).present(&[false]).text("x", ["z"]);
    assert_eq!(write(&*target, nameless).await, (0, 0, vec!["0 key".to_owned()]));
}

async fn patches_of_one_key_add_up(database: Db) {
    let target = database.target(&Wanted::default());
    let patches = at(100)
        .ids([1, 1, 1])
        .text("x", ["a", "", "b"])
        .present(&[true, false, true])
        .text("y", ["", "c", ""])
        .present(&[false, true, false])
        .operations(&[Operation::Patch; 3]);
    let (loaded, unchanged, refused) = write(&*target, patches).await;
    assert_eq!((loaded, unchanged, refused.len()), (2, 1, 0));
    assert_eq!(database.sql("select id, x, y from t").await, ["1|b|c"]);
}

async fn a_hard_delete_is_not_undone_by_an_older_record(database: Db) {
    let target = database.target(&Wanted::default());
    write(&*target, at(100).ids([1, 2]).text("x", ["a", "b"])).await;
    // What a delete carries besides the key is of no interest.
    let delete = || at(300).ids([1, 9]).text("x", ["n\0l", ""]).operations(&[Operation::Delete; 2]);
    assert_eq!(write(&*target, delete()).await, (1, 1, vec![]));
    assert_eq!(write(&*target, delete()).await, (0, 2, vec![]));
    let late = || at(200).ids([1, 2]).text("x", ["late", "late"]);
    assert_eq!(write(&*target, late()).await, (1, 1, vec![]));
    assert_eq!(rows(&database).await, ["2|late"]);
    let other_process = database.target(&Wanted::default());
    assert_eq!(write(&*other_process, late()).await, (0, 2, vec![]));
    assert_eq!(write(&*target, at(400).ids([1]).text("x", ["back"])).await, (1, 0, vec![]));
    // An old delete does not remove what came back.
    assert_eq!(write(&*target, delete()).await, (0, 2, vec![]));
    assert_eq!(rows(&database).await, ["1|back", "2|late"]);
}

async fn a_delete_of_an_unknown_key_keeps_older_records_out(database: Db) {
    for deletes in [Deletes::Hard, Deletes::Soft] {
        let table = format!("t_{deletes:?}").to_lowercase();
        let target =
            database.target(&Wanted { deletes, table: table.clone(), ..Wanted::default() });
        let delete = at(300).ids([1]).text("x", [""]).operations(&[Operation::Delete]);
        assert_eq!(write(&*target, delete).await, (0, 1, vec![]));
        assert_eq!(write(&*target, at(200).ids([1]).text("x", ["late"])).await, (0, 1, vec![]));
        assert_eq!(database.sql(&format!("select count(*) from {table}")).await, ["0"]);
    }
}

async fn a_soft_delete_marks_and_a_newer_record_revives(database: Db) {
    let target = database.target(&Wanted { deletes: Deletes::Soft, ..Wanted::default() });
    write(&*target, at(100).ids([1, 2]).text("x", ["a", "b"])).await;
    let delete = || at(300).ids([1]).text("x", [""]).operations(&[Operation::Delete]);
    assert_eq!(write(&*target, delete()).await, (1, 0, vec![]));
    assert_eq!(write(&*target, delete()).await, (0, 1, vec![]));
    assert_eq!(write(&*target, at(200).ids([1]).text("x", ["late"])).await, (0, 1, vec![]));
    let marked = "select id, x, _deleted_at is not null from t order by id";
    let yes_no = if database.is_postgres() { ["t", "f"] } else { ["1", "0"] };
    assert_eq!(
        database.sql(marked).await,
        [format!("1|a|{}", yes_no[0]), format!("2|b|{}", yes_no[1])]
    );
    assert_eq!(write(&*target, at(400).ids([1]).text("x", ["a"])).await, (1, 0, vec![]));
    assert_eq!(database.sql("select count(*) from t where _deleted_at is not null").await, ["0"]);
}

async fn ignored_deletes_do_nothing(database: Db) {
    let target = database.target(&Wanted { deletes: Deletes::Ignore, ..Wanted::default() });
    write(&*target, at(100).ids([1]).text("x", ["a"])).await;
    let delete = at(300)
        .ids([1, 2])
        .text("x", ["", "b"])
        .operations(&[Operation::Delete, Operation::Upsert]);
    assert_eq!(write(&*target, delete).await, (1, 1, vec![]));
    assert_eq!(rows(&database).await, ["1|a", "2|b"]);
}

async fn append_takes_every_record_once(database: Db) {
    let wanted = Wanted { mode: Mode::Append, key: Vec::new(), ..Wanted::default() };
    let target = database.target(&wanted);
    let make = || at(100).ids([1, 1, 2]).text("x", ["a", "a", "b"]);
    assert_eq!(write(&*target, make()).await, (3, 0, vec![]));
    assert_eq!(write(&*target, make()).await, (0, 3, vec![]));
    assert_eq!(write(&*target, at(200).ids([1]).text("x", ["a"])).await, (1, 0, vec![]));
    assert_eq!(database.sql("select count(*) from t").await, ["4"]);
    // A table of the user has rows without an id.
    database.sql("create table log (id bigint, x text); insert into log values (1, 'old')").await;
    let target = database.target(&Wanted { table: "log".to_owned(), ..wanted });
    assert_eq!(write(&*target, make()).await, (3, 0, vec![]));
    assert_eq!(write(&*target, make()).await, (0, 3, vec![]));
    assert_eq!(database.sql("select count(*), count(_record) from log").await, ["4|3"]);
}

fn snapshot(max_loss_percent: f64) -> Wanted {
    Wanted { mode: Mode::Snapshot { max_loss_percent }, ..Wanted::default() }
}

fn sweep(run: RunId, extraction_base: i64) -> Sweep {
    Sweep { run, extraction_base, max_loss_percent: 50.0, source_empty: false }
}

async fn a_snapshot_removes_what_the_run_did_not_see(database: Db) {
    let target = database.target(&snapshot(50.0));
    let first = RunId::generate();
    write(&*target, at(100).run(first).ids(1..=4).text("x", ["a", "b", "c", "d"])).await;
    assert_eq!(target.sweep(&sweep(first, 100)).await.unwrap(), 0);
    let second = RunId::generate();
    // One is unchanged, one has no valid value any more, two are gone.
    let make = at(1_000).run(second).ids([1, 2]).text("x", ["a", "n\0l"]);
    assert_eq!(write(&*target, make).await, (0, 1, vec!["1 nul".to_owned()]));
    // Something newer came in by another way.
    write(&*target, at(2_000).ids([5]).text("x", ["e"])).await;
    assert_eq!(target.sweep(&sweep(second, 1_000)).await.unwrap(), 2);
    assert_eq!(rows(&database).await, ["1|a", "2|b", "5|e"]);
    assert_eq!(target.sweep(&sweep(second, 1_000)).await.unwrap(), 2, "repeating tells the same");
    assert_eq!(target.sweep(&sweep(first, 100)).await.unwrap(), 0, "an older run removes nothing");
    assert_eq!(rows(&database).await, ["1|a", "2|b", "5|e"]);
    assert_eq!(
        database
            .sql(&format!("select count(*) from _tributary_seen_t where _run <= '{second}'"))
            .await,
        ["0"]
    );
    // Gone rows may come back.
    let third = RunId::generate();
    write(&*target, at(3_000).run(third).ids([1, 2, 3, 5]).text("x", ["a", "b", "c", "e"])).await;
    assert_eq!(target.sweep(&sweep(third, 3_000)).await.unwrap(), 0);
    assert_eq!(rows(&database).await, ["1|a", "2|b", "3|c", "5|e"]);
}

async fn a_sweep_needs_a_confirmation_for_a_great_loss(database: Db) {
    let target = database.target(&Wanted { deletes: Deletes::Soft, ..snapshot(50.0) });
    write(&*target, at(100).ids(1..=4).text("x", ["a", "b", "c", "d"])).await;
    let run = RunId::generate();
    write(&*target, at(1_000).run(run).ids([1]).text("x", ["a"])).await;
    let error = target.sweep(&sweep(run, 1_000)).await.unwrap_err();
    assert!(error.what.contains("3 of 4"), "{}", error.what);
    assert!(error.hint.contains("tributary run p --confirm-loss"), "{}", error.hint);
    let empty = Sweep { source_empty: true, max_loss_percent: 100.0, ..sweep(run, 1_000) };
    assert!(target.sweep(&empty).await.is_err());
    assert_eq!(database.sql("select count(*) from t where _deleted_at is null").await, ["4"]);
    let confirmed = Sweep { max_loss_percent: 100.0, ..sweep(run, 1_000) };
    assert_eq!(target.sweep(&confirmed).await.unwrap(), 3);
    assert_eq!(database.sql("select count(*) from t where _deleted_at is null").await, ["1"]);
    assert_eq!(database.sql("select count(*) from t").await, ["4"]);
}

async fn a_swept_row_is_not_brought_back_by_an_older_run(database: Db) {
    for deletes in [Deletes::Hard, Deletes::Soft] {
        let table = format!("t_{deletes:?}").to_lowercase();
        let wanted = Wanted { deletes, table: table.clone(), ..snapshot(50.0) };
        let target = database.target(&wanted);
        write(&*target, at(100).ids([1, 2, 3]).text("x", ["a", "b", "c"])).await;
        let run = RunId::generate();
        write(&*target, at(1_000).run(run).ids([1, 2]).text("x", ["a", "b"])).await;
        assert_eq!(target.sweep(&sweep(run, 1_000)).await.unwrap(), 1);
        assert_eq!(write(&*target, at(500).ids([3]).text("x", ["late"])).await, (0, 1, vec![]));
        assert_eq!(write(&*target, at(2_000).ids([3]).text("x", ["c"])).await, (1, 0, vec![]));
    }
}

async fn newest_by_decides_and_equal_records_are_not_written(database: Db) {
    let target = database.target(&Wanted { newest_by: Some("n".to_owned()), ..Wanted::default() });
    let make = |base: i64, version: i64, x: &'static str| {
        at(base)
            .ids([1])
            .text("x", [x])
            .column("n", FieldType::Integer, ints([version]))
            .versions(&[version])
    };
    assert_eq!(write(&*target, make(100, 7, "a")).await, (1, 0, vec![]));
    assert_eq!(write(&*target, make(200, 7, "a")).await, (0, 1, vec![]));
    assert_eq!(database.sql("select _version, _extracted_at from t").await, ["7|100"]);
    assert_eq!(write(&*target, make(300, 6, "old")).await, (0, 1, vec![]));
    assert_eq!(write(&*target, make(400, 7, "b")).await, (1, 0, vec![]));
    assert_eq!(write(&*target, make(350, 7, "c")).await, (0, 1, vec![]));
    assert_eq!(write(&*target, make(50, 8, "d")).await, (1, 0, vec![]));
    assert_eq!(rows(&database).await, ["1|d"]);
}

async fn new_fields_become_columns_and_types_widen(database: Db) {
    let contract = Contract { types: TypePolicy::Evolve, ..Contract::default() };
    let target = database.target(&Wanted { contract, ..Wanted::default() });
    let old_process = database.target(&Wanted { contract, ..Wanted::default() });
    let number = |base| at(base).ids([1]).column("n", FieldType::Integer, ints([5]));
    write(&*target, number(100)).await;
    write(&*old_process, number(100)).await;
    let text = at(200).ids([2]).text("n", ["five"]).text("new", ["x"]);
    assert_eq!(write(&*target, text).await, (1, 0, vec![]));
    let all = "select id, n, new from t order by id";
    assert_eq!(database.sql(all).await, ["1|5|", "2|five|x"]);
    // Records of before still come, and processes that do not know.
    assert_eq!(write(&*old_process, number(300)).await, (0, 1, vec![]));
    let again = at(400).ids([3]).column("n", FieldType::Integer, ints([6]));
    assert_eq!(write(&*old_process, again).await, (1, 0, vec![]));
    assert_eq!(database.sql(all).await, ["1|5|", "2|five|x", "3|6|"]);
}

async fn a_type_that_does_not_fit_is_refused(database: Db) {
    let target = database.target(&Wanted::default());
    write(&*target, at(100).ids([1]).column("n", FieldType::Integer, ints([5]))).await;
    let make = at(200).ids([2, 3]).column(
        "n",
        FieldType::Text,
        std::sync::Arc::new(arrow_array::StringArray::from(vec![Some("five"), None])),
    );
    assert_eq!(write(&*target, make).await, (1, 0, vec!["0 type".to_owned()]));
    assert_eq!(database.sql("select id, n from t order by id").await, ["1|5", "3|"]);
    let contract = Contract { types: TypePolicy::Freeze, ..Contract::default() };
    let frozen = database.target(&Wanted { contract, ..Wanted::default() });
    let error = frozen.write(&[at(300).ids([2]).text("n", ["five"]).batch()]).await.unwrap_err();
    assert!(error.what.contains("`n` is text"), "{}", error.what);
}

async fn hostile_names_are_only_names(database: Db) {
    let column = "x\"; drop table t; --";
    let table = "we\"ird; tä.ble'";
    let quoted = "\"we\"\"ird; tä.ble'\"";
    let wanted = Wanted {
        table: quoted.to_owned(),
        key: vec!["select".to_owned(), column.to_owned()],
        deletes: Deletes::Hard,
        ..snapshot(50.0)
    };
    let target = database.target(&wanted);
    let make = |base| {
        at(base).text("select", ["1", "2"]).text(column, ["a", "b"]).text("ключ 🔑", ["'", "\\"])
    };
    assert_eq!(write(&*target, make(100)).await, (2, 0, vec![]));
    assert_eq!(write(&*target, make(100)).await, (0, 2, vec![]));
    let delete = at(200)
        .text("select", ["1"])
        .text(column, ["a"])
        .text("ключ 🔑", [""])
        .operations(&[Operation::Delete]);
    assert_eq!(write(&*target, delete).await, (1, 0, vec![]));
    let run = RunId::generate();
    write(&*target, make(300).run(run)).await;
    assert_eq!(target.sweep(&sweep(run, 300)).await.unwrap(), 0);
    assert_eq!(database.sql(&format!("select count(*) from {quoted}")).await, ["2"]);
    let plan = target
        .plan(&[field("select", "text"), field(column, "text"), field("neu", "text")])
        .await
        .unwrap();
    assert_eq!(plan, [format!("add column `neu` text to `{table}`")]);
    // A table whose name is as long as can be.
    let long = "t".repeat(63);
    let target = database.target(&Wanted { table: long.clone(), ..snapshot(50.0) });
    write(&*target, at(100).run(run).ids([1]).text("x", ["a"])).await;
    assert_eq!(target.sweep(&sweep(run, 100)).await.unwrap(), 0);
    assert_eq!(database.sql(&format!("select count(*) from {long}")).await, ["1"]);
}

async fn a_name_that_cannot_be_kept_stops(database: Db) {
    let target = database.target(&Wanted::default());
    for name in [&"x".repeat(64), "", "_version", "a\0b"] {
        let error = target.write(&[at(1).ids([1]).text(name, ["a"]).batch()]).await.unwrap_err();
        assert_eq!(error.remedy, model::Remedy::Stop, "{name}");
        assert!(error.hint.contains("rename"), "{}", error.hint);
    }
}

async fn a_table_without_a_unique_key_stops(database: Db) {
    database.sql("create table t (id bigint, x text)").await;
    let target = database.target(&Wanted::default());
    let error = target.write(&[at(1).ids([1]).text("x", ["a"]).batch()]).await.unwrap_err();
    assert!(error.what.contains("no unique index"), "{}", error.what);
    database.sql(error.hint.trim_start_matches("run `").trim_end_matches('`')).await;
    assert_eq!(write(&*target, at(1).ids([1]).text("x", ["a"])).await, (1, 0, vec![]));
}

async fn a_frozen_table_is_not_created(database: Db) {
    let contract = Contract { tables: TablePolicy::Freeze, ..Contract::default() };
    let target = database.target(&Wanted { contract, ..Wanted::default() });
    let make = || at(1).ids([1]).text("x", ["a"]).batch();
    let error = target.write(&[make()]).await.unwrap_err();
    assert!(error.what.contains("does not exist"), "{}", error.what);
    database.sql("create table t (id bigint primary key, x text)").await;
    let error = target.write(&[make()]).await.unwrap_err();
    assert!(error.what.contains("_version"), "{}", error.what);
}

async fn a_table_of_the_user_gets_our_columns(database: Db) {
    database
        .sql("create table t (id bigint primary key, x text, own integer default 7); insert into t (id, x) values (1, 'theirs'), (2, 'theirs')")
        .await;
    let target = database.target(&Wanted { newest_by: Some("x".to_owned()), ..Wanted::default() });
    let make = || at(100).ids([1, 3]).text("x", ["ours", "ours"]).versions(&[-5, -5]);
    assert_eq!(write(&*target, make()).await, (2, 0, vec![]));
    assert_eq!(write(&*target, make()).await, (0, 2, vec![]));
    assert_eq!(
        database.sql("select id, x, own from t order by id").await,
        ["1|ours|7", "2|theirs|7", "3|ours|7"]
    );
}

async fn audit_columns_tell_where_a_row_comes_from(database: Db) {
    for (table, mode) in [("t_upsert", Mode::Upsert), ("t_append", Mode::Append)] {
        let target = database.target(&Wanted {
            audit: true,
            mode,
            table: table.to_owned(),
            ..Wanted::default()
        });
        let run = RunId::generate();
        write(&*target, at(100).run(run).ids([1]).text("x", ["a"])).await;
        write(&*target, at(200).run(run).ids([2, 2]).text("x", ["b", "b"])).await;
        write(&*target, at(300).run(run).ids([2]).text("x", ["c"])).await;
        let found = database
            .sql(&format!(
                "select _run, _record from {table} where _loaded_at > '2020-01-01' and id = 1"
            ))
            .await;
        assert_eq!(found, [format!("{run}|b100:0")]);
    }
}

async fn several_batches_are_counted_apart(database: Db) {
    let target = database.target(&Wanted::default());
    write(&*target, at(100).ids([1, 2]).text("x", ["a", "b"])).await;
    let batches = [
        at(200).ids([1, 3]).text("x", ["a", "c"]).batch(),
        at(300).ids([]).text("x", []).batch(),
        at(400).ids([2, 4]).text("x", ["B", "n\0l"]).text("y", ["", ""]).batch(),
        at(500).ids([4, 3]).text("x", ["d", "c"]).batch(),
    ];
    let written = target.write(&batches).await.unwrap();
    let counts: Vec<_> = written
        .iter()
        .map(|written| (written.loaded, written.unchanged, written.refused.len()))
        .collect();
    assert_eq!(counts, [(1, 1, 0), (0, 0, 0), (1, 0, 1), (1, 1, 0)]);
}

async fn the_plan_says_exactly_what_will_happen(database: Db) {
    let wanted = Wanted {
        key: vec!["order_id".to_owned()],
        table: "orders".to_owned(),
        ..Wanted::default()
    };
    let target = database.target(&wanted);
    let fields = [field("order_id", "integer"), field("total", "decimal(12,2)")];
    assert_eq!(
        target.plan(&fields).await.unwrap(),
        ["create table `orders` (2 columns, primary key `order_id`)"]
    );
    assert_eq!(target.plan(&fields).await.unwrap().len(), 1, "planning creates nothing");
    let batch =
        at(1).column("order_id", FieldType::Integer, ints([1])).text("total", ["1"]).batch();
    target.write(&[batch]).await.unwrap();
    let fields = [field("order_id", "integer"), field("total", "text"), field("x", "text")];
    assert_eq!(target.plan(&fields).await.unwrap(), ["add column `x` text to `orders`"]);
    assert_eq!(target.plan(&fields[..2]).await.unwrap(), [""; 0]);
    let error = target.plan(&fields[1..]).await.unwrap_err();
    assert!(error.what.contains("order_id"), "{}", error.what);
}

async fn a_check_reaches_the_database(database: Db) {
    let target = database.target(&Wanted::default());
    assert!(target.check().await.unwrap().contains("does not exist yet"));
    target
        .write(&[at(1).ids([1]).column("x", FieldType::Text, texts(["a"])).batch()])
        .await
        .unwrap();
    assert!(target.check().await.unwrap().contains("has 3 columns"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_a_reason_to_retry() {
    let mut server = tokio::task::spawn_blocking(testkit::postgres::Postgres::start).await.unwrap();
    let url = server.create_database();
    let target = Db::target_at(&url, &Wanted::default());
    let make = |base| at(base).ids([1]).text("x", ["a"]).batch();
    target.write(&[make(100)]).await.unwrap();
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    })
    .await
    .unwrap();
    let error = target.write(&[make(200)]).await.unwrap_err();
    assert!(matches!(error.remedy, model::Remedy::Retry { .. }), "{}", error.chain());
    let mut server = server;
    let server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .unwrap();
    let written = target.write(&[make(200)]).await.unwrap();
    assert_eq!((written[0].loaded, written[0].unchanged), (0, 1));
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}
