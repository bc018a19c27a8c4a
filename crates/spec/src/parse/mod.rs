//! From a YAML tree to a pipeline.

mod modes;
mod schema;
mod secrets;
mod source;
mod step;
mod target;

use std::{collections::BTreeMap, time::Duration};

use model::{ColumnPolicy, Contract, PipelineName, Schema, TablePolicy, TypePolicy};

use crate::{
    Pipeline, Places, Problem, Triggers, fields,
    problem::Problems,
    reader::{At, Keys},
    yaml,
};

const KEYS: [&str; 10] = [
    "pipeline",
    "description",
    "source",
    "triggers",
    "schema",
    "contract",
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
        .require("source", "add `source` with csv, json, postgres or sqlite")
        .and_then(|at| source::source(&at));
    let triggers = optional(&keys, "triggers", triggers);
    let schema = optional(&keys, "schema", |at| schema::schema(at).map(Some));
    let contract = optional(&keys, "contract", contract);
    let steps = optional(&keys, "steps", step::steps);
    let key = optional(&keys, "key", |at| {
        at.names("list the fields that identify a record: `key: [id]`")
    });
    let newest_by = optional(&keys, "newest_by", |at| at.name().map(Some));
    let targets = keys
        .require("targets", "add `targets` with at least one target")
        .and_then(|at| target::targets(&at));

    let declared: Option<Schema> = schema?;
    Some(Pipeline {
        name: name?,
        description: description?,
        source: source?,
        triggers: triggers?,
        schema: declared,
        contract: contract?,
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

fn triggers(at: &At<'_>) -> Option<Triggers> {
    let keys = at.keys(&["every"])?;
    let every = optional(&keys, "every", |at| {
        let every = at.duration()?;
        if every < Duration::from_secs(1) {
            at.problem("a run cannot start more than once a second", "write at least `1s`");
            return None;
        }
        Some(Some(every))
    })?;
    Some(Triggers { every })
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
