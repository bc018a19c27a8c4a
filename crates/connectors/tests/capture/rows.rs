use std::time::{Duration, Instant};

use connect::Limits;
use model::Operation;

use crate::support::{Captured, count, told};

const TYPES: &str = "
create type mood as enum ('sad', 'happy');
create type place as (street text, number int);
create domain money2 as numeric(12,2);
create table t (
  id int primary key, b boolean, i2 smallint, i8 bigint, f4 real, f8 double precision,
  n numeric(12,3), n0 numeric, d money2, t text, v varchar(9), c char(5), y bytea,
  day date, ts timestamp, tz timestamptz, j json, jb jsonb, u uuid, m mood, p place,
  ai int[], at text[], ad date[], an numeric[], aj jsonb[], iv interval, inet inet, tm time,
  r int4range, doubled int generated always as (i2 * 2) stored)";

const VALUES: &str = "true, 7, -9223372036854775808, 0.1, 0.1, 12.5, 1234567890123456789012.5, 3.14, \
  E'a\\\\b\"\\n''ü', 'short', 'ab', '\\x00ff7f', '2024-02-29', '2024-01-01 10:11:12.5', \
  '2024-07-01 00:00:00.000001+02', '{\"a\":  1}', '{\"b\": [1, null], \"a\": \"x\"}', \
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'happy', row('Main, \"St\"', 5), '{1,null,-3}', \
  array['a,b', null, 'c\"d', ''], '{2024-01-31}', '{1.50,2}', \
  array['{\"k\": 1}'::jsonb], '1 day 02:03:04', '10.0.0.1', '23:59:59.25', '[1,5)'";

const NULLS: &str = "null, null, null, null, null, null, null, null, null, null, null, null, null, \
  null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null";

/// All columns that are written.
const COLUMNS: &str = "id, b, i2, i8, f4, f8, n, n0, d, t, v, c, y, day, ts, tz, j, jb, u, m, p, \
  ai, at, ad, an, aj, iv, inet, tm, r";

#[tokio::test]
async fn every_type_comes_from_the_log_as_from_the_table() {
    let mut captured = Captured::new(TYPES);
    let insert =
        |id: u32, values: &str| format!("insert into t ({COLUMNS}) values ({id}, {values})");
    captured.sql(&insert(1, VALUES));
    captured.run().await;
    captured.sql(&insert(2, VALUES));
    captured.sql(&insert(3, NULLS));
    captured.sql("insert into t (id, f8, f4, day) values (4, 'NaN', '-Infinity', '0044-03-15 BC')");
    captured.run().await;
    let mut expected = captured.table().await;
    // A computed column is in no log.
    expected.values_mut().for_each(|row| drop(row.remove("doubled")));
    assert_eq!(captured.model.rows(), expected);
    assert_eq!(expected.len(), 4);
}

#[tokio::test]
async fn updates_and_deletes_follow_the_snapshot_without_gap_or_double() {
    let mut captured = Captured::new("create table t (id int primary key, v text)");
    captured.sql("insert into t select n, 'a' from generate_series(1, 1000) n");
    assert_eq!(count(&captured.run().await), 1_000);
    assert_eq!(count(&captured.run().await), 0);
    captured.sql(
        "update t set v = 'b' where id <= 10; delete from t where id > 990; \
         insert into t values (2000, 'c'); \
         begin; update t set v = 'd' where id = 1; update t set v = 'e' where id = 1; commit; \
         begin; insert into t values (3000, 'x'); rollback",
    );
    let chunks = captured.run().await;
    assert_eq!(count(&chunks), 23);
    let ids: std::collections::HashSet<_> = told(&chunks).into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), 23);
    captured.assert_equal().await;
    assert_eq!(count(&captured.run().await), 0);
}

#[tokio::test]
async fn an_empty_table_is_captured_from_its_first_row() {
    let mut captured = Captured::new("create table t (id int primary key, v text)");
    assert_eq!(count(&captured.run().await), 0);
    captured.sql("insert into t values (1, 'a')");
    assert_eq!(count(&captured.run().await), 1);
    captured.assert_equal().await;
}

/// A text that is kept outside of its row.
const LARGE: &str = "(select string_agg(md5(random()::text), '') from generate_series(1, 300))";

#[tokio::test]
async fn a_large_value_that_was_not_touched_is_told_with_the_others() {
    let mut captured = Captured::new("create table t (id int primary key, v int, large text)");
    captured.sql(&format!("insert into t select n, 0, {LARGE} from generate_series(1, 3) n"));
    captured.run().await;
    captured.sql("update t set v = 1 where id = 1");
    let chunks = captured.run().await;
    // The log does not tell it, and a record without it could overtake the one that has it.
    assert_eq!(told(&chunks)[0].0, Operation::Upsert);
    assert!(chunks[0].records.is_present(2, 0));
    captured.assert_equal().await;
    captured.sql(&format!("update t set large = {LARGE} where id = 2"));
    assert_eq!(told(&captured.run().await)[0].0, Operation::Upsert);
    captured.assert_equal().await;
}

#[tokio::test]
async fn a_large_value_of_a_row_that_is_gone_or_new_by_now_ends_as_the_table_has_it() {
    let mut captured = Captured::new("create table t (id int primary key, v int, large text)");
    captured.sql(&format!("insert into t select n, 0, {LARGE} from generate_series(1, 3) n"));
    captured.run().await;
    captured.sql("update t set v = 1");
    captured.sql("delete from t where id < 3");
    captured.sql(&format!("insert into t select 2, 5, {LARGE}"));
    captured.sql("update t set v = 6 where id = 2");
    captured.run().await;
    captured.assert_equal().await;
}

#[tokio::test]
async fn a_row_with_a_new_key_is_moved_with_all_its_values() {
    for identity in ["default", "full"] {
        let mut captured = Captured::new("create table t (id int primary key, v int, large text)");
        captured.sql(&format!("alter table t replica identity {identity}"));
        captured.sql(&format!("insert into t select n, 0, {LARGE} from generate_series(1, 3) n"));
        captured.run().await;
        captured.sql("update t set id = 10 where id = 1; update t set id = 20 where id = 2");
        captured.sql("delete from t where id = 20");
        let operations: Vec<_> = told(&captured.run().await).into_iter().map(|(o, _)| o).collect();
        assert_eq!(operations.len(), 5, "{identity}");
        assert_eq!(&operations[..2], [Operation::Delete, Operation::Upsert], "{identity}");
        captured.assert_equal().await;
    }
}

#[tokio::test]
async fn a_full_identity_tells_everything() {
    let mut captured = Captured::new(&format!(
        "create table t (id int primary key, v int, large text); \
         alter table t replica identity full; insert into t select 1, 0, {LARGE}"
    ));
    captured.run().await;
    captured.sql("update t set v = 1");
    assert_eq!(told(&captured.run().await)[0].0, Operation::Upsert);
    captured.assert_equal().await;
    captured.sql("delete from t");
    let chunks = captured.run().await;
    assert_eq!(told(&chunks)[0].0, Operation::Delete);
    assert!(chunks[0].records.is_present(1, 0));
    captured.assert_equal().await;
}

#[tokio::test]
async fn a_transaction_larger_than_a_chunk_goes_on_where_it_was_left() {
    let mut captured = Captured::new("create table t (id int primary key, v int)");
    captured.run().await;
    captured.sql("insert into t select n, 0 from generate_series(1, 1000) n");
    captured.sql("update t set v = id");
    let limits = Limits { chunk_records: 300, ..Limits::default() };
    let mut records = 0;
    for _ in 0..20 {
        let (chunks, ended) = captured.run_some(false, 1, limits).await.unwrap();
        records += count(&chunks);
        assert!(count(&chunks) <= 300);
        if ended {
            break;
        }
        captured.loaded(chunks[0].cursor.clone());
    }
    assert_eq!(records, 2_000);
    captured.assert_equal().await;
}

#[tokio::test]
async fn new_columns_and_new_types_are_noticed_where_they_happened() {
    let mut captured = Captured::new("create table t (id int primary key, v int)");
    captured.run().await;
    captured.sql("insert into t values (1, 1); alter table t add w text default 'w'");
    captured.sql("insert into t values (2, 2, 'x'); alter table t alter v type text");
    captured.sql("insert into t values (3, 'three', 'y'); alter table t drop w");
    captured.sql("insert into t values (4, 'four')");
    let chunks = captured.run().await;
    let columns: Vec<_> = chunks
        .iter()
        .filter(|chunk| !chunk.records.is_empty())
        .map(|chunk| {
            let schema = chunk.records.columns.schema();
            let fields = schema.fields().iter();
            fields.map(|f| format!("{} {}", f.name(), f.data_type())).collect::<Vec<_>>().join(", ")
        })
        .collect();
    assert_eq!(
        columns,
        [
            "id Int64, v Int64",
            "id Int64, v Int64, w Utf8",
            "id Int64, v Utf8, w Utf8",
            "id Int64, v Utf8"
        ]
    );
}

#[tokio::test]
async fn a_record_that_is_too_large_is_set_aside_alone() {
    let mut captured = Captured::new("create table t (id int primary key, v text)");
    captured.run().await;
    captured.sql("insert into t values (1, 'a'), (2, repeat('x', 500000)), (3, 'b')");
    captured.sql("insert into t values (4, null)");
    let chunks = captured.run().await;
    let refused: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.refused).collect();
    assert_eq!((count(&chunks), refused.len(), refused[0].code), (3, 1, "size"));
}

#[tokio::test]
async fn partitions_are_captured_as_their_table() {
    let mut captured = Captured::new(
        "create table t (id int primary key, v int) partition by range (id); \
         create table t1 partition of t for values from (0) to (100); \
         create table t2 partition of t for values from (100) to (200); \
         insert into t values (1, 1), (101, 1)",
    );
    captured.run().await;
    captured
        .sql("update t set v = 2; insert into t values (2, 2); update t set id = 150 where id = 1");
    captured.run().await;
    captured.assert_equal().await;
}

#[tokio::test]
async fn a_change_arrives_within_milliseconds_while_a_run_listens() {
    let captured = Captured::new("create table t (id int primary key, v int)").with("window: 5s");
    let mut captured = captured;
    captured.run().await;
    let source = captured.source();
    let part = source.parts(&captured.cursors, false).await.unwrap().with_news.remove(0);
    let mut reader = source.open("", &part.cursor, 1, Limits::default()).await.unwrap();
    let mut writer = sqlx::PgPool::connect(&captured.url).await.unwrap().acquire().await.unwrap();
    let mut delays = Vec::new();
    for id in 0..20 {
        let insert = sqlx::query("insert into t values ($1, 0)").bind(id);
        let began = Instant::now();
        let (inserted, chunk) = tokio::join!(insert.execute(&mut *writer), reader.next());
        inserted.unwrap();
        assert_eq!(chunk.unwrap().unwrap().records.len(), 1);
        delays.push(began.elapsed());
    }
    delays.sort();
    assert!(delays[10] < Duration::from_millis(100), "{delays:?}");
}

#[tokio::test]
async fn only_what_is_loaded_is_confirmed_and_an_idle_table_does_not_hold_the_log() {
    let mut captured =
        Captured::new("create table t (id int primary key); create table other (n int)");
    captured.run().await;
    let confirmed = |captured: &Captured| {
        captured.sql(&format!(
            "select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = '{}'",
            captured.slot()
        ))
    };
    captured.run().await;
    captured.sql("insert into t values (1)");
    // Given, but never loaded.
    captured.run_some(false, 1, Limits::default()).await.unwrap();
    let before = confirmed(&captured);
    captured.run_some(false, 1, Limits::default()).await.unwrap();
    assert_eq!(confirmed(&captured), before);
    captured.run().await;
    captured.sql("insert into other select n from generate_series(1, 10000) n");
    captured.run().await;
    captured.run().await;
    let kept = captured.sql(&format!(
        "select pg_current_wal_lsn() - confirmed_flush_lsn from pg_replication_slots \
         where slot_name = '{}'",
        captured.slot()
    ));
    // The other tests write as well.
    assert_ne!(confirmed(&captured), before);
    assert!(kept.parse::<u64>().unwrap() < 10_000_000, "{kept}");
}
