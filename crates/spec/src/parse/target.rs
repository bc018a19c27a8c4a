use model::PipelineName;

use super::{
    optional, outbound, secrets,
    source::{path, table},
};
use crate::{
    Deletes, Mode, Target, TargetSystem,
    reader::{At, Keys},
};

const SYSTEMS: [&str; 4] = ["postgres", "sqlite", "http", "webhook"];
const MODES: &str = "use upsert, append or snapshot";
const DEFAULT_MAX_LOSS_PERCENT: f64 = 20.0;

pub(super) fn targets(at: &At<'_>) -> Option<Vec<Target>> {
    let entries = at.entries("name each target: `targets: {store: {sqlite: …}}`")?;
    let targets: Vec<Option<Target>> = entries.iter().map(|(name, at)| target(name, at)).collect();
    targets.into_iter().collect()
}

fn target(name: &str, at: &At<'_>) -> Option<Target> {
    let valid = PipelineName::try_from(name.to_owned());
    if let Err(error) = &valid {
        at.problem(error.to_string(), "choose another name for the target");
    }
    let keys = at.keys(&["postgres", "sqlite", "http", "webhook", "mode", "deletes", "audit"])?;
    let system = keys.only(&SYSTEMS, "system").and_then(|(kind, at)| system(kind, &at));
    if let Some((TargetSystem::Http(_) | TargetSystem::Webhook(_), _)) = &system {
        for key in ["mode", "deletes", "audit"] {
            if let Some(at) = keys.get(key) {
                at.problem(
                    format!("`{key}` says how a table is written, and this target has none"),
                    "remove this key; `mode: once` of an API stands under `http`",
                );
            }
        }
    }
    let mode = match keys.get("mode") {
        Some(at) => mode(&at),
        None => Some(Mode::Upsert),
    };
    let deletes = optional(&keys, "deletes", |at| {
        at.word(&[("hard", Deletes::Hard), ("soft", Deletes::Soft), ("ignore", Deletes::Ignore)])
    });
    let audit = optional(&keys, "audit", At::boolean);
    let (system, table) = system?;
    Some(Target { name: valid.ok()?, system, table, mode: mode?, deletes: deletes?, audit: audit? })
}

fn system(kind: &str, at: &At<'_>) -> Option<(TargetSystem, String)> {
    let table_of = |keys: &Keys<'_>| {
        keys.require("table", "name the table to write to").and_then(|at| table(&at))
    };
    match kind {
        "postgres" => {
            let keys = at.keys(&["url", "table"])?;
            let url =
                keys.require("url", "add `url: \"${env:NAME}\"`").and_then(|at| secrets::url(&at));
            let table = table_of(&keys);
            Some((TargetSystem::Postgres { url: url? }, table?))
        }
        "sqlite" => {
            let keys = at.keys(&["path", "table"])?;
            let path = path(&keys);
            let table = table_of(&keys);
            Some((TargetSystem::Sqlite { path: path? }, table?))
        }
        "http" => {
            let target = outbound::http_target(at)?;
            Some((TargetSystem::Http(Box::new(target)), String::new()))
        }
        _ => {
            let target = outbound::webhook_target(at)?;
            Some((TargetSystem::Webhook(Box::new(target)), String::new()))
        }
    }
}

fn mode(at: &At<'_>) -> Option<Mode> {
    if !at.is_map() {
        return at.word(&[
            ("upsert", Mode::Upsert),
            ("append", Mode::Append),
            ("snapshot", Mode::Snapshot { max_loss_percent: DEFAULT_MAX_LOSS_PERCENT }),
        ]);
    }
    let keys = at.keys(&["snapshot"])?;
    let at = keys.require("snapshot", MODES)?;
    let keys = at.keys(&["max_loss_percent"])?;
    let max_loss_percent = match keys.get("max_loss_percent") {
        None => DEFAULT_MAX_LOSS_PERCENT,
        Some(at) => {
            let percent: f64 = at.number("a share in percent")?;
            if !(0.0..=100.0).contains(&percent) {
                at.problem("a share in percent lies between 0 and 100", "write such a number");
                return None;
            }
            percent
        }
    };
    Some(Mode::Snapshot { max_loss_percent })
}
