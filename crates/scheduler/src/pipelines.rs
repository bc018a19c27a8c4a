//! What can be done with pipelines: apply, plan, check, discover, delete.

use std::collections::HashSet;

use bus::questions::{
    CheckResult, Checks, ExtractQuestion, LoadQuestion, Menu, Plan, PlanOutcome, PlannedTarget,
};
use model::{Field, PipelineName, Schema};
use spec::{Pipeline, Problem};
use store::{NewRevision, RunState, StoredPipeline};

use crate::{
    catalog,
    core::Scheduler,
    destructive::destructive,
    due::chain_problems,
    error::{Error, NO_SEAL_KEYS, chain},
    infer,
    questions::{ask_extractor, ask_loader},
};

/// A pipeline as a user sends it.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) file: String,
    pub(crate) yaml: String,
}

/// How a pipeline differs from what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Updated,
    None,
}

/// A pipeline of a request beside what is stored of it.
pub(crate) struct Compared {
    pub(crate) pipeline: Pipeline,
    yaml: String,
    stored: Option<StoredPipeline>,
    change: Change,
}

impl Compared {
    /// What storing it would take away.
    fn destructive(&self) -> Vec<Problem> {
        let before = self.stored.as_ref().and_then(parse_stored);
        before.map_or_else(Vec::new, |before| destructive(&before, &self.pipeline))
    }
}

/// What became of an applied pipeline.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) name: PipelineName,
    pub(crate) revision: u32,
    pub(crate) change: Change,
}

/// What applying a pipeline would do.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) pipeline: Pipeline,
    pub(crate) change: Change,
    pub(crate) schema: Schema,
    pub(crate) inferred: bool,
    pub(crate) result: Vec<Field>,
    pub(crate) targets: Vec<PlannedTarget>,
    /// What would be taken away, one sentence each.
    pub(crate) destructive: Vec<String>,
}

/// Stores pipelines, all or none, and returns what became of each; or the problems.
pub(crate) async fn apply(
    scheduler: &Scheduler,
    texts: Vec<Text>,
    refuse_destructive: bool,
) -> Result<Result<Vec<Applied>, Vec<Problem>>, Error> {
    let compared = match compare(scheduler, texts).await? {
        Ok(compared) => compared,
        Err(problems) => return Ok(Err(problems)),
    };
    if refuse_destructive {
        let problems: Vec<_> = compared.iter().flat_map(Compared::destructive).collect();
        if !problems.is_empty() {
            return Ok(Err(problems));
        }
    }
    let changes = compared.iter().filter(|compared| compared.change != Change::None);
    let changes: Vec<NewRevision> = changes.map(new_revision).collect();
    let applied = scheduler.store().apply(changes, scheduler.now()).await?;
    for revision in &applied {
        tracing::info!(
            pipeline.name = %revision.name, revision = revision.revision, "a pipeline was applied"
        );
        if let Err(error) = catalog::put(scheduler, revision, true).await {
            tracing::warn!(
                error = chain(&error),
                "a revision could not be put into the broker yet"
            );
        }
    }
    let outcome = compared.into_iter().map(|compared| {
        let name = compared.pipeline.name;
        let revision = applied
            .iter()
            .find(|revision| revision.name == name)
            .map(|revision| revision.revision)
            .or_else(|| compared.stored.as_ref().map(|stored| stored.revision.revision))
            .unwrap_or_default();
        Applied { name, revision, change: compared.change }
    });
    Ok(Ok(outcome.collect()))
}

/// Parses texts and compares each with what is stored.
pub(crate) async fn compare(
    scheduler: &Scheduler,
    texts: Vec<Text>,
) -> Result<Result<Vec<Compared>, Vec<Problem>>, Error> {
    let (mut compared, mut problems) = (Vec::new(), Vec::new());
    let mut names = HashSet::new();
    for Text { file, yaml } in texts {
        let pipeline = match spec::parse(&file, &yaml) {
            Ok(pipeline) => pipeline,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        if !pipeline.pii.is_empty() && scheduler.bus().seal_keys().is_none() {
            problems.push(Problem {
                line: pipeline.places.line("pii"),
                file: file.clone(),
                key: "pii".to_owned(),
                message: "the services have no keys to seal these fields with".to_owned(),
                remedy: NO_SEAL_KEYS.to_owned(),
            });
        }
        if !names.insert(pipeline.name.clone()) {
            problems.push(Problem {
                file,
                line: 0,
                key: "name".to_owned(),
                message: format!("pipeline `{}` is declared twice", pipeline.name),
                remedy: "give one of them another name".to_owned(),
            });
            continue;
        }
        let stored = scheduler.store().pipeline(&pipeline.name).await?;
        let change = match &stored {
            None => Change::Created,
            Some(stored) if means_the_same(stored, &pipeline) => Change::None,
            Some(_) => Change::Updated,
        };
        compared.push(Compared { pipeline, yaml, stored, change });
    }
    let stored = scheduler.store().pipelines().await?;
    let others: Vec<_> =
        stored.iter().filter_map(|stored| scheduler.parsed(&stored.revision).ok()).collect();
    let applied: Vec<&Pipeline> = compared.iter().map(|compared| &compared.pipeline).collect();
    problems.extend(chain_problems(&applied, others.iter().map(AsRef::as_ref)));
    Ok(if problems.is_empty() { Ok(compared) } else { Err(problems) })
}

fn means_the_same(stored: &StoredPipeline, pipeline: &Pipeline) -> bool {
    parse_stored(stored).is_some_and(|stored| stored == *pipeline)
}

/// The pipeline as its text declares it; nothing if it was written for another version.
fn parse_stored(stored: &StoredPipeline) -> Option<Pipeline> {
    spec::parse(stored.revision.name.as_str(), &stored.revision.yaml).ok()
}

fn new_revision(compared: &Compared) -> NewRevision {
    let Compared { pipeline, yaml, stored, .. } = compared;
    let before = stored.as_ref().and_then(parse_stored);
    let same_source = before.as_ref().is_some_and(|before| before.source == pipeline.source);
    // A target that has just come, or lies elsewhere now, has to get everything.
    let known_targets = before.as_ref().is_some_and(|before| {
        pipeline.targets.iter().all(|target| {
            let same = |known: &spec::Target| {
                known.system.place() == target.system.place() && known.table == target.table
            };
            before.targets.iter().any(same)
        })
    });
    let stored_schema = stored.as_ref().and_then(|stored| stored.revision.schema.clone());
    let same_declaration = before.as_ref().is_some_and(|before| before.schema == pipeline.schema);
    NewRevision {
        name: pipeline.name.clone(),
        replaces: stored.as_ref().map(|stored| stored.revision.revision),
        yaml: yaml.clone(),
        // What was inferred or accepted still holds.
        schema: stored_schema.filter(|_| same_source && same_declaration),
        forget_cursors: !(same_source && known_targets),
    }
}

/// Tells what applying would do, and changes nothing.
pub(crate) async fn plan(
    scheduler: &Scheduler,
    texts: Vec<Text>,
) -> Result<Result<Vec<Planned>, Vec<Problem>>, Error> {
    let compared = match compare(scheduler, texts).await? {
        Ok(compared) => compared,
        Err(problems) => return Ok(Err(problems)),
    };
    let (mut planned, mut problems) = (Vec::new(), Vec::new());
    for compared in compared {
        let destructive =
            compared.destructive().into_iter().map(|problem| problem.message).collect();
        let Compared { pipeline, yaml, stored, change } = compared;
        let known =
            stored.filter(|_| change == Change::None).and_then(|stored| stored.revision.schema);
        let declared = pipeline.schema.is_some();
        let schema = match known.or_else(|| pipeline.schema.clone()) {
            Some(schema) => schema,
            None => match infer::infer(scheduler, &yaml).await {
                Ok(schema) => schema,
                Err(error) => {
                    problems.push(not_inferred(&pipeline, &error));
                    continue;
                }
            },
        };
        let result = match spec::fields_after(&pipeline, &schema) {
            Ok(result) => result,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        let targets = plan_targets(scheduler, &pipeline, &yaml, &result).await;
        planned.push(Planned {
            pipeline,
            change,
            schema,
            inferred: !declared,
            result,
            targets,
            destructive,
        });
    }
    Ok(if problems.is_empty() { Ok(planned) } else { Err(problems) })
}

fn not_inferred(pipeline: &Pipeline, error: &Error) -> Problem {
    Problem {
        file: pipeline.places.file().to_owned(),
        line: pipeline.places.line("source"),
        key: "source".to_owned(),
        message: format!("the schema cannot be inferred: {}", error.told()),
        remedy: error.hint(),
    }
}

/// Asks a loader. That the targets cannot be looked at is part of the plan.
async fn plan_targets(
    scheduler: &Scheduler,
    pipeline: &Pipeline,
    yaml: &str,
    fields: &[Field],
) -> Vec<PlannedTarget> {
    let question = LoadQuestion::Plan { pipeline: yaml.to_owned(), fields: fields.to_vec() };
    match ask_loader::<Plan>(scheduler, &question).await {
        Ok(plan) => plan.targets,
        Err(error) => pipeline
            .targets
            .iter()
            .map(|target| PlannedTarget {
                target: target.name.to_string(),
                outcome: PlanOutcome::Unreachable(error.told()),
            })
            .collect(),
    }
}

/// Asks an extractor and a loader whether the connections of a pipeline work.
pub(crate) async fn check(scheduler: &Scheduler, yaml: &str) -> Result<Vec<CheckResult>, Error> {
    let of_source = ExtractQuestion::Check { pipeline: yaml.to_owned() };
    let of_targets = LoadQuestion::Check { pipeline: yaml.to_owned() };
    let (source, targets) = futures::join!(
        ask_extractor::<Checks>(scheduler, &of_source),
        ask_loader::<Checks>(scheduler, &of_targets),
    );
    Ok([("source", source), ("targets", targets)]
        .into_iter()
        .flat_map(|(subject, checks)| match checks {
            Ok(checks) => checks.results,
            Err(error) => vec![CheckResult {
                subject: subject.to_owned(),
                ok: false,
                message: format!("{}; {}", error.told(), error.hint()),
            }],
        })
        .collect())
}

/// Asks an extractor for the streams of a source.
pub(crate) async fn discover(scheduler: &Scheduler, yaml: &str) -> Result<Menu, Error> {
    ask_extractor(scheduler, &ExtractQuestion::Discover { pipeline: yaml.to_owned() }).await
}

/// Removes a pipeline, its cursors, its quarantined records and the work that waits for it.
pub(crate) async fn delete(scheduler: &Scheduler, name: &PipelineName) -> Result<(), Error> {
    let running = scheduler.store().running_runs().await?;
    scheduler.store().delete_pipeline(name, scheduler.now()).await?;
    tracing::info!(pipeline.name = %name, "a pipeline was deleted");
    for run in running.iter().filter(|run| run.pipeline == *name) {
        let run = scheduler.store().run(run.id).await?;
        if run.state != RunState::Running {
            crate::settling::ended(scheduler, &run).await;
        }
    }
    // The next look at everything removes it where the broker is away now.
    if let Err(error) = catalog::remove(scheduler, name).await {
        tracing::warn!(error = chain(&error), "a pipeline is left in the broker for now");
    }
    Ok(())
}
