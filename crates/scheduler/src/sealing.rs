//! What the database keeps of records, and what is shown of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use model::PipelineName;
use serde_json::Value;
use spec::{Pipeline, Source, pii_after};
use store::NewQuarantined;

use crate::{core::Scheduler, error::Error};

/// What stands for a value that is not shown.
const MASK: &str = "***";

/// Makes refused records fit for the database: seals what they hold if there are keys, and replaces
/// ids that may hold what is marked `pii`.
pub(crate) async fn seal(
    scheduler: &Scheduler,
    records: &mut [NewQuarantined],
) -> Result<(), Error> {
    let Some(keys) = scheduler.bus().seal_keys() else { return Ok(()) };
    let mut telling = HashMap::new();
    for record in records {
        let revision = (record.pipeline.clone(), record.revision);
        let has_telling_ids = match telling.get(&revision) {
            Some(known) => *known,
            None => {
                let found = has_telling_ids(scheduler, record).await?;
                telling.insert(revision, found);
                found
            }
        };
        if has_telling_ids {
            record.record = keys.stand_in(&record.record);
        }
        let place = place(&record.pipeline);
        for text in [&mut record.contents, &mut record.raw].into_iter().flatten() {
            *text = keys.seal(&place, text).into();
        }
    }
    Ok(())
}

/// Opens what [`seal`] has sealed.
pub(crate) fn open(
    scheduler: &Scheduler,
    pipeline: &PipelineName,
    sealed: Vec<u8>,
) -> Result<Bytes, Error> {
    scheduler.bus().open(&place(pipeline), sealed.into()).map_err(Error::Sealed)
}

/// Masks the fields that are marked `pii`, by the revision that refused the record or by the current
/// one.
pub(crate) async fn mask(
    scheduler: &Scheduler,
    record: &NewQuarantined,
    contents: &mut serde_json::Map<String, Value>,
) -> Result<(), Error> {
    let mut marked = BTreeSet::new();
    for pipeline in revisions(scheduler, record).await? {
        match record.stage.as_str() {
            "loader" => marked.extend(pii_after(&pipeline)),
            _ => marked.extend(pipeline.pii.iter().cloned()),
        }
    }
    for (name, value) in contents {
        if marked.contains(name) && !value.is_null() {
            *value = MASK.into();
        }
    }
    Ok(())
}

/// Returns what is shown of a text that could not be taken apart into fields.
pub(crate) async fn masked_text(
    scheduler: &Scheduler,
    record: &NewQuarantined,
    text: &[u8],
) -> Result<String, Error> {
    let marked = revisions(scheduler, record).await?.iter().any(|found| !found.pii.is_empty());
    let shown = if marked { MASK.into() } else { String::from_utf8_lossy(text) };
    Ok(Value::from(shown).to_string())
}

/// Ids of files are places in these; all others are made of keys, or chosen by who pushes.
async fn has_telling_ids(scheduler: &Scheduler, record: &NewQuarantined) -> Result<bool, Error> {
    let revisions = revisions(scheduler, record).await?;
    Ok(revisions.iter().any(|pipeline| {
        !pipeline.pii.is_empty() && !matches!(pipeline.source, Source::Csv(_) | Source::Json(_))
    }))
}

/// The pipeline of a record, as it was and as it is, where it can be read.
async fn revisions(
    scheduler: &Scheduler,
    record: &NewQuarantined,
) -> Result<Vec<Arc<Pipeline>>, Error> {
    let NewQuarantined { pipeline, revision, .. } = record;
    let store = scheduler.store();
    let current = store.pipeline(pipeline).await?.map(|stored| stored.revision);
    let then = match &current {
        Some(current) if current.revision == *revision => None,
        _ => store.revision(pipeline, *revision).await?,
    };
    let found = current.into_iter().chain(then);
    Ok(found.filter_map(|revision| scheduler.parsed(&revision).ok()).collect())
}

fn place(pipeline: &PipelineName) -> String {
    format!("quarantine/{pipeline}")
}
