//! The bucket of pipeline revisions, from which the stages learn what to do. The database is the
//! truth; the bucket is put right after it, also after the broker has lost it.

use std::collections::HashSet;

use bus::Bucket;
use model::PipelineName;
use spec::Revision;
use store::Run;

use crate::{core::Scheduler, error::Error};

/// Puts what is missing and removes what is deleted.
pub(crate) async fn restore(scheduler: &Scheduler) -> Result<(), Error> {
    let bucket = scheduler.bus().key_value(Bucket::Pipelines);
    let stored = scheduler.store().pipelines().await?;
    let keys: HashSet<String> = bucket.keys().await?.into_iter().collect();
    let mut names = HashSet::new();
    for pipeline in stored {
        let revision = pipeline.revision;
        let name = revision.name.as_str();
        names.insert(name.to_owned());
        let complete = keys.contains(name) && keys.contains(&numbered(&revision));
        if complete && scheduler.is_known_to_be_put(&revision) {
            continue;
        }
        let text = written(&revision);
        if complete && bucket.get(name).await?.is_some_and(|current| current == text) {
            scheduler.know_to_be_put(revision);
        } else {
            put(scheduler, &revision, true).await?;
        }
    }
    for revision in scheduler.store().earlier_revisions_in_use().await? {
        if !keys.contains(&numbered(&revision)) {
            put(scheduler, &revision, false).await?;
        }
    }
    for key in keys {
        let name = key.split('.').next().unwrap_or_default();
        if names.contains(name) {
            continue;
        }
        let Ok(name) = name.parse::<PipelineName>() else { continue };
        // It may have been applied since the database was read.
        if scheduler.store().pipeline(&name).await?.is_none() {
            bucket.delete(&key).await?;
        }
    }
    Ok(())
}

/// Puts a revision under its number, and under its name if it is the current one. One whose schema
/// is not inferred yet is left out.
pub(crate) async fn put(
    scheduler: &Scheduler,
    revision: &Revision,
    current: bool,
) -> Result<(), Error> {
    // A stage may take up a revision at once, and then without the schema that comes later.
    let pipeline = scheduler.parsed(revision)?;
    if pipeline.schema.is_none() {
        return Ok(());
    }
    // Without the revision no stage begins anything.
    if !pipeline.pii.is_empty() && scheduler.bus().seal_keys().is_none() {
        return Err(Error::NoSealKeys(revision.name.clone()));
    }
    let bucket = scheduler.bus().key_value(Bucket::Pipelines);
    let text = written(revision);
    bucket.put(&numbered(revision), text.clone()).await?;
    if current {
        bucket.put(revision.name.as_str(), text).await?;
        scheduler.know_to_be_put(revision.clone());
    }
    Ok(())
}

/// Puts the revision that a run was started with.
pub(crate) async fn put_revision_of(scheduler: &Scheduler, run: &Run) -> Result<(), Error> {
    scheduler.bus().provision().await?;
    if let Some(revision) = scheduler.store().revision(&run.pipeline, run.revision).await? {
        put(scheduler, &revision, false).await?;
    }
    Ok(())
}

/// Removes all revisions of a pipeline and the work that waits for it.
pub(crate) async fn remove(scheduler: &Scheduler, name: &PipelineName) -> Result<(), Error> {
    let bucket = scheduler.bus().key_value(Bucket::Pipelines);
    for key in bucket.keys().await? {
        if key.split('.').next() == Some(name.as_str()) {
            bucket.delete(&key).await?;
        }
    }
    scheduler.bus().delete_pipeline(name).await?;
    Ok(())
}

fn numbered(revision: &Revision) -> String {
    format!("{}.{}", revision.name, revision.revision)
}

fn written(revision: &Revision) -> Vec<u8> {
    serde_json::to_vec(revision).expect("a revision consists of texts and numbers")
}
