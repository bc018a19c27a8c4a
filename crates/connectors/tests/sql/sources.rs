use std::time::Duration;

use arrow_array::{Array, StringArray, cast::AsArray, types::Int64Type};
use connect::{Chunk, Limits, PartCursor, RunOptions, Source};
use model::{ColumnPolicy, Contract, FieldType, Ids, Schema};
use spec::{Rows, TableRead};

use crate::support::{Db, Wanted, field, for_each_database};

for_each_database!(
    a_snapshot_reads_all_rows_in_the_order_of_the_key,
    reading_goes_on_from_every_cursor,
    keys_of_several_columns_are_read_on_from,
    equal_times_across_chunks_are_not_lost,
    a_late_commit_within_the_lag_is_found,
    the_start_does_not_creep_back,
    rows_without_a_cursor_value_are_read_in_every_run,
    a_range_holds_its_ends_and_no_row_without_a_value,
    a_run_that_paused_goes_on_behind_its_last_row,
    a_deleted_row_is_missing_from_the_next_snapshot,
    a_row_that_is_too_large_is_refused_alone,
    a_null_in_the_key_is_refused_and_not_lost,
    a_new_column_stops_a_frozen_contract,
    a_missing_column_stops,
    a_table_without_a_key_stops_with_the_remedy,
    a_missing_table_stops,
    a_lag_needs_a_time,
    the_menu_shows_tables_with_keys_and_types,
    a_source_is_checked,
    a_query_stands_in_the_place_of_a_table,
    a_query_cannot_write,
);

fn reads(read: TableRead) -> Wanted {
    Wanted { read, ..Wanted::default() }
}

fn table() -> TableRead {
    Wanted::default().read
}

fn by(cursor: &str, lag: Duration) -> TableRead {
    TableRead { cursor: Some(cursor.to_owned()), lag, ..table() }
}

fn few() -> Limits {
    Limits { chunk_records: 3, ..Limits::default() }
}

async fn read(source: &dyn Source, cursor: &str, limits: Limits) -> Vec<Chunk> {
    let mut reader = source.open("", cursor, 1_000, limits).await.unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.next().await.unwrap_or_else(|error| panic!("{}", error.chain()))
    {
        chunk.records.validate().unwrap();
        chunks.push(chunk);
    }
    chunks
}

/// `id@position` of all records.
fn ids(chunks: &[Chunk]) -> Vec<String> {
    chunks
        .iter()
        .flat_map(|chunk| {
            assert!(matches!(chunk.records.ids, Ids::Explicit(_)));
            (0..chunk.records.len())
                .map(|row| format!("{} #{}", chunk.records.id(row), chunk.records.positions[row]))
        })
        .collect()
}

fn keys(chunks: &[Chunk]) -> Vec<i64> {
    chunks
        .iter()
        .flat_map(|chunk| {
            let column = chunk.records.columns.column_by_name("id").unwrap();
            column.as_primitive::<Int64Type>().values().to_vec()
        })
        .collect()
}

/// Does one run and returns the keys it read and the cursor it left.
async fn run(source: &dyn Source, cursor: &str) -> (Vec<i64>, String) {
    let cursors = [PartCursor { part: String::new(), cursor: cursor.to_owned() }];
    let known = if cursor.is_empty() { &[][..] } else { &cursors[..] };
    let parts = source.parts(known, false).await.unwrap();
    let Some(part) = parts.with_news.first() else {
        return (Vec::new(), cursor.to_owned());
    };
    assert_eq!(part.name, "");
    let chunks = read(source, &part.cursor, few()).await;
    let end = chunks.last().map_or(part.cursor.clone(), |chunk| chunk.cursor.clone());
    (keys(&chunks), end)
}

async fn a_snapshot_reads_all_rows_in_the_order_of_the_key(database: Db) {
    database.sql("create table t (id bigint primary key, x text)").await;
    let source = database.source(&Wanted::default(), None);
    assert!(source.parts(&[], false).await.unwrap().with_news.is_empty());
    database.sql("insert into t values (3, 'c'), (1, 'a'), (7, null), (2, 'b')").await;
    let chunks = read(&*source, "", few()).await;
    assert_eq!(ids(&chunks), ["t/1 #1", "t/2 #2", "t/3 #3", "t/7 #4"]);
    assert_eq!(chunks[0].records.extraction_base, 1_000);
    let texts: &StringArray = chunks[1].records.columns.column_by_name("x").unwrap().as_string();
    assert!(texts.is_null(0));
    // The next run reads everything again, with its rows counted from one.
    let end = PartCursor { part: String::new(), cursor: chunks[1].cursor.clone() };
    assert_eq!(source.parts(&[end], false).await.unwrap().with_news[0].cursor, "");
    // A run that is handed out again reads everything too, and numbers it on.
    let middle = PartCursor { part: String::new(), cursor: chunks[0].cursor.clone() };
    let again = source.parts(&[middle], false).await.unwrap().with_news[0].cursor.clone();
    assert_eq!(ids(&read(&*source, &again, few()).await)[0], "t/1 #4");
}

async fn reading_goes_on_from_every_cursor(database: Db) {
    database.sql("create table t (id bigint primary key, at timestamp)").await;
    let mut values: Vec<_> =
        (0..40).map(|n| format!("({n}, '2024-01-01 00:00:{:02}')", (n * 7) % 10)).collect();
    values.extend((40..45).map(|n| format!("({n}, null)")));
    database.sql(&format!("insert into t values {}", values.join(", "))).await;
    for wanted in [
        Wanted::default(),
        reads(by("at", Duration::ZERO)),
        reads(by("at", Duration::from_secs(2))),
    ] {
        let source = database.source(&wanted, None);
        let all = read(&*source, "", few()).await;
        let expected = ids(&all);
        assert_eq!(expected.len(), 45);
        for (number, chunk) in all.iter().enumerate() {
            let rest = read(&*source, &chunk.cursor, Limits::default()).await;
            assert_eq!(ids(&rest), ids(&all[number + 1..]));
        }
    }
}

async fn keys_of_several_columns_are_read_on_from(database: Db) {
    database.sql("create table t (a text not null, b bigint not null, primary key (a, b))").await;
    let values: Vec<_> =
        (0..20).map(|n| format!("('{}', {n})", ["x,1", "x", "ü''", ""][n % 4])).collect();
    database.sql(&format!("insert into t values {}", values.join(", "))).await;
    let source = database.source(&Wanted::default(), None);
    let all = read(&*source, "", few()).await;
    let mut unique = ids(&all);
    assert_eq!(unique.len(), 20);
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 20);
    for (number, chunk) in all.iter().enumerate() {
        assert_eq!(ids(&read(&*source, &chunk.cursor, few()).await), ids(&all[number + 1..]));
    }
}

async fn equal_times_across_chunks_are_not_lost(database: Db) {
    database.sql("create table t (id bigint primary key, at timestamp)").await;
    let values: Vec<_> = (0..10).map(|n| format!("({n}, '2024-01-01 00:00:00')")).collect();
    database.sql(&format!("insert into t values {}", values.join(", "))).await;
    let source = database.source(&reads(by("at", Duration::ZERO)), None);
    let (found, end) = run(&*source, "").await;
    assert_eq!(found, (0..10).collect::<Vec<_>>());
    // A row of the same time that comes after the run.
    database.sql("insert into t values (10, '2024-01-01 00:00:00')").await;
    let (found, _) = run(&*source, &end).await;
    assert!(found.contains(&10));
}

async fn a_late_commit_within_the_lag_is_found(database: Db) {
    database.sql("create table t (id bigint primary key, at timestamp); insert into t values (1, '2024-01-01 00:00:00'), (2, '2024-01-01 00:01:00')").await;
    let source = database.source(&reads(by("at", Duration::from_secs(30))), None);
    let (_, end) = run(&*source, "").await;
    database
        .sql("insert into t values (3, '2024-01-01 00:00:45'), (4, '2024-01-01 00:00:15')")
        .await;
    let (found, end) = run(&*source, &end).await;
    assert_eq!(found, [3, 2], "within the lag, and not what is older");
    let (found, _) = run(&*source, &end).await;
    assert_eq!(found, [3, 2], "the greatest value has not become less");
}

async fn the_start_does_not_creep_back(database: Db) {
    database.sql("create table t (id bigint primary key, at timestamp); insert into t values (1, '2024-01-01 00:00:00'), (2, '2024-01-01 00:01:00')").await;
    let source = database.source(&reads(by("at", Duration::from_secs(45))), None);
    let (_, mut end) = run(&*source, "").await;
    for _ in 0..3 {
        let cursors = [PartCursor { part: String::new(), cursor: end.clone() }];
        let parts = source.parts(&cursors, false).await.unwrap();
        // A run that reads nothing leaves the cursor it was given.
        end = parts.with_news[0].cursor.clone();
    }
    assert_eq!(run(&*source, &end).await.0, [2]);
    let full =
        source.parts(&[PartCursor { part: String::new(), cursor: end }], true).await.unwrap();
    assert_eq!(full.with_news[0].cursor, "");
}

async fn rows_without_a_cursor_value_are_read_in_every_run(database: Db) {
    database.sql("create table t (id bigint primary key, at timestamp); insert into t values (1, null), (2, '2024-01-01 00:00:00'), (3, null)").await;
    let source = database.source(&reads(by("at", Duration::ZERO)), None);
    let (found, end) = run(&*source, "").await;
    assert_eq!(found, [1, 3, 2]);
    database.sql("insert into t values (4, null)").await;
    let (found, end) = run(&*source, &end).await;
    assert_eq!(found, [1, 3, 4, 2]);
    database.sql("delete from t where at is not null").await;
    let (found, end) = run(&*source, &end).await;
    assert_eq!(found, [1, 3, 4]);
    database
        .sql("insert into t values (5, '2023-01-01 00:00:00'), (6, '2024-01-01 00:00:00')")
        .await;
    assert_eq!(run(&*source, &end).await.0, [1, 3, 4, 6], "the greatest value was kept");
}

async fn a_range_holds_its_ends_and_no_row_without_a_value(database: Db) {
    database
        .sql(
            "create table t (id bigint primary key, n bigint); \
             insert into t values (1, 10), (2, 9), (3, null), (4, 11), (5, 100), (6, 12)",
        )
        .await;
    let wanted = reads(by("n", Duration::ZERO));
    let range = |from: Option<&str>, to: Option<&str>| RunOptions {
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
        ..RunOptions::default()
    };
    for (options, keys) in [
        (range(Some("10"), Some("12")), vec![1, 4, 6]),
        (range(None, Some("10")), vec![2, 1]),
        (range(Some("12"), None), vec![6, 5]),
        (range(Some("13"), Some("99")), vec![]),
    ] {
        let source = database.source_for(&wanted, options.clone());
        assert_eq!(run(&*source, "").await.0, keys, "{options:?}");
    }
    let broken = database.source_for(&wanted, range(Some("x'; drop table t --"), None));
    let mut reader = broken.open("", "", 1, few()).await.unwrap();
    assert!(!database.is_postgres() || reader.next().await.is_err());
    assert_eq!(database.sql("select count(*) from t").await, ["6"]);
}

async fn a_run_that_paused_goes_on_behind_its_last_row(database: Db) {
    database
        .sql(
            "create table t (id bigint primary key, n bigint); \
             insert into t values (1, 5), (2, 5), (3, 5), (4, 5), (5, 1)",
        )
        .await;
    let resumed = RunOptions { resumed: true, ..RunOptions::default() };
    for (wanted, order) in [
        (Wanted::default(), vec![1, 2, 3, 4, 5]),
        (reads(by("n", Duration::ZERO)), vec![5, 1, 2, 3, 4]),
    ] {
        let chunks = read(&*database.source(&wanted, None), "", few()).await;
        assert_eq!(keys(&chunks), order);
        let source = database.source_for(&wanted, resumed.clone());
        assert_eq!(run(&*source, &chunks[0].cursor).await.0, order[3..]);
        // A part that was read to its end begins as in any run.
        let end = &chunks.last().unwrap().cursor;
        assert_eq!(run(&*source, end).await, run(&*database.source(&wanted, None), end).await);
    }
}

async fn a_deleted_row_is_missing_from_the_next_snapshot(database: Db) {
    database.sql("create table t (id bigint primary key, x text); insert into t values (1, 'a'), (2, 'b')").await;
    let source = database.source(&Wanted::default(), None);
    let (found, end) = run(&*source, "").await;
    assert_eq!(found, [1, 2]);
    database.sql("delete from t where id = 1").await;
    assert_eq!(run(&*source, &end).await.0, [2]);
}

async fn a_row_that_is_too_large_is_refused_alone(database: Db) {
    database.sql("create table t (id bigint primary key, x text, j json, b bytea)").await;
    for (id, size) in [(1, 10), (2, 2_000), (3, 400_000), (4, 10)] {
        let noise: String =
            (0..size).map(|n: u64| char::from(b'a' + (n * n / 7 % 31 * n % 26) as u8)).collect();
        for part in noise.as_bytes().chunks(100_000) {
            let part = String::from_utf8(part.to_vec()).unwrap();
            database.sql(&format!("insert into t (id, x) values ({id}, '{part}') on conflict (id) do update set x = t.x || excluded.x")).await;
        }
    }
    for (record_bytes, large) in [(1_000, vec![2, 3]), (100_000, vec![3])] {
        let source = database.source(&Wanted::default(), None);
        let chunks = read(&*source, "", Limits { record_bytes, ..Limits::default() }).await;
        let refused = &chunks[0].refused;
        let positions: Vec<_> = refused.iter().map(|refused| refused.position).collect();
        assert_eq!(positions, large);
        assert!(
            refused
                .iter()
                .all(|refused| refused.code == "size" && refused.raw.len() <= record_bytes)
        );
        assert_eq!(refused[0].id, format!("t/{}", large[0]));
        assert_eq!(chunks[0].records.len(), 4 - large.len());
    }
}

async fn a_null_in_the_key_is_refused_and_not_lost(database: Db) {
    database.sql("create table t (id bigint, k bigint); insert into t values (1, 1), (2, null), (null, 3), (4, 4), (5, 5), (6, 6)").await;
    let wanted = reads(TableRead { key: vec!["id".to_owned(), "k".to_owned()], ..table() });
    let source = database.source(&wanted, None);
    let chunks = read(&*source, "", Limits { chunk_records: 1, ..Limits::default() }).await;
    let refused = |chunks: &[Chunk]| {
        chunks.iter().flat_map(|chunk| chunk.refused.iter().map(|refused| refused.code)).count()
    };
    assert_eq!((keys(&chunks), refused(&chunks)), (vec![1, 4, 5, 6], 2));
    // From the cursor behind a refused row nothing is lost.
    let rest = read(&*source, &chunks[2].cursor, few()).await;
    assert_eq!(keys(&rest).last(), Some(&6));
}

async fn a_new_column_stops_a_frozen_contract(database: Db) {
    database.sql("create table t (id bigint primary key, x text, new text); insert into t values (1, 'a', 'b')").await;
    let schema = Schema { fields: vec![field("id", "integer"), field("x", "text")] };
    let contract = Contract { columns: Some(ColumnPolicy::Freeze), ..Contract::default() };
    let source = database.source(&Wanted { contract, ..Wanted::default() }, Some(&schema));
    let error = source.parts(&[], false).await.unwrap_err();
    assert!(error.what.contains("`new`") && error.what.contains("`t`"), "{}", error.what);
    assert!(error.hint.contains("columns: evolve"), "{}", error.hint);
    let source = database.source(&Wanted::default(), Some(&schema));
    let chunks = read(&*source, "", few()).await;
    assert_eq!(chunks[0].records.columns.num_columns(), 3, "the transformer decides");
}

async fn a_missing_column_stops(database: Db) {
    database.sql("create table t (id bigint primary key)").await;
    let schema = Schema { fields: vec![field("id", "integer"), field("gone", "text")] };
    let source = database.source(&Wanted::default(), Some(&schema));
    let error = source.check().await.unwrap_err();
    assert!(error.what.contains("`gone`"), "{}", error.what);
    let wanted = reads(by("nothing", Duration::ZERO));
    let error = database.source(&wanted, None).parts(&[], false).await.unwrap_err();
    assert!(error.what.contains("`nothing`"), "{}", error.what);
}

async fn a_table_without_a_key_stops_with_the_remedy(database: Db) {
    database.sql("create table t (id bigint); insert into t values (1)").await;
    let error = database.source(&Wanted::default(), None).parts(&[], false).await.unwrap_err();
    assert!(error.hint.contains("`key:`"), "{}", error.hint);
    let wanted = reads(TableRead { key: vec!["id".to_owned()], ..table() });
    assert_eq!(run(&*database.source(&wanted, None), "").await.0, [1]);
}

async fn a_missing_table_stops(database: Db) {
    database.sql("create table other (id bigint primary key)").await;
    let error = database.source(&Wanted::default(), None).check().await.unwrap_err();
    assert!(error.what.contains("`t` does not exist"), "{}", error.what);
}

async fn a_lag_needs_a_time(database: Db) {
    database
        .sql("create table t (id bigint primary key, n bigint); insert into t values (1, 5)")
        .await;
    let source = database.source(&reads(by("n", Duration::ZERO)), None);
    let (_, end) = run(&*source, "").await;
    database.sql("insert into t values (2, 6)").await;
    assert_eq!(run(&*source, &end).await.0, [1, 2]);
    let source = database.source(&reads(by("n", Duration::from_secs(1))), None);
    let cursors = [PartCursor { part: String::new(), cursor: end }];
    let error = source.parts(&cursors, false).await.unwrap_err();
    assert!(error.hint.contains("`lag: 0s`"), "{}", error.hint);
}

async fn the_menu_shows_tables_with_keys_and_types(database: Db) {
    database
        .sql("create table a (id integer primary key, price decimal(10,2), note text not null, at timestamp); create table b (x text); insert into a values (1, 2.50, 'x', '2024-01-01 10:00:00')")
        .await;
    let source =
        database.source(&reads(TableRead { rows: Rows::Table("a".to_owned()), ..table() }), None);
    let menu = source.discover().await.unwrap();
    let names: Vec<_> = menu.iter().map(|stream| stream.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(menu[0].key, ["id"]);
    let shown: Vec<_> = menu[0]
        .schema
        .fields
        .iter()
        .map(|field| format!("{} {} {}", field.name, field.field_type, field.required))
        .collect();
    assert_eq!(
        shown,
        ["id integer true", "price decimal(10,2) false", "note text true", "at timestamp false"]
    );
    assert_eq!(source.infer().await.unwrap(), menu[0].schema);
}

async fn a_source_is_checked(database: Db) {
    database.sql("create table t (id bigint primary key, x text)").await;
    let told = database.source(&Wanted::default(), None).check().await.unwrap();
    assert!(told.contains("2 columns") && told.contains("`id`"), "{told}");
}

fn query(text: &str, cursor: Option<&str>) -> Wanted {
    let (rows, cursor) = (Rows::Query(text.to_owned()), cursor.map(str::to_owned));
    reads(TableRead { rows, key: vec!["id".to_owned()], cursor, ..table() })
}

async fn a_query_stands_in_the_place_of_a_table(database: Db) {
    database
        .sql(
            "create table t (id integer primary key, n integer, money decimal(12,2)); \
             insert into t values (1, 10, 1.5), (2, 20, 2.5), (3, 30, 3.5), (4, 40, 4.5)",
        )
        .await;
    let text = "select id, n, money, n + 1 as more from t where n > 10 -- not the first";
    let source = database.source(&query(text, Some("n")), None);
    let schema = source.infer().await.unwrap();
    let names: Vec<_> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["id", "n", "money", "more"]);
    let decimal = FieldType::Decimal { precision: 12, scale: 2 };
    assert_eq!(schema.field("money").unwrap().field_type, decimal);
    let limits = Limits { chunk_records: 2, ..Limits::default() };
    let chunks = read(source.as_ref(), "", limits).await;
    assert_eq!(ids(&chunks), ["query/2@20 #1", "query/3@30 #2", "query/4@40 #3"]);
    assert_eq!(ids(&read(source.as_ref(), &chunks[0].cursor, limits).await), ["query/4@40 #3"]);
    database.sql("insert into t values (5, 50, 0)").await;
    let last = PartCursor { part: String::new(), cursor: chunks[1].cursor.clone() };
    let parts = source.parts(&[last], false).await.unwrap();
    let chunks = read(source.as_ref(), &parts.with_news[0].cursor, limits).await;
    assert_eq!(ids(&chunks).last().unwrap(), "query/5@50 #2");
    assert!(source.check().await.unwrap().contains("the query"));
}

async fn a_query_cannot_write(database: Db) {
    database.sql("create table t (id integer primary key); insert into t values (1)").await;
    if database.is_postgres() {
        database
            .sql(
                "create function wipe() returns int language sql as \
                 'delete from t; select 1'",
            )
            .await;
    }
    let text = if database.is_postgres() {
        "select wipe() as id"
    } else {
        "select id from t); delete from t; select * from (select 1 as id"
    };
    let source = database.source(&query(text, None), None);
    let tried = async {
        let parts = source.parts(&[], false).await?;
        source.open("", &parts.with_news[0].cursor, 1, Limits::default()).await?.next().await
    };
    assert!(tried.await.is_err());
    assert_eq!(database.sql("select count(*) from t").await, ["1"]);
}
