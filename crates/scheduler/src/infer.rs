use bus::questions::{ExtractQuestion, Inferred};
use model::Schema;
use spec::{Pipeline, Revision};

use crate::{core::Scheduler, error::Error, questions::ask_extractor};

/// Returns the revision with its schema: the declared one, the one that is stored, or one that an
/// extractor infers now and that is stored from here on.
pub(crate) async fn with_schema(
    scheduler: &Scheduler,
    mut revision: Revision,
) -> Result<Revision, Error> {
    let pipeline = scheduler.parsed(&revision)?;
    if pipeline.schema.is_some() {
        return Ok(revision);
    }
    let schema = infer(scheduler, &revision.yaml).await?;
    fits(&pipeline, &schema)?;
    let kept = scheduler.store().keep_schema(&revision.name, revision.revision, &schema).await?;
    tracing::info!(
        pipeline.name = %revision.name,
        revision = revision.revision,
        fields = kept.fields.len(),
        "the schema of the source was inferred"
    );
    revision.schema = Some(kept);
    Ok(revision)
}

/// Asks an extractor what the records of a source look like.
pub(crate) async fn infer(scheduler: &Scheduler, yaml: &str) -> Result<Schema, Error> {
    let question = ExtractQuestion::Infer { pipeline: yaml.to_owned() };
    let Inferred { schema } = ask_extractor(scheduler, &question).await?;
    Ok(schema)
}

/// Steps and keys could not be compared with a schema before it was known.
fn fits(pipeline: &Pipeline, schema: &Schema) -> Result<(), Error> {
    spec::fields_after(pipeline, schema).map(drop).map_err(|problems| Error::Unfit {
        pipeline: pipeline.name.clone(),
        problem: problems.first().map(ToString::to_string).unwrap_or_default(),
    })
}
