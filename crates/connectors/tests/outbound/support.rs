use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use connect::{LocalMemory, Memory, Target, Throttle, Unlimited, Written};
use model::{Batch, BatchHeader, BatchId, Ids, Operation, Records, RunId};

/// A row: id, name, city.
pub(crate) type Row<'a> = (i64, Option<&'a str>, Option<&'a str>);

/// Makes what one process has of a target.
pub(crate) fn target(memory: &Arc<LocalMemory>, system: &str) -> Arc<dyn Target> {
    throttled(memory, system, Arc::new(Unlimited))
}

/// Makes what one process has of a target, with quotas.
pub(crate) fn throttled(
    memory: &Arc<LocalMemory>,
    system: &str,
    throttle: Arc<dyn Throttle>,
) -> Arc<dyn Target> {
    let yaml = format!(
        "pipeline: shop\nsource: {{csv: {{path: x.csv}}}}\nkey: [id]\n\
         targets:\n  api:\n{}",
        system.lines().map(|line| format!("    {line}\n")).collect::<String>()
    );
    let pipeline = spec::parse("test", &yaml).unwrap_or_else(|problems| panic!("{problems:?}"));
    let context = connectors::Context::new(
        Arc::new(|name| {
            (name == "SECRET").then(|| "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())
        }),
        throttle,
        Arc::clone(memory) as Arc<dyn Memory>,
    );
    connectors::target(&pipeline, &pipeline.targets[0], &context).unwrap()
}

/// The usual target: one call per record.
pub(crate) fn api(memory: &Arc<LocalMemory>, url: &str, more: &str) -> Arc<dyn Target> {
    target(
        memory,
        &format!(
            "http:\n  base_url: {url}\n  allow_private: true\n  timeout: 300ms\n  \
             upsert: {{method: PUT, path: \"/customers/{{{{ id }}}}\"}}\n{}",
            more.lines().map(|line| format!("  {line}\n")).collect::<String>()
        ),
    )
}

/// Makes a batch of upserts whose versions begin at `version`.
pub(crate) fn batch(run: RunId, version: i64, rows: &[Row<'_>]) -> Batch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let names: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>());
    let cities: ArrayRef = Arc::new(rows.iter().map(|row| row.2).collect::<StringArray>());
    let columns = [("id", ids, true), ("name", names, true), ("city", cities, true)];
    let count = u64::try_from(rows.len()).unwrap();
    let records = Records {
        columns: RecordBatch::try_from_iter_with_nullable(columns).unwrap(),
        presence: Vec::new(),
        ids: Ids::Positions { prefix: format!("f@{version}:") },
        positions: (0..count).collect(),
        extraction_base: version,
        versions: None,
        operations: None,
    };
    let header = BatchHeader {
        pipeline: "shop".parse().unwrap(),
        revision: 1,
        run,
        attempt: 1,
        batch: BatchId::new(run, 0, 0, count, 1),
        part: 0,
        sequence: 0,
        cursor_before: String::new(),
        cursor_after: "1".to_owned(),
        extracted: u32::try_from(count).unwrap(),
        push: None,
    };
    Batch { header, records }
}

/// Makes the records of a batch deletes.
pub(crate) fn deletes(mut batch: Batch) -> Batch {
    batch.records.operations = Some(vec![Operation::Delete; batch.records.len()]);
    batch
}

/// Returns loaded, unchanged and refused.
pub(crate) fn counts(written: &[Written]) -> (u32, u32, usize) {
    written.iter().fold((0, 0, 0), |(loaded, unchanged, refused), written| {
        (loaded + written.loaded, unchanged + written.unchanged, refused + written.refused.len())
    })
}
