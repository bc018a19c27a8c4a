#![doc = include_str!("../README.md")]

mod csv;
mod files;
mod infer;
mod json;
mod postgres;
mod sql;
mod sqlite;

use std::sync::Arc;

use connect::Error;
use model::Schema;

/// Looks up environment variables, for secret references.
pub type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Builds the source of a pipeline. Nothing is reached yet, but secrets are resolved.
///
/// `schema` is the declared or inferred schema; without one only `check`, `discover` and `infer`
/// make sense. `accepted_fields` are names of fields that are welcome though the schema does not
/// know them.
///
/// # Errors
///
/// When a secret cannot be resolved or a setting cannot work.
pub fn source(
    pipeline: &spec::Pipeline,
    schema: Option<&Schema>,
    accepted_fields: &[String],
    variables: &Variables,
) -> Result<Arc<dyn connect::Source>, Error> {
    Ok(match &pipeline.source {
        spec::Source::Csv(config) => {
            Arc::new(csv::Source::new(config, pipeline.contract, schema, accepted_fields))
        }
        spec::Source::Json(config) => {
            Arc::new(json::Source::new(config, pipeline.contract, schema, accepted_fields))
        }
        spec::Source::Postgres(config) => Arc::new(postgres::Source::new(
            config,
            pipeline.contract,
            schema,
            accepted_fields,
            variables,
        )?),
        spec::Source::Sqlite(config) => {
            Arc::new(sqlite::Source::new(config, pipeline.contract, schema, accepted_fields))
        }
    })
}

/// Builds one target of a pipeline. Nothing is reached yet, but secrets are resolved.
///
/// # Errors
///
/// When a secret cannot be resolved or a setting cannot work.
pub fn target(
    pipeline: &spec::Pipeline,
    target: &spec::Target,
    variables: &Variables,
) -> Result<Arc<dyn connect::Target>, Error> {
    Ok(match &target.system {
        spec::TargetSystem::Postgres { url } => {
            Arc::new(postgres::Target::new(url, pipeline, target, variables)?)
        }
        spec::TargetSystem::Sqlite { path } => {
            Arc::new(sqlite::Target::new(path, pipeline, target))
        }
    })
}
