use model::{Field, FieldType};
use spec::Revision;
use store::NewRevision;

use crate::{
    core::Scheduler,
    error::{Error, chain},
    infer,
};

/// Makes fields part of the schema that the source has and the schema does not know, as a new
/// revision with the same text. Without such fields the revision stays.
pub(crate) async fn accept(
    scheduler: &Scheduler,
    revision: Revision,
    fields: &[String],
) -> Result<Revision, Error> {
    let pipeline = scheduler.parsed(&revision)?;
    let mut schema = pipeline.schema.clone().unwrap_or_default();
    let unknown: Vec<&String> = fields.iter().filter(|name| schema.field(name).is_none()).collect();
    if unknown.is_empty() {
        return Ok(revision);
    }
    // What the values look like is a help, not a condition.
    let inferred = infer::infer(scheduler, &revision.yaml).await.unwrap_or_else(|error| {
        tracing::info!(error = chain(&error), "accepted fields become text");
        model::Schema::default()
    });
    for name in unknown {
        let field = inferred.field(name).cloned();
        schema.fields.push(field.unwrap_or_else(|| Field::new(name, FieldType::Text)));
    }
    let change = NewRevision {
        name: revision.name.clone(),
        replaces: Some(revision.revision),
        yaml: revision.yaml,
        schema: Some(schema),
        forget_cursors: false,
    };
    let mut applied = scheduler.store().apply(vec![change], scheduler.now()).await?;
    let revision = applied.pop().expect("one revision was applied");
    tracing::info!(
        pipeline.name = %revision.name,
        revision = revision.revision,
        "fields of the source were accepted"
    );
    Ok(revision)
}
