//! Measures what typing costs: a million rows of twelve text columns.
//!
//! Run it with `cargo run --release -p transformer --example typing`.

use std::{sync::Arc, time::Instant};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use model::{FieldType, Ids, Records};

const ROWS: usize = 1_000_000;
const BATCH: usize = 2_000;

const PIPELINE: &str = r#"
pipeline: customers
source: {csv: {path: customers.csv}}
schema:
  id: integer
  name: text
  email: text
  phone: text
  country: text
  points: integer
  balance: "decimal(12,2)"
  limit: "decimal(12,2)"
  born: date
  updated_at: timestamp
  active: boolean
  note: text
key: [id]
newest_by: updated_at
targets:
  store: {sqlite: {path: store.db, table: customers}}
"#;

fn main() -> anyhow::Result<()> {
    let pipeline = spec::parse("customers.yaml", PIPELINE)
        .map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let schema = pipeline.schema.clone().unwrap_or_default();
    let program = transformer::Program::compile(&pipeline, &schema, &|_| None)?;
    let batch = batch(&schema)?;
    let started = Instant::now();
    let mut kept = 0;
    for _ in 0..ROWS / BATCH {
        kept += program.apply(&batch).records.len();
    }
    let taken = started.elapsed();
    eprintln!("{kept} rows in {taken:?}: {:?} a row", taken / u32::try_from(ROWS)?);
    Ok(())
}

fn batch(schema: &model::Schema) -> anyhow::Result<Records> {
    let columns = schema.fields.iter().map(|field| {
        let texts = (0..BATCH).map(|row| match field.name.as_str() {
            "id" => (1_000_000 + row).to_string(),
            "points" => (row * 37 % 5_000).to_string(),
            "balance" | "limit" => format!("{}.{:02}", row * 977 % 100_000, row % 100),
            "born" => format!("19{:02}-{:02}-{:02}", row % 100, row % 12 + 1, row % 28 + 1),
            "updated_at" => {
                format!("2024-{:02}-11T{:02}:10:59.{:06}Z", row % 12 + 1, row % 24, row)
            }
            "active" => if row % 3 == 0 { "true" } else { "false" }.to_owned(),
            "email" => format!("customer{row}@example.org"),
            name => format!("{name} of {row}"),
        });
        Arc::new(texts.map(Some).collect::<StringArray>()) as ArrayRef
    });
    let fields: Vec<_> =
        schema.fields.iter().map(|field| FieldType::Text.arrow_field(&field.name)).collect();
    let arrow = Arc::new(arrow_schema::Schema::new(fields));
    Ok(Records {
        columns: RecordBatch::try_new(arrow, columns.collect())?,
        presence: Vec::new(),
        ids: Ids::Positions { prefix: "customers.csv:".to_owned() },
        positions: (2..).take(BATCH).collect(),
        extraction_base: 0,
        versions: None,
        operations: None,
    })
}
