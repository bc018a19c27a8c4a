#![doc = include_str!("../README.md")]

mod context;
mod csv;
mod files;
mod http;
mod infer;
mod json;
mod postgres;
mod push;
mod sql;
mod sqlite;

pub use context::Context;
pub use http::document;
pub use json::pushed;

use std::sync::Arc;

use connect::Error;
use model::Schema;

/// Decoders of what other systems send, for the fuzz targets.
#[cfg(feature = "fuzz")]
pub mod fuzz {
    pub use crate::{
        http::fuzz::read_answer,
        postgres::{fuzz::read_copy, read_log},
    };
}

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
    context: &Context,
) -> Result<Arc<dyn connect::Source>, Error> {
    Ok(match &pipeline.source {
        spec::Source::Csv(config) => {
            Arc::new(csv::Source::new(config, pipeline.contract, schema, accepted_fields))
        }
        spec::Source::Json(config) => {
            Arc::new(json::Source::new(config, pipeline.contract, schema, accepted_fields))
        }
        spec::Source::Http(config) => {
            Arc::new(http::Source::new(config, pipeline, schema, context)?)
        }
        spec::Source::Postgres(config) => match &config.capture {
            Some(capture) => Arc::new(postgres::Capture::new(
                config,
                capture,
                &pipeline.name,
                pipeline.contract,
                (schema, accepted_fields),
                &context.variables,
            )?),
            None => {
                let source = postgres::Source::new(
                    config,
                    pipeline.contract,
                    schema,
                    accepted_fields,
                    &context.variables,
                )?;
                Arc::new(source.for_run(&context.options))
            }
        },
        spec::Source::Push => Arc::new(push::Source),
        spec::Source::Sqlite(config) => {
            let source = sqlite::Source::new(config, pipeline.contract, schema, accepted_fields);
            Arc::new(source.for_run(&context.options))
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
    context: &Context,
) -> Result<Arc<dyn connect::Target>, Error> {
    Ok(match &target.system {
        spec::TargetSystem::Http(config) => {
            Arc::new(http::Target::new(config, pipeline, target, context)?)
        }
        spec::TargetSystem::Webhook(config) => {
            Arc::new(http::Target::webhook(config, pipeline, target, context)?)
        }
        spec::TargetSystem::Postgres { url } => {
            Arc::new(postgres::Target::new(url, pipeline, target, &context.variables)?)
        }
        spec::TargetSystem::Sqlite { path } => {
            Arc::new(sqlite::Target::new(path, pipeline, target))
        }
    })
}
