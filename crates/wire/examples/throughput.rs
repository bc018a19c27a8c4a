//! Encodes and decodes a million rows of twelve columns and prints what a row costs.
//!
//! `cargo run --release -p wire --example throughput`

use std::{sync::Arc, time::Instant};

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use model::{Batch, BatchHeader, BatchId, FieldType, Ids, Records, RunId};

const ROWS_PER_BATCH: i64 = 2_000;
const BATCHES: usize = 500;

fn main() {
    let batch = batch();
    let rows = f64::from(u32::try_from(BATCHES).expect("few batches")) * 2_000.0;

    let start = Instant::now();
    let mut bytes = 0;
    let mut message = wire::encode(&batch);
    for _ in 0..BATCHES {
        let records = wire::encode_records(&batch.records);
        std::hint::black_box(records.content_hash());
        message = records.into_message(&batch.header);
        bytes += message.len();
    }
    report("encode", start, rows);

    let start = Instant::now();
    for _ in 0..BATCHES {
        std::hint::black_box(wire::decode(message.clone()).expect("it was just encoded"));
    }
    report("decode", start, rows);
    tell(&format!("{:.0} bytes per row", bytes as f64 / rows));
}

fn report(what: &str, start: Instant, rows: f64) {
    let took = start.elapsed();
    tell(&format!("{what}: {took:.2?}, {:.0} ns per row", took.as_nanos() as f64 / rows));
}

#[expect(clippy::print_stdout, reason = "this program is there to print")]
fn tell(line: &str) {
    println!("{line}");
}

fn batch() -> Batch {
    let rows = || 0..ROWS_PER_BATCH;
    let text = |name: &'static str, form: &dyn Fn(i64) -> Option<String>| {
        let values: ArrayRef = Arc::new(rows().map(form).collect::<StringArray>());
        (name, FieldType::Text, values)
    };
    let decimal = FieldType::Decimal { precision: 12, scale: 2 };
    let totals: Decimal128Array = rows().map(|n| Some(i128::from(n * 1_799 - 5))).collect();
    let columns: Vec<(&str, FieldType, ArrayRef)> = vec![
        ("id", FieldType::Integer, Arc::new(rows().map(Some).collect::<Int64Array>())),
        text("email", &|n| Some(format!("customer.{n}@example.com"))),
        text("first_name", &|n| Some(format!("Given{}", n % 97))),
        text("last_name", &|n| Some(format!("Family{}", n % 1_013))),
        text("phone", &|n| (n % 5 != 0).then(|| format!("+44 20 7946 {n:04}"))),
        text("city", &|n| Some(format!("City {}", n % 300))),
        text("country", &|_| Some("GB".to_owned())),
        text("notes", &|n| (n % 3 == 0).then(|| "asked for a call back".to_owned())),
        (
            "active",
            FieldType::Boolean,
            Arc::new(BooleanArray::from_iter(rows().map(|n| Some(n % 2 == 0)))),
        ),
        (
            "born",
            FieldType::Date,
            Arc::new(rows().map(|n| i32::try_from(n).ok()).collect::<Date32Array>()),
        ),
        (
            "total",
            decimal,
            Arc::new(totals.with_precision_and_scale(12, 2).expect("twelve digits")),
        ),
        (
            "seen_at",
            FieldType::Timestamp,
            Arc::new(
                rows()
                    .map(|n| Some(1_700_000_000_000_000 + n))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
        ),
    ];
    let fields: Vec<_> =
        columns.iter().map(|(name, field_type, _)| field_type.arrow_field(name)).collect();
    let arrays = columns.into_iter().map(|(_, _, array)| array).collect();
    let run = RunId::generate();
    Batch {
        header: BatchHeader {
            pipeline: "shop".parse().expect("a valid name"),
            revision: 1,
            run,
            attempt: 1,
            batch: BatchId::new(run, 0, 1, 2_000, 0),
            part: 0,
            sequence: 0,
            cursor_before: String::new(),
            cursor_after: "2000".to_owned(),
            extracted: 2_000,
        },
        records: Records {
            columns: RecordBatch::try_new(arrow_schema::Schema::new(fields).into(), arrays)
                .expect("the columns fit"),
            presence: Vec::new(),
            ids: Ids::Positions { prefix: "customers.csv:".to_owned() },
            positions: (500_000..502_000).collect(),
            extraction_base: 1_700_000_000_000_000_000,
            versions: None,
            operations: None,
        },
    }
}
