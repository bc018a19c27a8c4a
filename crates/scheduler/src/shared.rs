//! Quotas and connections, which pipelines share: applied beside them, kept in the database, and
//! the quotas also in the broker, where the stages count.

use std::collections::BTreeSet;

use bus::QuotaUse;
use model::PipelineName;
use spec::{NamedQuota, Pipeline, Problem, Shared};

use crate::{
    core::Scheduler,
    error::{Error, chain},
    pipelines::{self, Applied, Change, Planned, Text},
};

/// What became of a quota or a connection, or what would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedChange {
    pub(crate) kind: &'static str,
    pub(crate) name: PipelineName,
    pub(crate) change: Change,
}

/// What a request holds besides pipelines.
struct Compared {
    pipelines: Vec<Text>,
    shared: Shared,
    changes: Vec<SharedChange>,
}

/// What became of the pipelines and of what they share, or what is wrong with them.
type Outcome<T> = Result<(Vec<T>, Vec<SharedChange>), Vec<Problem>>;

/// A quota beside its use, which is not known while the broker is away.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) declared: NamedQuota,
    pub(crate) used: Result<Option<QuotaUse>, Error>,
    pub(crate) pipelines: Vec<String>,
}

/// Stores pipelines and what they share, all or none.
pub(crate) async fn apply(
    scheduler: &Scheduler,
    texts: Vec<Text>,
    refuse_destructive: bool,
) -> Result<Outcome<Applied>, Error> {
    let Compared { pipelines, shared, changes } = match compare(scheduler, texts).await? {
        Ok(compared) => compared,
        Err(problems) => return Ok(Err(problems)),
    };
    let change_of = |name: &PipelineName| {
        let found = changes.iter().find(|c| c.kind == "quota" && c.name == *name);
        found.map_or(Change::None, |found| found.change)
    };
    // Before they are stored: a quota that is stored and that the broker does not know is taken for
    // one whose use was lost.
    let now = scheduler.now();
    for NamedQuota { name, quota } in &shared.quotas {
        let is_new = change_of(name) == Change::Created;
        scheduler.bus().declare_quota(name.as_str(), quota, is_new, now.timestamp_micros()).await?;
    }
    scheduler.store().apply_shared(&shared, now).await?;
    let applied = pipelines::apply(scheduler, pipelines, refuse_destructive).await?;
    Ok(applied.map(|applied| (applied, changes)))
}

/// Tells what applying would do, and changes nothing.
pub(crate) async fn plan(
    scheduler: &Scheduler,
    texts: Vec<Text>,
) -> Result<Outcome<Planned>, Error> {
    let Compared { pipelines, changes, .. } = match compare(scheduler, texts).await? {
        Ok(compared) => compared,
        Err(problems) => return Ok(Err(problems)),
    };
    let planned = pipelines::plan(scheduler, pipelines).await?;
    Ok(planned.map(|planned| (planned, changes)))
}

/// Parses what is shared, compares it with what is stored, and checks that pipelines refer only to
/// what there is.
async fn compare(
    scheduler: &Scheduler,
    texts: Vec<Text>,
) -> Result<Result<Compared, Vec<Problem>>, Error> {
    let (of_shared, pipelines): (Vec<Text>, Vec<Text>) =
        texts.into_iter().partition(|text| spec::is_shared(&text.yaml));
    let mut shared = Shared::default();
    let mut problems = Vec::new();
    for Text { file, yaml } in of_shared {
        match spec::parse_shared(&file, &yaml) {
            Ok(found) => merge(&mut shared, found, &mut problems),
            Err(found) => problems.extend(found),
        }
    }
    let stored = scheduler.store().shared().await?;
    match pipelines::compare(scheduler, pipelines.clone()).await? {
        Ok(compared) => {
            for compared in &compared {
                problems.extend(missing(&compared.pipeline, &[&shared, &stored]));
            }
        }
        Err(found) => problems.extend(found),
    }
    if !problems.is_empty() {
        return Ok(Err(problems));
    }
    let quotas = shared.quotas.iter().map(|quota| {
        let known = stored.quotas.iter().find(|known| known.name == quota.name);
        change("quota", &quota.name, known.map(|known| known == quota))
    });
    let connections = shared.connections.iter().map(|connection| {
        let known = stored.connections.iter().find(|known| known.name == connection.name);
        change("connection", &connection.name, known.map(|known| known == connection))
    });
    let changes = quotas.chain(connections).collect();
    Ok(Ok(Compared { pipelines, shared, changes }))
}

fn change(kind: &'static str, name: &PipelineName, same: Option<bool>) -> SharedChange {
    let change = match same {
        None => Change::Created,
        Some(true) => Change::None,
        Some(false) => Change::Updated,
    };
    SharedChange { kind, name: name.clone(), change }
}

/// Adds what another file holds.
fn merge(shared: &mut Shared, found: Shared, problems: &mut Vec<Problem>) {
    let twice = |kind: &str, name: &PipelineName| {
        let key = format!("{kind}s.{name}");
        Problem {
            file: found.places.file().to_owned(),
            line: found.places.line(&key),
            key,
            message: format!("{kind} `{name}` is declared in two files"),
            remedy: "remove one of them".to_owned(),
        }
    };
    for quota in &found.quotas {
        if shared.quotas.iter().any(|known| known.name == quota.name) {
            problems.push(twice("quota", &quota.name));
        }
    }
    for connection in &found.connections {
        if shared.connections.iter().any(|known| known.name == connection.name) {
            problems.push(twice("connection", &connection.name));
        }
    }
    shared.quotas.extend(found.quotas);
    shared.connections.extend(found.connections);
}

/// Returns what a pipeline refers to and nobody declares.
fn missing(pipeline: &Pipeline, known: &[&Shared]) -> Vec<Problem> {
    let problem = |kind: &str, name: &PipelineName, key: String| Problem {
        file: pipeline.places.file().to_owned(),
        line: pipeline.places.line(&key),
        key,
        message: format!("there is no {kind} `{name}`"),
        remedy: format!("declare it in a file of its own: `{kind}s: {{{name}: …}}`"),
    };
    let mut problems = Vec::new();
    for (name, key) in pipeline.quotas() {
        if !known.iter().any(|shared| shared.quotas.iter().any(|quota| quota.name == *name)) {
            problems.push(problem("quota", name, key));
        }
    }
    if let Some(name) = &pipeline.connection
        && !known.iter().any(|shared| shared.connections.iter().any(|c| c.name == *name))
    {
        problems.push(problem("connection", name, "source.connection".to_owned()));
    }
    problems
}

/// Puts back the quotas that the broker has lost.
pub(crate) async fn restore(scheduler: &Scheduler) -> Result<(), Error> {
    for NamedQuota { name, quota } in scheduler.store().shared().await?.quotas {
        let now = scheduler.now().timestamp_micros();
        scheduler.bus().declare_quota(name.as_str(), &quota, false, now).await?;
    }
    Ok(())
}

/// Returns all quotas with their use.
pub(crate) async fn quotas(scheduler: &Scheduler) -> Result<Vec<Standing>, Error> {
    let stored = scheduler.store().pipelines().await?;
    let pipelines: Vec<_> =
        stored.iter().filter_map(|stored| scheduler.parsed(&stored.revision).ok()).collect();
    let mut standings = Vec::new();
    for declared in scheduler.store().shared().await?.quotas {
        let name = declared.name.as_str();
        let now = scheduler.now().timestamp_micros();
        let used = scheduler.bus().quota_use(name, now).await.map_err(Error::from);
        if let Err(error) = &used {
            tracing::warn!(error = chain(error), quota.name = name, "a quota cannot be looked at");
        }
        let users: BTreeSet<&str> = pipelines
            .iter()
            .filter(|pipeline| pipeline.quotas().iter().any(|(used, _)| **used == declared.name))
            .map(|pipeline| pipeline.name.as_str())
            .collect();
        let pipelines = users.into_iter().map(str::to_owned).collect();
        standings.push(Standing { declared, used, pipelines });
    }
    Ok(standings)
}

/// Removes a quota that no pipeline uses.
pub(crate) async fn delete(scheduler: &Scheduler, name: &PipelineName) -> Result<(), Error> {
    for stored in scheduler.store().pipelines().await? {
        let Ok(pipeline) = scheduler.parsed(&stored.revision) else { continue };
        if pipeline.quotas().iter().any(|(used, _)| *used == name) {
            return Err(Error::QuotaInUse { quota: name.clone(), pipeline: pipeline.name.clone() });
        }
    }
    if !scheduler.store().delete_quota(name).await? {
        return Err(Error::NoQuota(name.clone()));
    }
    scheduler.bus().remove_quota(name.as_str()).await?;
    Ok(())
}
