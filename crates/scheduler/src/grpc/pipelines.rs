use tonic::{Request, Response, Status};
use wire::control::{
    ApplyPipelinesRequest, ApplyPipelinesResponse, CheckPipelineRequest, CheckPipelineResponse,
    DeletePipelineRequest, DeletePipelineResponse, DiscoverSourceRequest, DiscoverSourceResponse,
    GetPipelineRequest, GetPipelineResponse, ListPipelinesRequest, ListPipelinesResponse,
    PipelineSource, PlanPipelinesRequest, PlanPipelinesResponse, check_pipeline_request,
    discover_source_request, pipeline_service_server::PipelineService,
};

use super::convert;
use crate::{
    access::Subject,
    core::Scheduler,
    error::Error,
    pipelines::{self, Text},
    shared,
};

#[derive(Debug)]
pub(super) struct Pipelines(pub(super) Scheduler);

fn texts(sources: Vec<PipelineSource>) -> Vec<Text> {
    sources.into_iter().map(|PipelineSource { file, yaml }| Text { file, yaml }).collect()
}

impl Pipelines {
    /// The text of a stored pipeline, or one that is not stored but can be read.
    async fn text_of(&self, asked: Asked) -> Result<String, Error> {
        match asked {
            Asked::Name(name) => {
                let name = name.parse()?;
                let stored = self.0.store().pipeline(&name).await?;
                Ok(stored.ok_or(store::Error::NoPipeline(name))?.revision.yaml)
            }
            Asked::Source(PipelineSource { file, yaml }) => {
                spec::parse(&file, &yaml).map_err(Error::Invalid)?;
                Ok(yaml)
            }
            Asked::Nothing => {
                Err(Error::Request("give the name or the text of a pipeline".to_owned()))
            }
        }
    }
}

enum Asked {
    Name(String),
    Source(PipelineSource),
    Nothing,
}

#[tonic::async_trait]
impl PipelineService for Pipelines {
    async fn apply_pipelines(
        &self,
        request: Request<ApplyPipelinesRequest>,
    ) -> Result<Response<ApplyPipelinesResponse>, Status> {
        let subject = Subject::of(&request);
        let ApplyPipelinesRequest { pipelines, refuse_destructive } = request.into_inner();
        let response = match shared::apply(&self.0, texts(pipelines), refuse_destructive).await? {
            Ok((applied, shared)) => ApplyPipelinesResponse {
                applied: applied.into_iter().map(convert::applied).collect(),
                problems: Vec::new(),
                shared: shared.into_iter().map(convert::shared).collect(),
            },
            Err(problems) => ApplyPipelinesResponse {
                applied: Vec::new(),
                problems: problems.into_iter().map(convert::problem).collect(),
                shared: Vec::new(),
            },
        };
        let pipelines = response.applied.iter().map(|applied| applied.name.as_str());
        let shared = response.shared.iter().map(|shared| shared.name.as_str());
        subject.is(pipelines.chain(shared).collect::<Vec<_>>().join(", "));
        Ok(Response::new(response))
    }

    async fn plan_pipelines(
        &self,
        request: Request<PlanPipelinesRequest>,
    ) -> Result<Response<PlanPipelinesResponse>, Status> {
        let texts = texts(request.into_inner().pipelines);
        let response = match shared::plan(&self.0, texts).await? {
            Ok((planned, shared)) => PlanPipelinesResponse {
                planned: planned.into_iter().map(convert::planned).collect(),
                problems: Vec::new(),
                shared: shared.into_iter().map(convert::shared).collect(),
            },
            Err(problems) => PlanPipelinesResponse {
                planned: Vec::new(),
                problems: problems.into_iter().map(convert::problem).collect(),
                shared: Vec::new(),
            },
        };
        Ok(Response::new(response))
    }

    async fn check_pipeline(
        &self,
        request: Request<CheckPipelineRequest>,
    ) -> Result<Response<CheckPipelineResponse>, Status> {
        let subject = Subject::of(&request);
        let asked = match request.into_inner().pipeline {
            Some(check_pipeline_request::Pipeline::Name(name)) => {
                subject.is(&name);
                Asked::Name(name)
            }
            Some(check_pipeline_request::Pipeline::Source(source)) => Asked::Source(source),
            None => Asked::Nothing,
        };
        let yaml = self.text_of(asked).await?;
        let results = pipelines::check(&self.0, &yaml).await?;
        let results = results.into_iter().map(convert::check).collect();
        Ok(Response::new(CheckPipelineResponse { results }))
    }

    async fn discover_source(
        &self,
        request: Request<DiscoverSourceRequest>,
    ) -> Result<Response<DiscoverSourceResponse>, Status> {
        let subject = Subject::of(&request);
        let asked = match request.into_inner().pipeline {
            Some(discover_source_request::Pipeline::Name(name)) => {
                subject.is(&name);
                Asked::Name(name)
            }
            Some(discover_source_request::Pipeline::Source(source)) => Asked::Source(source),
            None => Asked::Nothing,
        };
        let yaml = self.text_of(asked).await?;
        let menu = pipelines::discover(&self.0, &yaml).await?;
        let streams = menu.streams.into_iter().map(convert::stream).collect();
        Ok(Response::new(DiscoverSourceResponse { streams }))
    }

    async fn list_pipelines(
        &self,
        _request: Request<ListPipelinesRequest>,
    ) -> Result<Response<ListPipelinesResponse>, Status> {
        let stored = self.0.store().pipelines().await.map_err(Error::from)?;
        let pipelines = stored.iter().map(|stored| {
            let parsed = self.0.parsed(&stored.revision).ok();
            convert::pipeline(stored, parsed.as_deref(), false)
        });
        Ok(Response::new(ListPipelinesResponse { pipelines: pipelines.collect() }))
    }

    async fn get_pipeline(
        &self,
        request: Request<GetPipelineRequest>,
    ) -> Result<Response<GetPipelineResponse>, Status> {
        let name = request.into_inner().name.parse().map_err(Error::from)?;
        let stored = self.0.store().pipeline(&name).await.map_err(Error::from)?;
        let stored = stored.ok_or(Error::Store(store::Error::NoPipeline(name)))?;
        let parsed = self.0.parsed(&stored.revision).ok();
        let pipeline = convert::pipeline(&stored, parsed.as_deref(), true);
        Ok(Response::new(GetPipelineResponse { pipeline: Some(pipeline) }))
    }

    async fn delete_pipeline(
        &self,
        request: Request<DeletePipelineRequest>,
    ) -> Result<Response<DeletePipelineResponse>, Status> {
        Subject::of(&request).is(&request.get_ref().name);
        let name = request.into_inner().name.parse().map_err(Error::from)?;
        pipelines::delete(&self.0, &name).await?;
        Ok(Response::new(DeletePipelineResponse {}))
    }
}
