//! What the database keeps of records, and what is shown of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use model::PipelineName;
use serde_json::{Map, Value};
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
/// one; all fields where one of the two cannot be read.
pub(crate) async fn mask(
    scheduler: &Scheduler,
    record: &NewQuarantined,
    contents: &mut Map<String, Value>,
) -> Result<(), Error> {
    let revisions = revisions(scheduler, record).await?;
    let marked = revisions.map(|revisions| marked(&revisions, &record.stage));
    hide(contents, marked.as_ref());
    Ok(())
}

/// The fields that are marked where a stage stands.
fn marked(revisions: &[Arc<Pipeline>], stage: &str) -> BTreeSet<String> {
    let of = |pipeline: &Arc<Pipeline>| match stage {
        "loader" => pii_after(pipeline),
        _ => pipeline.pii.iter().cloned().collect(),
    };
    revisions.iter().flat_map(of).collect()
}

/// Replaces the values of marked fields; of all where nobody knows which are.
fn hide(contents: &mut Map<String, Value>, marked: Option<&BTreeSet<String>>) {
    for (name, value) in contents {
        if !value.is_null() && marked.is_none_or(|marked| marked.contains(name)) {
            *value = MASK.into();
        }
    }
}

/// Returns what is shown of a text that could not be taken apart into fields.
pub(crate) async fn masked_text(
    scheduler: &Scheduler,
    record: &NewQuarantined,
    text: &[u8],
) -> Result<String, Error> {
    let holds_marked = has_marks(revisions(scheduler, record).await?.as_deref());
    let shown = if holds_marked { MASK.into() } else { String::from_utf8_lossy(text) };
    Ok(Value::from(shown).to_string())
}

fn has_marks(revisions: Option<&[Arc<Pipeline>]>) -> bool {
    revisions.is_none_or(|revisions| revisions.iter().any(|pipeline| !pipeline.pii.is_empty()))
}

/// Ids of files are places in these; all others are made of keys, or chosen by who pushes.
async fn has_telling_ids(scheduler: &Scheduler, record: &NewQuarantined) -> Result<bool, Error> {
    let revisions = revisions(scheduler, record).await?;
    let is_file =
        |pipeline: &Arc<Pipeline>| matches!(pipeline.source, Source::Csv(_) | Source::Json(_));
    let are_files = revisions.as_ref().is_some_and(|revisions| revisions.iter().all(is_file));
    Ok(!are_files && has_marks(revisions.as_deref()))
}

/// The pipeline of a record, as it was and as it is; `None` where one of them cannot be read.
async fn revisions(
    scheduler: &Scheduler,
    record: &NewQuarantined,
) -> Result<Option<Vec<Arc<Pipeline>>>, Error> {
    let NewQuarantined { pipeline, revision, .. } = record;
    let store = scheduler.store();
    let Some(current) = store.pipeline(pipeline).await?.map(|stored| stored.revision) else {
        return Ok(None);
    };
    let mut found = vec![current];
    // A record whose message could not be read is of revision 0.
    if *revision != 0 && *revision != found[0].revision {
        let Some(then) = store.revision(pipeline, *revision).await? else { return Ok(None) };
        found.push(then);
    }
    Ok(found.iter().map(|revision| scheduler.parsed(revision).ok()).collect())
}

/// What the quarantine's records of a pipeline are sealed for.
pub(crate) fn place(pipeline: &PipelineName) -> String {
    format!("quarantine/{pipeline}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(marked: Option<&BTreeSet<String>>) -> Value {
        let mut contents = json!({"id": 7, "email": "ada@example.com", "phone": null});
        hide(contents.as_object_mut().unwrap(), marked);
        contents
    }

    #[test]
    fn marked_fields_are_hidden_and_all_where_the_marks_are_unknown() {
        let marked = BTreeSet::from(["email".to_owned(), "phone".to_owned()]);
        assert_eq!(shown(Some(&marked)), json!({"id": 7, "email": "***", "phone": null}));
        assert_eq!(shown(Some(&BTreeSet::new()))["email"], "ada@example.com");
        assert_eq!(shown(None), json!({"id": "***", "email": "***", "phone": null}));
        assert!(has_marks(None) && !has_marks(Some(&[])));
    }
}
