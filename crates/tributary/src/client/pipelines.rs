//! Commands about pipelines.

use wire::control::{
    ApplyPipelinesRequest, CheckPipelineRequest, DeletePipelineRequest, DiscoverSourceRequest,
    GetPipelineRequest, ListPipelinesRequest, PlanPipelinesRequest, check_pipeline_request,
    discover_source_request, pipeline_service_client::PipelineServiceClient,
};

use super::{
    files,
    server::{Connection, Server},
};
use crate::{
    cli::{Apply, Files, Pipeline},
    failure::Failure,
    output::{Output, json, text},
};

async fn client(server: &Server) -> Result<PipelineServiceClient<Connection>, Failure> {
    server.connect().await.map(PipelineServiceClient::new)
}

pub(crate) async fn apply(server: &Server, output: Output, given: &Apply) -> Result<(), Failure> {
    let request = ApplyPipelinesRequest {
        pipelines: files::read_all(&given.files.file)?,
        refuse_destructive: given.refuse_destructive,
    };
    let answer = client(server).await?.apply_pipelines(request).await;
    let answer = answer
        .map_err(|status| server.refused("the pipelines cannot be applied", &status))?
        .into_inner();
    output.print(|| json::applied(&answer), || text::applied(&answer))?;
    no_problems(answer.problems.is_empty())
}

pub(crate) async fn plan(server: &Server, output: Output, given: &Files) -> Result<(), Failure> {
    let request = PlanPipelinesRequest { pipelines: files::read_all(&given.file)? };
    let answer = client(server).await?.plan_pipelines(request).await;
    let answer =
        answer.map_err(|status| server.refused("the plan cannot be made", &status))?.into_inner();
    output.print(|| json::planned(&answer), || text::planned(&answer))?;
    no_problems(answer.problems.is_empty())
}

pub(crate) async fn check(server: &Server, output: Output, given: Pipeline) -> Result<(), Failure> {
    use check_pipeline_request::Pipeline as Which;
    let pipeline = match given.file {
        Some(file) => Some(Which::Source(files::read(&file)?)),
        None => given.name.map(Which::Name),
    };
    let answer = client(server).await?.check_pipeline(CheckPipelineRequest { pipeline }).await;
    let answer = answer
        .map_err(|status| server.refused("the pipeline cannot be checked", &status))?
        .into_inner();
    output.print(|| json::checked(&answer), || text::checked(&answer))?;
    no_problems(answer.results.iter().all(|result| result.ok))
}

pub(crate) async fn discover(
    server: &Server,
    output: Output,
    given: Pipeline,
) -> Result<(), Failure> {
    use discover_source_request::Pipeline as Which;
    let pipeline = match given.file {
        Some(file) => Some(Which::Source(files::read(&file)?)),
        None => given.name.map(Which::Name),
    };
    let answer = client(server).await?.discover_source(DiscoverSourceRequest { pipeline }).await;
    let answer = answer
        .map_err(|status| server.refused("the source cannot be discovered", &status))?
        .into_inner();
    output.print(|| json::discovered(&answer), || text::discovered(&answer))
}

pub(crate) async fn list(server: &Server, output: Output) -> Result<(), Failure> {
    let answer = client(server).await?.list_pipelines(ListPipelinesRequest {}).await;
    let pipelines = answer
        .map_err(|status| server.refused("the pipelines cannot be listed", &status))?
        .into_inner()
        .pipelines;
    output.print(|| json::pipelines(&pipelines), || text::pipelines(&pipelines))
}

pub(crate) async fn show(server: &Server, output: Output, name: String) -> Result<(), Failure> {
    let what = format!("the pipeline `{name}` cannot be shown");
    let answer = client(server).await?.get_pipeline(GetPipelineRequest { name }).await;
    let answer = answer.map_err(|status| server.refused(what, &status))?.into_inner();
    let pipeline = answer.pipeline.unwrap_or_default();
    output.print(|| json::pipeline(&pipeline), || text::pipeline(&pipeline))
}

pub(crate) async fn delete(server: &Server, output: Output, name: String) -> Result<(), Failure> {
    let what = format!("the pipeline `{name}` cannot be removed");
    let request = DeletePipelineRequest { name: name.clone() };
    let answer = client(server).await?.delete_pipeline(request).await;
    answer.map_err(|status| server.refused(what, &status))?;
    output.print(|| json::deleted(&name), || format!("pipeline `{name}` is removed\n"))
}

/// The answer is printed; the exit code tells whether it is a good one.
fn no_problems(good: bool) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(Failure::Result) }
}
