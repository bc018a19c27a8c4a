//! A control plane that answers from a script.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures::{Stream, stream};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};
use wire::control::{
    AppliedPipeline, ApplyPipelinesRequest, ApplyPipelinesResponse, CancelRunRequest,
    CancelRunResponse, Change, CheckPipelineRequest, CheckPipelineResponse, CheckResult,
    DeletePipelineRequest, DeletePipelineResponse, DiscoverSourceRequest, DiscoverSourceResponse,
    DropQuarantineRequest, DropQuarantineResponse, FieldDescription, Freshness, GetPipelineRequest,
    GetPipelineResponse, GetQuarantinedRequest, GetQuarantinedResponse, GetRunRequest,
    GetRunResponse, Ledger, ListPipelinesRequest, ListPipelinesResponse, ListPollsRequest,
    ListPollsResponse, ListQuarantineRequest, ListQuarantineResponse, ListRunsRequest,
    ListRunsResponse, Pipeline, PlanPipelinesRequest, PlanPipelinesResponse, PlannedPipeline,
    PlannedTarget, PollEstimate, PolledPipeline, Problem, QuarantinedRecord,
    ReplayQuarantineRequest, ReplayQuarantineResponse, Run, RunState, StartRunRequest,
    StartRunResponse, StreamDescription, TargetLedger, WatchRunRequest, WatchRunResponse,
    pipeline_service_server::{PipelineService, PipelineServiceServer},
    poll_service_server::{PollService, PollServiceServer},
    quarantine_service_server::{QuarantineService, QuarantineServiceServer},
    run_service_server::{RunService, RunServiceServer},
};

/// Starts the fake and returns its address. It ends with the test's runtime.
pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = Fake::default();
    let serving = Server::builder()
        .add_service(PipelineServiceServer::new(fake.clone()))
        .add_service(RunServiceServer::new(fake.clone()))
        .add_service(PollServiceServer::new(fake.clone()))
        .add_service(QuarantineServiceServer::new(fake))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    address
}

/// Pipelines whose text says `broken` have a problem. Runs of `orders` succeed, those of `broken`
/// fail; the first watch of `flaky` is cut off in the middle.
#[derive(Clone, Default)]
struct Fake {
    watches: Arc<AtomicU32>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl PipelineService for Fake {
    async fn apply_pipelines(
        &self,
        request: Request<ApplyPipelinesRequest>,
    ) -> Answer<ApplyPipelinesResponse> {
        let pipelines = request.into_inner().pipelines;
        let problems: Vec<Problem> = pipelines
            .iter()
            .filter(|pipeline| pipeline.yaml.contains("broken"))
            .map(|pipeline| problem(&pipeline.file))
            .collect();
        let applied = pipelines.iter().filter(|_| problems.is_empty()).map(|_| AppliedPipeline {
            name: "orders".to_owned(),
            revision: 2,
            change: Change::Updated.into(),
        });
        let applied = applied.collect();
        Ok(Response::new(ApplyPipelinesResponse { applied, problems, shared: Vec::new() }))
    }

    async fn plan_pipelines(
        &self,
        _: Request<PlanPipelinesRequest>,
    ) -> Answer<PlanPipelinesResponse> {
        let target = |target: &str, actions: &[&str], unreachable: &str| PlannedTarget {
            target: target.to_owned(),
            actions: actions.iter().map(ToString::to_string).collect(),
            unreachable: unreachable.to_owned(),
        };
        let planned = vec![PlannedPipeline {
            name: "orders".to_owned(),
            change: Change::Created.into(),
            fields: vec![field("id", "integer", true)],
            inferred: true,
            targets: vec![
                target("store", &["create table `orders` with 1 column"], ""),
                target("lake", &[], "connection refused"),
                target("log", &[], ""),
            ],
            result: vec![field("id", "integer", true)],
            destructive: vec!["the target `old` is gone".to_owned()],
        }];
        Ok(Response::new(PlanPipelinesResponse {
            planned,
            problems: Vec::new(),
            shared: Vec::new(),
        }))
    }

    async fn check_pipeline(
        &self,
        request: Request<CheckPipelineRequest>,
    ) -> Answer<CheckPipelineResponse> {
        use wire::control::check_pipeline_request::Pipeline as Which;
        let good =
            matches!(request.into_inner().pipeline, Some(Which::Name(name)) if name == "orders");
        let results = vec![CheckResult {
            subject: "source orders/*.csv".to_owned(),
            ok: good,
            message: "2 files".to_owned(),
        }];
        Ok(Response::new(CheckPipelineResponse { results }))
    }

    async fn discover_source(
        &self,
        _: Request<DiscoverSourceRequest>,
    ) -> Answer<DiscoverSourceResponse> {
        let fields = vec![field("id", "integer", true), field("total", "decimal(12,2)", false)];
        let streams = vec![StreamDescription { name: "orders.csv".to_owned(), fields }];
        Ok(Response::new(DiscoverSourceResponse { streams }))
    }

    async fn list_pipelines(
        &self,
        _: Request<ListPipelinesRequest>,
    ) -> Answer<ListPipelinesResponse> {
        Ok(Response::new(ListPipelinesResponse { pipelines: vec![pipeline("")] }))
    }

    async fn get_pipeline(
        &self,
        request: Request<GetPipelineRequest>,
    ) -> Answer<GetPipelineResponse> {
        match request.into_inner().name.as_str() {
            "orders" => {
                let pipeline = Some(pipeline("name: orders\n"));
                Ok(Response::new(GetPipelineResponse { pipeline }))
            }
            name => Err(Status::not_found(format!("there is no pipeline `{name}`"))),
        }
    }

    async fn delete_pipeline(
        &self,
        _: Request<DeletePipelineRequest>,
    ) -> Answer<DeletePipelineResponse> {
        Ok(Response::new(DeletePipelineResponse {}))
    }
}

#[tonic::async_trait]
impl RunService for Fake {
    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<WatchRunResponse, Status>> + Send>>;

    async fn start_run(&self, request: Request<StartRunRequest>) -> Answer<StartRunResponse> {
        let request = request.into_inner();
        if request.pipeline == "busy" {
            return Err(Status::failed_precondition("run r1 of `busy` is going"));
        }
        let run = run(&format!("{}-1", request.pipeline), RunState::Running);
        Ok(Response::new(StartRunResponse { run: Some(run) }))
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Answer<ListRunsResponse> {
        let limit = usize::try_from(request.into_inner().limit).unwrap();
        let mut runs =
            vec![run("orders-1", RunState::Succeeded), run("broken-1", RunState::Failed)];
        runs.truncate(limit);
        Ok(Response::new(ListRunsResponse { runs }))
    }

    async fn get_run(&self, request: Request<GetRunRequest>) -> Answer<GetRunResponse> {
        let run = run(&request.into_inner().id, RunState::Succeeded);
        Ok(Response::new(GetRunResponse { run: Some(run) }))
    }

    async fn watch_run(&self, request: Request<WatchRunRequest>) -> Answer<Self::WatchRunStream> {
        let id = request.into_inner().id;
        let first = self.watches.fetch_add(1, Ordering::SeqCst) == 0;
        let last = match id.split('-').next() {
            Some("orders") => Some(RunState::Succeeded),
            Some("broken") => Some(RunState::Failed),
            Some("flaky") if first => None,
            Some("flaky") => Some(RunState::Succeeded),
            _ => return Err(Status::not_found(format!("there is no run {id}"))),
        };
        let states = [Some(RunState::Running), last];
        let answers = states
            .into_iter()
            .flatten()
            .map(move |state| Ok(WatchRunResponse { run: Some(run(&id, state)) }));
        Ok(Response::new(Box::pin(stream::iter(answers))))
    }

    async fn cancel_run(&self, request: Request<CancelRunRequest>) -> Answer<CancelRunResponse> {
        let run = run(&request.into_inner().id, RunState::Cancelled);
        Ok(Response::new(CancelRunResponse { run: Some(run) }))
    }
}

#[tonic::async_trait]
impl QuarantineService for Fake {
    async fn list_quarantine(
        &self,
        _: Request<ListQuarantineRequest>,
    ) -> Answer<ListQuarantineResponse> {
        Ok(Response::new(ListQuarantineResponse { records: vec![quarantined("")], total: 12 }))
    }

    async fn get_quarantined(
        &self,
        _: Request<GetQuarantinedRequest>,
    ) -> Answer<GetQuarantinedResponse> {
        let record = Some(quarantined(r#"{"total":12.30}"#));
        Ok(Response::new(GetQuarantinedResponse { record }))
    }

    async fn replay_quarantine(
        &self,
        _: Request<ReplayQuarantineRequest>,
    ) -> Answer<ReplayQuarantineResponse> {
        let runs = vec!["orders-2".to_owned()];
        Ok(Response::new(ReplayQuarantineResponse { records: 12, runs }))
    }

    async fn drop_quarantine(
        &self,
        request: Request<DropQuarantineRequest>,
    ) -> Answer<DropQuarantineResponse> {
        let ids = request.into_inner().selection.unwrap().ids;
        Ok(Response::new(DropQuarantineResponse { records: ids.len().try_into().unwrap() }))
    }
}

fn problem(file: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        line: 3,
        key: "source.csv.pth".to_owned(),
        message: "unknown key".to_owned(),
        remedy: "write `path`".to_owned(),
    }
}

fn field(name: &str, kind: &str, key: bool) -> FieldDescription {
    FieldDescription { name: name.to_owned(), r#type: kind.to_owned(), key, required: key }
}

fn pipeline(yaml: &str) -> Pipeline {
    Pipeline {
        name: "orders".to_owned(),
        revision: 2,
        applied_at: Some("2024-05-06T07:08:09.5Z".parse().unwrap()),
        source: "csv".to_owned(),
        targets: vec!["store".to_owned(), "lake".to_owned()],
        yaml: yaml.to_owned(),
        triggers: "every 10m".to_owned(),
    }
}

#[tonic::async_trait]
impl PollService for Fake {
    async fn list_polls(
        &self,
        _: Request<ListPollsRequest>,
    ) -> Result<Response<ListPollsResponse>, Status> {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let polled = PolledPipeline {
            pipeline: "orders".to_owned(),
            triggers: "every 10m".to_owned(),
            interval: seconds(600),
            polls: 144,
            polls_without_news: 120,
            changes: 36,
            calls: 150,
            received_bytes: 30_000,
            freshness: Some(Freshness { median: seconds(303), p95: seconds(580), measured: 36 }),
            estimates: vec![PollEstimate {
                interval: seconds(600),
                polls_per_day: 144.0,
                calls_per_day: 150.0,
                received_bytes_per_day: 30_000.0,
                share_without_news: 0.833,
                freshness_median: seconds(303),
                freshness_p95: seconds(580),
                present: true,
            }],
            ..PolledPipeline::default()
        };
        Ok(Response::new(ListPollsResponse { pipelines: vec![polled] }))
    }
}

fn run(id: &str, state: RunState) -> Run {
    let (failed, ended) = (state == RunState::Failed, state != RunState::Running);
    let balanced = state == RunState::Succeeded;
    let target = TargetLedger {
        target: "store".to_owned(),
        loaded: if balanced { 69_000 } else { 100 },
        unchanged: if balanced { 600 } else { 0 },
        quarantined: if balanced { 9 } else { 0 },
        swept: 0,
        missing: if balanced { 0 } else { 69_509 },
    };
    Run {
        id: id.to_owned(),
        pipeline: id.split('-').next().unwrap().to_owned(),
        revision: 2,
        trigger: "manual".to_owned(),
        state: state.into(),
        started_at: Some("2024-05-06T07:08:09Z".parse().unwrap()),
        ended_at: ended.then(|| "2024-05-06T07:08:12.25Z".parse().unwrap()),
        ledger: Some(Ledger {
            extracted: 69_659,
            batches: 12,
            batches_transformed: 12,
            filtered: 50,
            quarantined: 0,
            targets: vec![target],
            extraction_ended: true,
            balanced,
        }),
        reason: if failed { "the table `orders` is gone" } else { "" }.to_owned(),
        hint: if failed { "create it again" } else { "" }.to_owned(),
        notes: Vec::new(),
        attempt: 1,
        parameters: [("region".to_owned(), "eu".to_owned())].into(),
        range_from: Some("1997-01-01".to_owned()),
        ..Run::default()
    }
}

fn quarantined(contents: &str) -> QuarantinedRecord {
    QuarantinedRecord {
        id: 7,
        pipeline: "orders".to_owned(),
        revision: 2,
        run: "orders-1".to_owned(),
        stage: "transformer".to_owned(),
        target: String::new(),
        record: "orders.csv:17".to_owned(),
        code: "type".to_owned(),
        message: "not a decimal".to_owned(),
        step: "2 (cast)".to_owned(),
        field: "total".to_owned(),
        quarantined_at: Some("2024-05-06T07:08:10Z".parse().unwrap()),
        contents: contents.to_owned(),
    }
}
