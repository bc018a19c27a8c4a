//! Measures what a row costs: typing thirteen text columns, and expressions over them.
//!
//! Run it with `cargo run --release -p transformer --example cost`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use model::{FieldType, Ids, Records};

const BATCH: usize = 2_000;
const ROUNDS: usize = 101;

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
  items: json
key: [id]
newest_by: updated_at
targets:
  store: {sqlite: {path: store.db, table: customers}}
"#;

const EXPRESSIONS: [(&str, &str); 6] = [
    ("points * 2 + 1", "integer"),
    ("balance + limit", "decimal(14,2)"),
    ("email.lower().trim()", "text"),
    ("phone.matches('^[0-9 ]+$')", "boolean"),
    ("items.size()", "integer"),
    ("items.exists(i, i.price * 2.0 > balance)", "boolean"),
];

fn main() -> anyhow::Result<()> {
    let typed = measure(PIPELINE)?;
    eprintln!("typing: {typed:?} a row");
    for (expression, made) in EXPRESSIONS {
        let steps = format!(
            "steps: [{{compute: {{made: {{expression: \"{expression}\", type: \"{made}\"}}}}}}]\ntargets:"
        );
        let computed = measure(&PIPELINE.replace("targets:", &steps))?;
        eprintln!("{expression}: {:?} a row more", computed.saturating_sub(typed));
    }
    Ok(())
}

/// Returns the median time for a row.
fn measure(pipeline: &str) -> anyhow::Result<Duration> {
    let pipeline = spec::parse("customers.yaml", pipeline)
        .map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let schema = pipeline.schema.clone().unwrap_or_default();
    let program = transformer::Program::compile(&pipeline, &schema, &|_| None)?;
    let batch = batch(&schema)?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let outcome = program.apply(&batch);
        rounds.push(started.elapsed() / u32::try_from(BATCH)?);
        anyhow::ensure!(outcome.records.len() == BATCH, "records are missing");
    }
    rounds.sort_unstable();
    Ok(rounds[ROUNDS / 2])
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
            "items" => format!("[{}]", [r#"{"sku":"a-1","price":4.5,"count":2}"#; 5].join(",")),
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
