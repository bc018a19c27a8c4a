//! Values on their way in and out again.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
    Int64Array, StringArray, TimestampMicrosecondArray, cast::AsArray,
};
use connect::Limits;
use model::{Batch, FieldType};
use spec::Deletes;

use crate::support::{Db, Wanted, at, for_each_database, write};

for_each_database!(every_type_survives, values_compare_equal_after_storing);

fn all_types(base: i64) -> crate::support::Make {
    let decimal = |precision: u8, scale: u8, values: Vec<Option<i128>>| -> ArrayRef {
        Arc::new(
            Decimal128Array::from(values)
                .with_data_type(FieldType::Decimal { precision, scale }.arrow()),
        )
    };
    let most = 10_i128.pow(38) - 1;
    at(base)
        .ids([1, 2, 3, 4])
        .column(
            "bool",
            FieldType::Boolean,
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)])),
        )
        .column(
            "int",
            FieldType::Integer,
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None, Some(0)])),
        )
        .column(
            "double",
            FieldType::Double,
            Arc::new(Float64Array::from(vec![Some(0.1), Some(-1.5e300), None, Some(5e-324)])),
        )
        .column(
            "big",
            FieldType::Decimal { precision: 38, scale: 9 },
            decimal(38, 9, vec![Some(-most), Some(most), None, Some(-1)]),
        )
        .column(
            "money",
            FieldType::Decimal { precision: 12, scale: 2 },
            decimal(12, 2, vec![Some(-5), Some(1_200), None, Some(100_000_000)]),
        )
        .column(
            "text",
            FieldType::Text,
            Arc::new(StringArray::from(vec![Some(""), Some("ä\t\\N'\"\r\n🔑"), None, Some("007")])),
        )
        .column(
            "bytes",
            FieldType::Bytes,
            Arc::new(BinaryArray::from_opt_vec(vec![
                Some(&[0, 255, 92][..]),
                Some(&[][..]),
                None,
                Some(&[1][..]),
            ])),
        )
        .column(
            "date",
            FieldType::Date,
            Arc::new(Date32Array::from(vec![Some(-25_567), Some(2_932_896), None, Some(0)])),
        )
        .column(
            "time",
            FieldType::Timestamp,
            Arc::new(
                TimestampMicrosecondArray::from(vec![
                    Some(-1),
                    Some(253_402_300_799_999_999),
                    None,
                    Some(-62_135_596_800_000_000),
                ])
                .with_timezone("UTC"),
            ),
        )
        .column(
            "json",
            FieldType::Json,
            Arc::new(StringArray::from(vec![
                Some("{\"a\": [1, null]}"),
                Some("1.50"),
                None,
                Some("\"x\""),
            ])),
        )
}

async fn every_type_survives(database: Db) {
    let target = database.target(&Wanted::default());
    let sent: Batch = all_types(100).batch();
    assert_eq!(write(&*target, all_types(100)).await, (4, 0, vec![]));
    // Once by the way that merges.
    assert_eq!(write(&*target, all_types(200)).await, (0, 4, vec![]));
    let source = database.source(&Wanted::default(), None);
    let mut reader = source.open("", "", 1, Limits::default()).await.unwrap();
    let chunk = reader.next().await.unwrap().unwrap();
    for field in sent.records.columns.schema().fields() {
        let sent = sent.records.columns.column_by_name(field.name()).unwrap();
        let found = chunk.records.columns.column_by_name(field.name()).unwrap();
        if database.is_postgres() {
            assert_eq!(sent.data_type(), found.data_type(), "{}", field.name());
            assert_eq!(sent, found, "{}", field.name());
        } else if sent.data_type() == found.data_type() {
            assert_eq!(sent, found, "{}", field.name());
        } else {
            let texts: &StringArray = found.as_string();
            let texts: Vec<_> = texts.iter().collect();
            let expected = match field.name().as_str() {
                "big" => [
                    "-99999999999999999999999999999.999999999",
                    "99999999999999999999999999999.999999999",
                    "",
                    "-0.000000001",
                ],
                "money" => ["-0.05", "12.00", "", "1000000.00"],
                "date" => ["1900-01-01", "9999-12-31", "", "1970-01-01"],
                "time" => [
                    "1969-12-31T23:59:59.999999Z",
                    "9999-12-31T23:59:59.999999Z",
                    "",
                    "0001-01-01T00:00:00.000000Z",
                ],
                other => panic!("{other} came back as text"),
            };
            assert_eq!(
                texts,
                expected.map(|text| (!text.is_empty()).then_some(text)),
                "{}",
                field.name()
            );
        }
    }
    let schema = source.infer().await.unwrap();
    for field in sent.records.columns.schema().fields() {
        let found = schema.field(field.name()).unwrap().field_type;
        assert_eq!(Some(found), FieldType::of(field), "{}", field.name());
    }
}

async fn values_compare_equal_after_storing(database: Db) {
    for (table, audit, deletes) in [("one", true, Deletes::Soft), ("two", false, Deletes::Hard)] {
        let wanted = Wanted {
            table: table.to_owned(),
            audit,
            deletes,
            newest_by: Some("int".to_owned()),
            ..Wanted::default()
        };
        let target = database.target(&wanted);
        let make = |base| all_types(base).versions(&[1, 1, 1, 1]);
        assert_eq!(write(&*target, make(100)).await, (4, 0, vec![]));
        assert_eq!(write(&*target, make(200)).await, (0, 4, vec![]));
        assert_eq!(
            database.sql(&format!("select distinct _extracted_at < 200 from {table}")).await.len(),
            1
        );
    }
}

#[tokio::test]
async fn postgres_types_of_users_are_written_and_read() {
    let database = tokio::task::spawn_blocking(Db::postgres).await.unwrap();
    database
        .sql(
            "create type mood as enum ('sad', 'happy');
             create domain short as varchar(5);
             create table t (id uuid primary key, small smallint, name varchar(10), code char(4), mood mood,
               plain json, amount numeric(10,1), free numeric, at timestamp, day date, s short, f real,
               tags text[], iv interval, ratio numeric)",
        )
        .await;
    let target =
        database.target(&Wanted { newest_by: Some("small".to_owned()), ..Wanted::default() });
    let decimal = |values: Vec<i128>, scale: u8| -> ArrayRef {
        let field_type = FieldType::Decimal { precision: 12, scale };
        Arc::new(Decimal128Array::from(values).with_data_type(field_type.arrow()))
    };
    let id = |n: u8| format!("00000000-0000-0000-0000-00000000000{n}");
    let names = ["fits", "much too long for it", "x", "x", "x"];
    let make = |base| {
        at(base)
            .text("id", [&*id(1), &id(2), &id(3), &id(4), "no uuid"])
            .column("small", FieldType::Integer, crate::support::ints([1, 1, 70_000, 1, 1]))
            .text("name", names)
            .text("code", ["ab", "ab", "ab", "ab", "ab"])
            .text("mood", ["happy", "sad", "sad", "angry", "sad"])
            .column("plain", FieldType::Json, Arc::new(StringArray::from(vec!["{\"a\":1}"; 5])))
            .column(
                "amount",
                FieldType::Decimal { precision: 12, scale: 2 },
                decimal(vec![150, 150, 150, 150, 150], 2),
            )
            .text("s", ["a", "a", "a", "a", "a"])
            .column(
                "ratio",
                FieldType::Double,
                Arc::new(Float64Array::from(vec![0.123_456_789_012_345_66; 5])),
            )
            .versions(&[1; 5])
    };
    let refused: Vec<String> = ["1 type", "2 type", "3 type", "4 type"].map(str::to_owned).to_vec();
    assert_eq!(write(&*target, make(1)).await, (1, 0, refused.clone()));
    assert_eq!(write(&*target, make(2)).await, (0, 1, refused));
    assert_eq!(database.sql("select ratio from t").await, ["0.12345678901234566"]);
    let rounding = at(3)
        .text("id", [&*id(5)])
        .column("amount", FieldType::Decimal { precision: 12, scale: 2 }, decimal(vec![155], 2))
        .versions(&[1]);
    assert_eq!(write(&*target, rounding).await, (0, 0, vec!["0 type".to_owned()]));

    database
        .sql(
            "insert into t (id, amount, free, at, day, f, tags, iv, small) values
             ('00000000-0000-0000-0000-000000000006', 'NaN', 'NaN', '2024-01-01', '2024-01-01', 0.1, '{a,b}', '1 day', 3),
             ('00000000-0000-0000-0000-000000000007', -2.5, 123456789012345678901234567890.12345678901234567890, 'infinity', '2024-01-01', 0.1, null, null, 3),
             ('00000000-0000-0000-0000-000000000008', -2.5, 'Infinity', '0044-03-15 12:00:00 BC', '0044-03-15 BC', 0.1, '{\"x,y\"}', '1 day', 3),
             ('00000000-0000-0000-0000-000000000009', -2.5, 1.10, '2024-01-01', '-infinity', 0.1, null, null, 3)",
        )
        .await;
    let source = database.source(&Wanted::default(), None);
    let mut reader = source.open("", "", 1, Limits::default()).await.unwrap();
    let chunk = reader.next().await.unwrap().unwrap();
    let codes: Vec<_> = chunk
        .refused
        .iter()
        .map(|refused| (refused.code, refused.field.as_str(), refused.position))
        .collect();
    assert_eq!(codes, [("range", "amount", 2), ("range", "at", 3), ("range", "day", 5)]);
    assert!(String::from_utf8_lossy(&chunk.refused[1].raw).contains("\"infinity\""));
    let records = &chunk.records;
    assert_eq!(records.positions, [1, 4]);
    let column = |name: &str| records.columns.column_by_name(name).unwrap();
    assert_eq!(column("free").as_string::<i32>().value(1), "Infinity");
    assert_eq!(column("tags").as_string::<i32>().value(1), "[\"x,y\"]");
    assert_eq!(column("f"), &(Arc::new(Float64Array::from(vec![None, Some(0.1)])) as ArrayRef));
    assert_eq!(column("iv").as_string::<i32>().value(1), "P1D");
    assert_eq!(column("code").as_string::<i32>().value(0).trim(), "ab");
    assert_eq!(column("mood").as_string::<i32>().value(0), "happy");
}

#[tokio::test]
async fn a_jsonb_that_the_server_refuses_is_refused_alone() {
    let database = tokio::task::spawn_blocking(Db::postgres).await.unwrap();
    let target = database.target(&Wanted::default());
    let values = StringArray::from(vec!["{}", "\"\\u0000\"", "not json", "[1]"]);
    let make = at(1).ids([1, 2, 3, 4]).column("j", FieldType::Json, Arc::new(values));
    let refused = vec!["1 type".to_owned(), "2 type".to_owned()];
    assert_eq!(write(&*target, make).await, (2, 0, refused));
}

#[tokio::test]
async fn times_that_postgres_cannot_hold_are_refused() {
    let database = tokio::task::spawn_blocking(Db::postgres).await.unwrap();
    let target = database.target(&Wanted::default());
    let times = TimestampMicrosecondArray::from(vec![i64::MIN, 0, i64::MAX]).with_timezone("UTC");
    let make = at(1).ids([1, 2, 3]).column("x", FieldType::Timestamp, Arc::new(times));
    assert_eq!(write(&*target, make).await, (2, 0, vec!["0 range".to_owned()]));
}

#[tokio::test]
async fn sqlite_values_that_break_their_promise_are_text() {
    let database = Db::sqlite();
    database
        .sql("create table t (id integer primary key, n integer, b boolean, x); insert into t values (1, 5, 1, 'a'), (2, 'n/a', 0, 2.5), (3, null, 7, null)")
        .await;
    let source = database.source(&Wanted::default(), None);
    let mut reader = source.open("", "", 1, Limits::default()).await.unwrap();
    let chunk = reader.next().await.unwrap().unwrap();
    let texts = |name: &str| -> Vec<Option<String>> {
        let column = chunk.records.columns.column_by_name(name).unwrap();
        column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(texts("n"), [some("5"), some("n/a"), None]);
    assert_eq!(texts("b"), [some("1"), some("0"), some("7")]);
    assert_eq!(texts("x"), [some("a"), some("2.5"), None]);
    let schema = source.infer().await.unwrap();
    let types: Vec<_> = schema.fields.iter().map(|field| field.field_type.to_string()).collect();
    assert_eq!(types, ["integer", "text", "text", "text"]);
}
