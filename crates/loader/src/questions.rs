use std::sync::Arc;

use bus::{
    Bus,
    questions::{CheckResult, Checks, LoadQuestion, Plan, PlanOutcome, PlannedTarget},
};
use futures::future::join_all;
use model::Field;
use serde::Serialize;
use serde_json::Value;
use spec::{Pipeline, Target};
use tokio_util::sync::CancellationToken;

use crate::Targets;

/// Answers questions about targets until `shutdown`.
pub(crate) async fn answer(
    bus: Bus,
    targets: Targets,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let subject = bus.names().ask_load();
    bus.answer(&subject, "loader", &shutdown, move |question, _context| {
        let targets = Arc::clone(&targets);
        async move { reply(&targets, question).await }
    })
    .await;
    Ok(())
}

async fn reply(targets: &Targets, question: LoadQuestion) -> Result<Value, String> {
    match question {
        LoadQuestion::Check { pipeline } => {
            let pipeline = parse(&pipeline)?;
            let checks = pipeline.targets.iter().map(|target| check(targets, &pipeline, target));
            written(&Checks { results: join_all(checks).await })
        }
        LoadQuestion::Plan { pipeline, fields } => {
            let pipeline = parse(&pipeline)?;
            let plans =
                pipeline.targets.iter().map(|target| plan(targets, &pipeline, target, &fields));
            written(&Plan { targets: join_all(plans).await })
        }
    }
}

async fn check(targets: &Targets, pipeline: &Pipeline, target: &Target) -> CheckResult {
    let checked = match targets(pipeline, target) {
        Ok(target) => target.check().await,
        Err(error) => Err(error),
    };
    let (ok, message) = match checked {
        Ok(found) => (true, found),
        Err(error) => (false, told(&error)),
    };
    CheckResult { subject: format!("target {}", target.name), ok, message }
}

async fn plan(
    targets: &Targets,
    pipeline: &Pipeline,
    target: &Target,
    fields: &[Field],
) -> PlannedTarget {
    let planned = match targets(pipeline, target) {
        Ok(target) => target.plan(fields).await,
        Err(error) => Err(error),
    };
    let outcome = match planned {
        Ok(actions) => PlanOutcome::Actions(actions),
        Err(error) => PlanOutcome::Unreachable(told(&error)),
    };
    PlannedTarget { target: target.name.to_string(), outcome }
}

fn parse(yaml: &str) -> Result<Pipeline, String> {
    spec::parse("pipeline", yaml).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        problems.join("\n")
    })
}

fn told(error: &connect::Error) -> String {
    format!("{}; {}", error.chain(), error.hint)
}

fn written(answer: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}
