//! From a YAML tree to a pipeline.

mod http;
mod http_news;
mod http_rules;
mod http_source;
mod modes;
mod outbound;
mod pii;
mod push;
mod schema;
mod secrets;
mod shared;
mod source;
mod step;
mod target;
mod triggers;

use std::collections::BTreeMap;

use model::{ColumnPolicy, Contract, PipelineName, Schema, TablePolicy, TypePolicy};

pub use shared::{is_shared, parse_shared};

use crate::{
    Pipeline, Places, Problem, fields,
    problem::Problems,
    reader::{At, Keys},
    yaml,
};

const KEYS: [&str; 11] = [
    "pipeline",
    "description",
    "source",
    "triggers",
    "schema",
    "contract",
    "pii",
    "steps",
    "key",
    "newest_by",
    "targets",
];

/// Reads and checks a pipeline. `file` names the text in messages.
///
/// A pipeline that declares a schema is also checked for references to missing fields; for one that
/// does not, see [`crate::fields_after`].
///
/// # Errors
///
/// At least one problem, in the order of their lines. A text that is not YAML gives only the first
/// one.
pub fn parse(file: &str, yaml: &str) -> Result<Pipeline, Vec<Problem>> {
    let problems = Problems::new(file);
    let pipeline = yaml::read(yaml, &problems).and_then(|document| {
        let mut lines = BTreeMap::new();
        yaml::lines(&document, "", &mut lines);
        pipeline(&At::root(&document, &problems), Places::new(file, lines))
    });
    if let Some(pipeline) = &pipeline {
        modes::check(pipeline, &problems);
        pii::check(pipeline, &problems);
        push::check(pipeline, &problems);
        triggers::check(pipeline, &problems);
        if let Some(schema) = &pipeline.schema {
            fields::walk(pipeline, schema, &problems);
        }
    }
    match pipeline {
        Some(pipeline) if problems.is_empty() => Ok(pipeline),
        _ => Err(problems.into_vec()),
    }
}

fn pipeline(document: &At<'_>, places: Places) -> Option<Pipeline> {
    let keys = document.keys(&KEYS)?;
    let name = keys.require("pipeline", "add `pipeline: <name>`").and_then(|at| pipeline_name(&at));
    let description = match keys.get("description") {
        Some(at) => at.text(),
        None => Some(String::new()),
    };
    let source = keys
        .require("source", "add `source` with csv, json, http, postgres, sqlite or push")
        .and_then(|at| Some((source::source(&at)?, source::connection(&at)?)));
    let triggers = optional(&keys, "triggers", triggers::triggers);
    let schema = optional(&keys, "schema", |at| schema::schema(at).map(Some));
    let contract = optional(&keys, "contract", contract);
    let pii = optional(&keys, "pii", |at| {
        at.names("list the fields of the source that say who somebody is: `pii: [email, name]`")
    });
    let steps = optional(&keys, "steps", step::steps);
    let key = optional(&keys, "key", |at| {
        at.names("list the fields that identify a record: `key: [id]`")
    });
    let newest_by = optional(&keys, "newest_by", |at| at.name().map(Some));
    let targets = keys
        .require("targets", "add `targets` with at least one target")
        .and_then(|at| target::targets(&at));

    let declared: Option<Schema> = schema?;
    let (source, connection) = source?;
    Some(Pipeline {
        name: name?,
        description: description?,
        source,
        connection,
        triggers: triggers?,
        schema: declared,
        contract: contract?,
        pii: pii?,
        steps: steps?,
        key: key?,
        newest_by: newest_by?,
        targets: targets?,
        places,
    })
}

/// Reads the value of a key that may be missing; `None` where problems were noted.
fn optional<'a, T: Default>(
    keys: &Keys<'a>,
    key: &str,
    read: impl FnOnce(&At<'a>) -> Option<T>,
) -> Option<T> {
    match keys.get(key) {
        Some(at) => read(&at),
        None => Some(T::default()),
    }
}

fn pipeline_name(at: &At<'_>) -> Option<PipelineName> {
    let text = at.text()?;
    match PipelineName::try_from(text) {
        Ok(name) => Some(name),
        Err(error) => {
            at.problem(error.to_string(), "choose another name");
            None
        }
    }
}

fn contract(at: &At<'_>) -> Option<Contract> {
    let keys = at.keys(&["tables", "columns", "types"])?;
    let tables = optional(&keys, "tables", |at| {
        at.word(&[("evolve", TablePolicy::Evolve), ("freeze", TablePolicy::Freeze)])
    });
    let columns = optional(&keys, "columns", |at| {
        at.word(&[
            ("evolve", ColumnPolicy::Evolve),
            ("freeze", ColumnPolicy::Freeze),
            ("quarantine", ColumnPolicy::Quarantine),
            ("discard_value", ColumnPolicy::DiscardValue),
        ])
        .map(Some)
    });
    let types = optional(&keys, "types", |at| {
        at.word(&[
            ("evolve", TypePolicy::Evolve),
            ("freeze", TypePolicy::Freeze),
            ("quarantine", TypePolicy::Quarantine),
            ("discard_value", TypePolicy::DiscardValue),
        ])
    });
    Some(Contract { tables: tables?, columns: columns?, types: types? })
}
