use model::FieldType;

use super::{
    optional,
    schema::{field_type, formats},
    secrets,
};
use crate::{Cast, Compute, Expression, Flatten, Step, reader::At};

const KINDS: [&str; 17] = [
    "rename", "keep", "drop", "cast", "default", "trim", "lower", "upper", "flatten", "nest",
    "split", "join", "hash", "mask", "filter", "dedupe", "compute",
];

pub(super) fn steps(at: &At<'_>) -> Option<Vec<Step>> {
    let items = at.items("write each step behind a dash: `- trim: [name]`")?;
    let steps: Vec<Option<Step>> = items.iter().map(step).collect();
    steps.into_iter().collect()
}

fn step(at: &At<'_>) -> Option<Step> {
    let keys = at.keys(&KINDS)?;
    let (kind, at) = keys.only(&KINDS, "step")?;
    let names = || at.names("list the fields: `[a, b]`");
    Some(match kind {
        "rename" => Step::Rename(pairs(&at, "write `old: new`", |at| at.name())?),
        "keep" => Step::Keep(names()?),
        "drop" => Step::Drop(names()?),
        "cast" => Step::Cast(casts(&at)?),
        "default" => Step::Default(pairs(&at, "write `field: value`", |at| at.text())?),
        "trim" => Step::Trim(names()?),
        "lower" => Step::Lower(names()?),
        "upper" => Step::Upper(names()?),
        "flatten" => Step::Flatten(flatten(&at)?),
        "nest" => nest(&at)?,
        "split" => split(&at)?,
        "join" => join(&at)?,
        "hash" => hash(&at)?,
        "mask" => mask(&at)?,
        "filter" => Step::Filter(expression(&at)?),
        "dedupe" => Step::Dedupe(names()?),
        _ => Step::Compute(computes(&at)?),
    })
}

fn pairs<T>(
    at: &At<'_>,
    remedy: &str,
    read: impl Fn(&At<'_>) -> Option<T>,
) -> Option<Vec<(String, T)>> {
    let read: Vec<Option<(String, T)>> =
        at.entries(remedy)?.into_iter().map(|(name, at)| Some((name, read(&at)?))).collect();
    read.into_iter().collect()
}

fn casts(at: &At<'_>) -> Option<Vec<Cast>> {
    pairs(at, "write `field: type`", cast)
        .map(|casts| casts.into_iter().map(|(field, cast)| Cast { field, ..cast }).collect())
}

fn cast(at: &At<'_>) -> Option<Cast> {
    let plain = |to| Cast { field: String::new(), to, formats: Vec::new(), decimal_point: '.' };
    if !at.is_map() {
        return field_type(at).map(plain);
    }
    let keys = at.keys(&["type", "formats", "decimal_point"])?;
    let to = keys.require("type", "add the new type").and_then(|at| field_type(&at));
    let formats = optional(&keys, "formats", |at| formats(at, to));
    let decimal_point = match keys.get("decimal_point") {
        Some(at) => decimal_point(&at, to),
        None => Some('.'),
    };
    Some(Cast { formats: formats?, decimal_point: decimal_point?, ..plain(to?) })
}

fn decimal_point(at: &At<'_>, to: Option<FieldType>) -> Option<char> {
    let point = at.word(&[(".", '.'), (",", ',')])?;
    match to {
        None | Some(FieldType::Integer | FieldType::Double | FieldType::Decimal { .. }) => {
            Some(point)
        }
        Some(other) => {
            at.problem(
                format!("a decimal point is for numbers, the type is {other}"),
                "remove `decimal_point`, or change the type",
            );
            None
        }
    }
}

fn flatten(at: &At<'_>) -> Option<Flatten> {
    let keys = at.keys(&["field", "prefix", "fields"])?;
    let field =
        keys.require("field", "name the field that holds the object").and_then(|at| at.name());
    let prefix = match keys.get("prefix") {
        Some(at) => at.text(),
        None => field.as_ref().map(|field| format!("{field}_")),
    };
    let fields = keys
        .require("fields", "list the keys to take out: `fields: {city: text}`")
        .and_then(|at| pairs(&at, "write `key: type`", field_type));
    Some(Flatten { field: field?, prefix: prefix?, fields: fields? })
}

fn nest(at: &At<'_>) -> Option<Step> {
    let keys = at.keys(&["fields", "into"])?;
    let fields = keys
        .require("fields", "list the fields to put into the object")
        .and_then(|at| at.names("list the fields: `[a, b]`"));
    let into = keys.require("into", "name the new field").and_then(|at| at.name());
    Some(Step::Nest { fields: fields?, into: into? })
}

fn split(at: &At<'_>) -> Option<Step> {
    let keys = at.keys(&["field", "separator", "into"])?;
    let field = keys.require("field", "name the field to cut").and_then(|at| at.name());
    let separator = keys.require("separator", "write the text at which to cut").and_then(|at| {
        let separator = at.text()?;
        if separator.is_empty() {
            at.problem("the separator is empty", "write the text at which to cut");
            return None;
        }
        Some(separator)
    });
    let remedy = "list the names of the new fields: `into: [first, last]`";
    let into = keys.require("into", remedy).and_then(|at| {
        let names = at.names(remedy)?;
        if names.len() < 2 {
            at.problem("splitting gives at least two fields", remedy);
            return None;
        }
        Some(names)
    });
    Some(Step::Split { field: field?, separator: separator?, into: into? })
}

fn join(at: &At<'_>) -> Option<Step> {
    let keys = at.keys(&["fields", "separator", "into"])?;
    let fields = keys
        .require("fields", "list the fields to join")
        .and_then(|at| at.names("list the fields: `[a, b]`"));
    let separator = optional(&keys, "separator", At::text);
    let into = keys.require("into", "name the new field").and_then(|at| at.name());
    Some(Step::Join { fields: fields?, separator: separator?, into: into? })
}

fn hash(at: &At<'_>) -> Option<Step> {
    let keys = at.keys(&["fields", "key"])?;
    let fields = keys
        .require("fields", "list the fields to hash")
        .and_then(|at| at.names("list the fields: `[a, b]`"));
    let key = keys.require("key", "add `key: \"${env:NAME}\"`").and_then(|at| secrets::secret(&at));
    Some(Step::Hash { fields: fields?, key: key? })
}

fn mask(at: &At<'_>) -> Option<Step> {
    let keys = at.keys(&["fields", "keep_last"])?;
    let fields = keys
        .require("fields", "list the fields to mask")
        .and_then(|at| at.names("list the fields: `[a, b]`"));
    let keep_last = optional(&keys, "keep_last", |at| at.number("a number of characters"));
    Some(Step::Mask { fields: fields?, keep_last: keep_last? })
}

fn computes(at: &At<'_>) -> Option<Vec<Compute>> {
    let remedy = "write `field: {expression: \"…\", type: …}`";
    let computes = pairs(at, remedy, |at| {
        let keys = at.keys(&["expression", "type"])?;
        let expression = keys.require("expression", remedy).and_then(|at| expression(&at));
        let field_type =
            keys.require("type", "add the type of the result").and_then(|at| field_type(&at));
        Some((expression?, field_type?))
    })?;
    Some(
        computes
            .into_iter()
            .map(|(field, (expression, field_type))| Compute { field, expression, field_type })
            .collect(),
    )
}

fn expression(at: &At<'_>) -> Option<String> {
    let text = at.text()?;
    if let Err(error) = Expression::parse(&text) {
        at.problem(error.message, error.remedy);
        return None;
    }
    Some(text)
}
