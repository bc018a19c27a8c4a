use std::sync::Arc;

use bus::{
    Bus,
    questions::{
        CheckResult, Checks, DiscoveredField, DiscoveredStream, ExtractQuestion, Inferred, Menu,
    },
};
use connect::RunOptions;
use serde::Serialize;
use serde_json::Value;
use spec::Pipeline;
use tokio_util::sync::CancellationToken;

use crate::Sources;

/// Answers questions about sources until `shutdown`.
pub(crate) async fn answer(
    bus: Bus,
    sources: Sources,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let subject = bus.names().ask_extract();
    bus.answer(&subject, "extractor", &shutdown, move |question, _context| {
        let sources = Arc::clone(&sources);
        async move { reply(&sources, question).await }
    })
    .await;
    Ok(())
}

async fn reply(sources: &Sources, question: ExtractQuestion) -> Result<Value, String> {
    match question {
        ExtractQuestion::Check { pipeline } => written(&check(sources, &parse(&pipeline)?).await),
        ExtractQuestion::Discover { pipeline } => {
            let source = open(sources, &parse(&pipeline)?)?;
            let streams = source.discover().await.map_err(|error| told(&error))?;
            let streams = streams.into_iter().map(discovered).collect();
            written(&Menu { streams })
        }
        ExtractQuestion::Infer { pipeline } => {
            let source = open(sources, &parse(&pipeline)?)?;
            let schema = source.infer().await.map_err(|error| told(&error))?;
            written(&Inferred { schema })
        }
    }
}

async fn check(sources: &Sources, pipeline: &Pipeline) -> Checks {
    let checked = match sources(pipeline, pipeline.schema.as_ref(), &[], RunOptions::default()) {
        Ok(source) => source.check().await,
        Err(error) => Err(error),
    };
    let (ok, message) = match checked {
        Ok(found) => (true, found),
        Err(error) => (false, told(&error)),
    };
    let subject = format!("source {}", pipeline.source.kind());
    Checks { results: vec![CheckResult { subject, ok, message }] }
}

fn open(sources: &Sources, pipeline: &Pipeline) -> Result<Arc<dyn connect::Source>, String> {
    sources(pipeline, pipeline.schema.as_ref(), &[], RunOptions::default())
        .map_err(|error| told(&error))
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

fn discovered(stream: connect::Stream) -> DiscoveredStream {
    let field = |field: model::Field| DiscoveredField {
        key: stream.key.contains(&field.name),
        field_type: field.field_type.to_string(),
        required: field.required,
        name: field.name,
    };
    DiscoveredStream {
        name: stream.name,
        fields: stream.schema.fields.into_iter().map(field).collect(),
    }
}

fn written(answer: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}
