//! Follows the fields through the steps without any record.

use std::collections::HashSet;

use model::{Field, FieldType, Schema};

use crate::{
    Cast, Expression, Flatten, Pipeline, Problem, Step, TargetSystem, nearest::suggest,
    problem::Problems, text,
};

/// Columns that the loader adds to tables.
const RESERVED: [&str; 6] =
    ["_version", "_extracted_at", "_deleted_at", "_record", "_run", "_loaded_at"];
/// Longest name that PostgreSQL keeps whole.
const MAX_NAME_BYTES: usize = 63;

/// Returns the fields of the records after all steps, in the order of the target's columns.
///
/// `schema` describes the records of the source: the pipeline's own schema, or an inferred one.
/// Fields of the key are `required`.
///
/// # Errors
///
/// Every reference to a field that does not exist at its place, and every field whose type or name
/// does not fit what is done with it.
pub fn fields_after(pipeline: &Pipeline, schema: &Schema) -> Result<Vec<Field>, Vec<Problem>> {
    let problems = Problems::new(pipeline.places.file());
    let fields = walk(pipeline, schema, &problems);
    if problems.is_empty() { Ok(fields) } else { Err(problems.into_vec()) }
}

pub(crate) fn walk(pipeline: &Pipeline, schema: &Schema, problems: &Problems) -> Vec<Field> {
    let mut walk = Walk { pipeline, problems, path: String::new(), fields: schema.fields.clone() };
    for name in &pipeline.pii {
        walk.find("pii", name);
    }
    for (index, step) in pipeline.steps.iter().enumerate() {
        walk.path = format!("steps[{index}].{}", step.kind());
        walk.step(step);
    }
    walk.path = String::new();
    walk.result();
    walk.fields
}

/// Returns the name of the field that a key of a flattened object becomes.
#[must_use]
pub fn flattened_name(flatten: &Flatten, key: &str) -> String {
    format!("{}{}", flatten.prefix, key.replace('.', "_"))
}

struct Walk<'a> {
    pipeline: &'a Pipeline,
    problems: &'a Problems,
    path: String,
    fields: Vec<Field>,
}

impl Walk<'_> {
    fn problem(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let path = match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{key}", self.path),
        };
        let line = self.pipeline.places.line(&path);
        self.problems.add(line, &path, message, remedy);
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// Finds a field, or notes that it is missing.
    fn find(&self, key: &str, name: &str) -> Option<usize> {
        let found = self.position(name);
        if found.is_none() {
            let names: Vec<&str> = self.fields.iter().map(|f| f.name.as_str()).collect();
            self.problem(
                key,
                format!("there is no field `{name}` here"),
                suggest(name, "fields", &names),
            );
        }
        found
    }

    /// Finds a field of type text, or notes what is wrong.
    fn find_text(&self, key: &str, name: &str) -> Option<usize> {
        let index = self.find(key, name)?;
        let found = self.fields[index].field_type;
        if found != FieldType::Text {
            self.problem(
                key,
                format!("field `{name}` is {found}, and this step works on text"),
                format!("leave it out, or put `- cast: {{{name}: text}}` before this step"),
            );
            return None;
        }
        Some(index)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Rename(pairs) => self.rename(pairs),
            Step::Keep(names) => {
                let kept: Vec<usize> = names.iter().filter_map(|n| self.find("", n)).collect();
                self.fields = kept.iter().map(|i| self.fields[*i].clone()).collect();
            }
            Step::Drop(names) => {
                for name in names {
                    if let Some(index) = self.find("", name) {
                        self.fields.remove(index);
                    }
                }
            }
            Step::Cast(casts) => self.cast(casts),
            Step::Default(pairs) => self.default(pairs),
            Step::Trim(names) | Step::Lower(names) | Step::Upper(names) => {
                for name in names {
                    self.change_text("", name);
                }
            }
            Step::Flatten(flatten) => self.flatten(flatten),
            Step::Nest { fields, into } => self.nest(fields, into),
            Step::Split { field, into, .. } => {
                self.find_text("field", field);
                for name in into {
                    self.add("into", Field::new(name, FieldType::Text));
                }
            }
            Step::Join { fields, into, .. } => {
                for name in fields {
                    self.find_text("fields", name);
                }
                self.add("into", Field::new(into, FieldType::Text));
            }
            Step::Hash { fields, .. } | Step::Mask { fields, .. } => {
                for name in fields {
                    self.change_text("fields", name);
                }
            }
            Step::Filter(expression) => self.expression("", expression),
            Step::Dedupe(names) => {
                for name in names {
                    self.find("", name);
                }
            }
            Step::Compute(computes) => {
                for compute in computes {
                    self.expression(&format!("{}.expression", compute.field), &compute.expression);
                    let field = Field::new(&compute.field, compute.field_type);
                    match self.position(&compute.field) {
                        Some(index) => self.fields[index] = field,
                        None => self.fields.push(field),
                    }
                }
            }
        }
    }

    /// Finds a text field whose texts change, so that its constraints no longer speak of it.
    fn change_text(&mut self, key: &str, name: &str) {
        if let Some(index) = self.find_text(key, name) {
            let required = self.fields[index].required;
            self.fields[index] = Field { required, ..Field::new(name, FieldType::Text) };
        }
    }

    fn add(&mut self, key: &str, field: Field) {
        if self.position(&field.name).is_some() {
            self.problem(
                key,
                format!("there is a field `{}` already", field.name),
                "choose another name, or drop the other field before",
            );
            return;
        }
        self.fields.push(field);
    }

    fn rename(&mut self, pairs: &[(String, String)]) {
        let mut renamed = self.fields.clone();
        for (old, new) in pairs {
            if let Some(index) = self.find(old, old) {
                renamed[index].name.clone_from(new);
            }
        }
        let mut names = HashSet::new();
        for field in &renamed {
            if !names.insert(field.name.as_str()) {
                let key = pairs
                    .iter()
                    .find(|(_, new)| *new == field.name)
                    .map_or("", |(old, _)| old.as_str());
                self.problem(
                    key,
                    format!("two fields would be called `{}`", field.name),
                    "choose another name, or drop the other field before",
                );
            }
        }
        self.fields = renamed;
    }

    fn cast(&mut self, casts: &[Cast]) {
        for cast in casts {
            let Some(index) = self.find(&cast.field, &cast.field) else {
                continue;
            };
            let from = self.fields[index].field_type;
            if !castable(from, cast.to) {
                self.problem(
                    &cast.field,
                    format!("{from} cannot be turned into {}", cast.to),
                    "cast it to text, or compute it with an expression",
                );
            }
            let required = self.fields[index].required;
            self.fields[index] = Field { required, ..Field::new(&cast.field, cast.to) };
        }
    }

    fn default(&mut self, pairs: &[(String, String)]) {
        for (name, value) in pairs {
            let Some(index) = self.find(name, name) else {
                continue;
            };
            let field = &self.fields[index];
            if !text::is_value(value, field.field_type) {
                self.problem(
                    name,
                    format!("the value is not {}", article(field.field_type)),
                    "write a value of that type, as it would stand in a CSV file",
                );
            }
        }
    }

    fn flatten(&mut self, flatten: &Flatten) {
        if let Some(index) = self.find("field", &flatten.field) {
            let found = self.fields[index].field_type;
            if found != FieldType::Json {
                self.problem(
                    "field",
                    format!("field `{}` is {found}, not json", flatten.field),
                    "declare it as json in the schema, or cast it to json before",
                );
            }
            self.fields.remove(index);
        }
        for (key, field_type) in &flatten.fields {
            let name = flattened_name(flatten, key);
            self.add(&format!("fields.{key}"), Field::new(name, *field_type));
        }
    }

    fn nest(&mut self, fields: &[String], into: &str) {
        for name in fields {
            if let Some(index) = self.find("fields", name) {
                if self.fields[index].field_type == FieldType::Bytes {
                    self.problem(
                        "fields",
                        format!("field `{name}` is bytes, which JSON cannot hold"),
                        "leave it out",
                    );
                }
                self.fields.remove(index);
            }
        }
        self.add("into", Field::new(into, FieldType::Json));
    }

    fn expression(&self, key: &str, source: &str) {
        let Ok(expression) = Expression::parse(source) else {
            self.problem(key, "the expression cannot be read", "correct it");
            return;
        };
        for name in expression.fields() {
            if self.position(name).is_none() && !Expression::is_type_name(name) {
                self.find(key, name);
            }
        }
    }

    /// Checks what the rest of the pipeline asks of the fields after all steps.
    fn result(&mut self) {
        for name in &self.pipeline.key {
            if let Some(index) = self.find("key", name) {
                let found = self.fields[index].field_type;
                if matches!(found, FieldType::Json | FieldType::Double) {
                    self.problem(
                        "key",
                        format!("field `{name}` is {found}, which cannot identify a record"),
                        "use a field of another type, or cast it before",
                    );
                }
                self.fields[index].required = true;
            }
        }
        if let Some(name) = &self.pipeline.newest_by
            && let Some(index) = self.find("newest_by", name)
        {
            let found = self.fields[index].field_type;
            if !matches!(found, FieldType::Integer | FieldType::Date | FieldType::Timestamp) {
                self.problem(
                    "newest_by",
                    format!("field `{name}` is {found}, which says nothing about newer and older"),
                    "use a field that is integer, date or timestamp, or cast it before",
                );
            }
        }
        if self.fields.is_empty() {
            self.problem("steps", "no field is left after all steps", "keep some");
        }
        for target in &self.pipeline.targets {
            for (key, name) in target.system.places() {
                let first = name.split('.').next().unwrap_or_default();
                if self.position(&name).is_none() {
                    self.find(&format!("targets.{}.{key}", target.name), first);
                }
            }
        }
        self.names();
    }

    fn names(&self) {
        let one_case = self
            .pipeline
            .targets
            .iter()
            .any(|target| matches!(target.system, TargetSystem::Sqlite { .. }));
        let mut seen = HashSet::new();
        for Field { name, .. } in &self.fields {
            let remedy = "give it another name in a `rename` step";
            if RESERVED.contains(&name.as_str()) {
                self.problem(
                    "steps",
                    format!("the field name `{name}` is reserved for what the loader adds"),
                    remedy,
                );
            }
            if name.len() > MAX_NAME_BYTES {
                self.problem(
                    "steps",
                    format!("the field name `{name}` has more than {MAX_NAME_BYTES} bytes"),
                    remedy,
                );
            }
            if one_case && !seen.insert(name.to_lowercase()) {
                self.problem(
                    "steps",
                    format!("another field is called `{name}` up to upper and lower case, which SQLite takes for the same"),
                    remedy,
                );
            }
        }
    }
}

/// Tells whether values of one type can be turned into another without an expression.
#[must_use]
pub fn castable(from: FieldType, to: FieldType) -> bool {
    use FieldType::{Boolean, Bytes, Date, Decimal, Double, Integer, Json, Text, Timestamp};
    match (from, to) {
        (Text | Json, _) | (_, Text) => true,
        (Boolean, Boolean | Integer)
        | (Integer, Boolean | Integer | Double | Decimal { .. })
        | (Double | Decimal { .. }, Integer | Double | Decimal { .. })
        | (Date | Timestamp, Date | Timestamp)
        | (Bytes, Bytes) => true,
        (Bytes, Json) => false,
        (_, Json) => true,
        _ => false,
    }
}

fn article(field_type: FieldType) -> String {
    match field_type {
        FieldType::Integer => "an integer".to_owned(),
        FieldType::Text | FieldType::Bytes | FieldType::Json => field_type.to_string(),
        other => format!("a {other}"),
    }
}
