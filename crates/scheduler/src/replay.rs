//! Sends quarantined records out again, as batches of a run of their own.
//!
//! A record that was refused before the targets goes through the current steps again; one that a
//! target refused has the target's shape already and goes to that target alone. Records keep their
//! ids and versions, so what is newer in the target stays.

use arrow_array::StringArray;
use bus::Outgoing;
use model::{Batch, BatchHeader, BatchId, Ids, Operation, PipelineName, Records, RunId};
use store::{ReplayBatch, Replayable, Run, Selection, Trigger};
use tracing::Instrument;

use crate::{
    catalog,
    core::Scheduler,
    error::{Error, chain},
    infer, sealing,
    start::{Start, new_run},
};

/// Records that are read from the database at once.
const PAGE: u32 = 500;
/// Rough size of the records of a batch.
const BATCH_BYTES: usize = 256 * 1024;

/// What a replay has begun.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) records: u64,
    pub(crate) runs: Vec<RunId>,
}

/// Begins the replay of the selected records, as one run per pipeline.
pub(crate) async fn replay(
    scheduler: &Scheduler,
    selection: &Selection,
) -> Result<Replayed, Error> {
    let mut replayed = Replayed::default();
    for name in scheduler.store().pipelines_to_replay(selection).await? {
        let stored = scheduler.store().pipeline(&name).await?;
        let stored = stored.ok_or_else(|| store::Error::NoPipeline(name.clone()))?;
        let revision = infer::with_schema(scheduler, stored.revision).await?;
        let pipeline = scheduler.parsed(&revision)?;
        let asked = Start { trigger: Trigger::Replay, ..Start::default() };
        let new = new_run(&revision, &pipeline, asked, None);
        let created = scheduler.store().create_replay(&new, selection, scheduler.now()).await?;
        let Some((run, records)) = created else { continue };
        tracing::info!(
            run.id = %run.id, pipeline.name = %name, records, trigger = %run.trigger,
            "a run has started"
        );
        if let Err(error) = catalog::put(scheduler, &revision, true).await {
            tracing::warn!(%error, "a revision could not be put into the broker yet");
        }
        publish_in_background(scheduler, &run);
        replayed.records += records;
        replayed.runs.push(run.id);
    }
    if replayed.runs.is_empty() {
        return Err(Error::NothingToReplay);
    }
    Ok(replayed)
}

/// Publishes the records of a replay that are in no batch yet. What is cut off is found missing
/// later, because nothing moves.
pub(crate) fn publish_in_background(scheduler: &Scheduler, run: &Run) {
    let span = tracing::info_span!(
        "run", run.id = %run.id, pipeline.name = %run.pipeline, attempt = run.attempt
    );
    let (owned, run) = (scheduler.clone(), run.clone());
    let publishing = async move {
        if let Err(error) = publish(&owned, &run).await {
            tracing::warn!(
                run.id = %run.id, error = chain(&error), "a replay stopped, it will go on later"
            );
        }
        owned.fall_behind([run.id]);
    };
    scheduler.in_background(publishing.instrument(span));
}

async fn publish(scheduler: &Scheduler, run: &Run) -> Result<(), Error> {
    let mut sequence = 0;
    loop {
        let page = scheduler.store().replayable(run.id, PAGE).await?;
        if page.is_empty() {
            break;
        }
        let (records, unreadable) = decode(scheduler, &run.pipeline, page)?;
        scheduler.store().leave_out_of_replay(run.id, &unreadable).await?;
        for group in group(records) {
            let header = group.header(run, sequence);
            let batch = ReplayBatch {
                batch: header.batch.as_str().to_owned(),
                sequence,
                only_target: (!group.target.is_empty()).then(|| group.target.clone()),
                ids: group.ids,
            };
            let now = scheduler.now();
            let store = scheduler.store();
            if !store.register_replay_batch(run.id, run.attempt, &batch, now).await? {
                return Ok(());
            }
            publish_batch(scheduler, &group.target, &Batch { header, records: group.records })
                .await?;
            sequence += 1;
        }
    }
    scheduler.store().replay_is_planned(run.id, run.attempt, scheduler.now()).await?;
    Ok(())
}

async fn publish_batch(scheduler: &Scheduler, target: &str, batch: &Batch) -> Result<(), Error> {
    let names = scheduler.bus().names();
    let BatchHeader { pipeline, batch: id, attempt, .. } = &batch.header;
    let (subject, id) = if target.is_empty() {
        (names.raw(pipeline), format!("{id}#{attempt}"))
    } else {
        let target: PipelineName = target.parse()?;
        (names.ready(pipeline, &target), format!("{id}#{attempt}/{target}"))
    };
    let message = Outgoing::new(subject, wire::encode(batch)).with_id(id);
    if let Err(error) = scheduler.bus().publish(message).await {
        // The batch is in the books, so it is missed and goes out again.
        tracing::warn!(%error, "a batch of a replay could not be published");
    }
    Ok(())
}

/// A record of a replay.
struct One {
    id: i64,
    target: String,
    records: Records,
    size: usize,
}

/// Records that can travel in one batch.
struct Group {
    target: String,
    ids: Vec<i64>,
    records: Records,
}

impl Group {
    /// The header under which the records travel now.
    fn header(&self, run: &Run, sequence: u32) -> BatchHeader {
        let hash = wire::encode_records(&self.records).content_hash();
        let count = u32::try_from(self.records.len()).expect("a group is smaller than a page");
        BatchHeader {
            pipeline: run.pipeline.clone(),
            revision: run.revision,
            run: run.id,
            attempt: run.attempt,
            batch: BatchId::new(run.id, 0, u64::from(sequence), u64::from(sequence), hash),
            part: 0,
            sequence,
            cursor_before: String::new(),
            cursor_after: String::new(),
            extracted: count,
            push: None,
        }
    }
}

/// Decodes records and returns the ids of those that this version cannot read.
fn decode(
    scheduler: &Scheduler,
    pipeline: &PipelineName,
    page: Vec<Replayable>,
) -> Result<(Vec<One>, Vec<i64>), Error> {
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    for Replayable { id, target, contents } in page {
        let size = contents.len();
        match wire::decode(sealing::open(scheduler, pipeline, contents)?) {
            Ok(batch) if batch.records.len() == 1 => {
                records.push(One { id, target, records: batch.records, size });
            }
            Ok(_) | Err(_) => unreadable.push(id),
        }
    }
    Ok((records, unreadable))
}

/// Puts records of one target and one shape together, in order.
fn group(records: Vec<One>) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut open: Vec<One> = Vec::new();
    let mut size = 0;
    for one in records {
        let fits = open.first().is_none_or(|first| {
            first.target == one.target
                && first.records.columns.schema() == one.records.columns.schema()
                && size + one.size <= BATCH_BYTES
        });
        if !fits {
            groups.push(close(std::mem::take(&mut open)));
            size = 0;
        }
        size += one.size;
        open.push(one);
    }
    if !open.is_empty() {
        groups.push(close(open));
    }
    groups
}

/// Joins records into one batch. Each keeps its id, its version and its extraction time.
fn close(mut records: Vec<One>) -> Group {
    // Positions ascend in a batch.
    records.sort_by_key(|one| one.records.extracted_at(0));
    let base = records.first().map_or(0, |one| one.records.extracted_at(0));
    let schema = records[0].records.columns.schema();
    let columns: Vec<_> = records.iter().map(|one| &one.records.columns).collect();
    let columns = arrow_select::concat::concat_batches(&schema, columns)
        .expect("the records of a group have one schema");
    let presence = (0..schema.fields().len())
        .map(|column| {
            let bits: Vec<bool> =
                records.iter().map(|one| one.records.is_present(column, 0)).collect();
            (!bits.iter().all(|bit| *bit)).then(|| bits.into())
        })
        .collect();
    let ids: Vec<String> = records.iter().map(|one| one.records.id(0)).collect();
    let explicit = records.iter().any(|one| one.records.versions.is_some());
    let operations: Vec<Operation> = records.iter().map(|one| one.records.operation(0)).collect();
    Group {
        target: records[0].target.clone(),
        ids: records.iter().map(|one| one.id).collect(),
        records: Records {
            columns,
            presence,
            ids: Ids::Explicit(StringArray::from(ids)),
            positions: records
                .iter()
                .map(|one| one.records.extracted_at(0).abs_diff(base))
                .collect(),
            extraction_base: base,
            versions: explicit
                .then(|| records.iter().map(|one| one.records.version(0).0).collect()),
            operations: operations
                .iter()
                .any(|operation| *operation != Operation::Upsert)
                .then_some(operations),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    use model::FieldType;

    use super::*;

    fn one(id: i64, target: &str, field: &str, position: u64, base: i64) -> One {
        let schema = arrow_schema::Schema::new(vec![FieldType::Integer.arrow_field(field)]);
        let values: ArrayRef = Arc::new(Int64Array::from(vec![id]));
        One {
            id,
            target: target.to_owned(),
            records: Records {
                columns: RecordBatch::try_new(Arc::new(schema), vec![values]).unwrap(),
                presence: Vec::new(),
                ids: Ids::Positions { prefix: "f:".to_owned() },
                positions: vec![position],
                extraction_base: base,
                versions: None,
                operations: None,
            },
            size: 100,
        }
    }

    #[test]
    fn records_of_other_targets_and_shapes_travel_apart() {
        let groups = group(vec![
            one(1, "", "a", 1, 10),
            one(2, "", "a", 2, 10),
            one(3, "", "b", 3, 10),
            one(4, "store", "b", 4, 10),
        ]);
        let ids: Vec<_> = groups.iter().map(|group| group.ids.clone()).collect();
        assert_eq!(ids, [vec![1, 2], vec![3], vec![4]]);
    }

    #[test]
    fn a_record_keeps_its_id_and_its_version() {
        let groups = group(vec![one(1, "", "a", 7, 1_000), one(2, "", "a", 3, 500)]);
        let records = &groups[0].records;
        records.validate().unwrap();
        assert_eq!(groups[0].ids, [2, 1]);
        assert_eq!((records.id(0), records.version(0)), ("f:3".to_owned(), (503, 503)));
        assert_eq!((records.id(1), records.version(1)), ("f:7".to_owned(), (1_007, 1_007)));
    }
}
