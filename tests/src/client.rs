use std::{net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use wire::control::{
    ApplyPipelinesRequest, GetRunRequest, ListPollsRequest, ListQuarantineRequest, ListRunsRequest,
    PipelineSource, PolledPipeline, QuarantineSelection, QuarantinedRecord,
    ReplayQuarantineRequest, Run, RunState, StartRunRequest, WatchRunRequest,
    pipeline_service_client::PipelineServiceClient, poll_service_client::PollServiceClient,
    quarantine_service_client::QuarantineServiceClient, run_service_client::RunServiceClient,
};

/// How long the control plane may be away or a run may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(240);

/// How long a run may stay as it is before the stream that tells of it is opened again.
const SILENCE: Duration = Duration::from_secs(5);

/// A client of the gRPC API that outlives restarts of the scheduler.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Panics
    ///
    /// Never: an address is a valid URI.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a valid URI");
        Self { channel: endpoint.connect_lazy() }
    }

    /// Returns a client of the service for pipelines.
    #[must_use]
    pub fn pipelines(&self) -> PipelineServiceClient<Channel> {
        PipelineServiceClient::new(self.channel.clone())
    }

    /// Returns a client of the service for runs.
    #[must_use]
    pub fn runs(&self) -> RunServiceClient<Channel> {
        RunServiceClient::new(self.channel.clone())
    }

    /// Returns a client of the service for quarantined records.
    #[must_use]
    pub fn quarantine(&self) -> QuarantineServiceClient<Channel> {
        QuarantineServiceClient::new(self.channel.clone())
    }

    /// Tells what polling a pipeline has cost and brought.
    ///
    /// # Panics
    ///
    /// When the scheduler does not answer, or there is no such pipeline.
    pub async fn polls(&self, pipeline: &str) -> PolledPipeline {
        let request = ListPollsRequest { pipeline: pipeline.to_owned() };
        let mut client = PollServiceClient::new(self.channel.clone());
        let mut polled = client.list_polls(request).await.unwrap().into_inner().pipelines;
        polled.pop().expect("the pipeline")
    }

    /// Stores a pipeline.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn apply(&self, yaml: &str) {
        let source = PipelineSource { file: "test.yaml".to_owned(), yaml: yaml.to_owned() };
        let request =
            ApplyPipelinesRequest { pipelines: vec![source], ..ApplyPipelinesRequest::default() };
        let answer = self.pipelines().apply_pipelines(request).await.unwrap().into_inner();
        assert!(answer.problems.is_empty(), "{:?}", answer.problems);
    }

    /// Starts a run and returns its id. Asks again while the scheduler is away.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn start(&self, pipeline: &str) -> String {
        let request =
            StartRunRequest { pipeline: pipeline.to_owned(), ..StartRunRequest::default() };
        self.start_with(request).await
    }

    /// Starts a run as asked and returns its id.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn start_with(&self, request: StartRunRequest) -> String {
        let answer = self.runs().start_run(request).await.unwrap().into_inner();
        answer.run.expect("a started run").id
    }

    /// Returns a run as it stands, waiting for a scheduler that is away.
    ///
    /// # Panics
    ///
    /// When there is no such run, or the scheduler stays away.
    pub async fn run(&self, id: &str) -> Run {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.runs().get_run(GetRunRequest { id: id.to_owned() }).await {
                Ok(answer) => return answer.into_inner().run.expect("the run"),
                Err(status) => self.be_patient(&status, deadline).await,
            }
        }
    }

    /// Returns the latest runs of a pipeline, newest first.
    ///
    /// # Panics
    ///
    /// When the scheduler does not answer.
    pub async fn latest(&self, pipeline: &str) -> Vec<Run> {
        let request = ListRunsRequest { pipeline: pipeline.to_owned(), limit: 50 };
        self.runs().list_runs(request).await.unwrap().into_inner().runs
    }

    /// Waits until a run has ended and returns it, however often the scheduler goes away meanwhile.
    ///
    /// # Panics
    ///
    /// When the run does not end in time.
    pub async fn ended(&self, id: &str) -> Run {
        let going = [RunState::Waiting, RunState::Running, RunState::Paused];
        self.until(id, |run| !going.contains(&run.state())).await
    }

    /// Waits until a run is as wanted and returns it.
    ///
    /// # Panics
    ///
    /// When that does not happen in time.
    pub async fn until(&self, id: &str, wanted: impl Fn(&Run) -> bool) -> Run {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let run = self.run(id).await;
            if wanted(&run) {
                return run;
            }
            assert!(Instant::now() < deadline, "waited too long for {run:#?}");
            let request = WatchRunRequest { id: id.to_owned() };
            let mut watch = match self.runs().watch_run(request).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => {
                    self.be_patient(&status, deadline).await;
                    continue;
                }
            };
            while let Ok(Ok(Some(answer))) = timeout(SILENCE, watch.message()).await {
                match answer.run {
                    Some(run) if wanted(&run) => return run,
                    _ => {}
                }
            }
        }
    }

    /// Waits for the end of a run that has to succeed with balanced books, and returns it.
    ///
    /// # Panics
    ///
    /// When the run does not, or its numbers do not add up.
    pub async fn succeeded(&self, id: &str) -> Run {
        let run = self.ended(id).await;
        assert_eq!(run.state(), RunState::Succeeded, "{run:#?}");
        assert_balanced(&run);
        run
    }

    /// Returns all quarantined records of a pipeline, newest first.
    ///
    /// # Panics
    ///
    /// When the scheduler does not answer.
    pub async fn quarantined(&self, pipeline: &str) -> Vec<QuarantinedRecord> {
        let selection = Some(of_pipeline(pipeline));
        let request = ListQuarantineRequest { selection, limit: 1000 };
        self.quarantine().list_quarantine(request).await.unwrap().into_inner().records
    }

    /// Replays all quarantined records of a pipeline and returns the ids of the runs.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn replay(&self, pipeline: &str) -> Vec<String> {
        let request = ReplayQuarantineRequest { selection: Some(of_pipeline(pipeline)) };
        self.quarantine().replay_quarantine(request).await.unwrap().into_inner().runs
    }

    async fn be_patient(&self, status: &Status, deadline: Instant) {
        let away = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];
        assert!(
            away.contains(&status.code()) && Instant::now() < deadline,
            "the scheduler answers {status:?}"
        );
        // A server that is away sends no event.
        sleep(Duration::from_millis(100)).await;
    }
}

fn of_pipeline(pipeline: &str) -> QuarantineSelection {
    QuarantineSelection { pipeline: pipeline.to_owned(), ..Default::default() }
}

/// Checks the books of a run: whatever was extracted is loaded, unchanged, filtered or quarantined.
///
/// # Panics
///
/// When they do not balance.
pub fn assert_balanced(run: &Run) {
    let ledger = run.ledger.as_ref().expect("a run has books");
    assert!(ledger.balanced && ledger.extraction_ended && !ledger.targets.is_empty(), "{run:#?}");
    for target in &ledger.targets {
        let accounted = target.loaded
            + target.unchanged
            + target.quarantined
            + ledger.filtered
            + ledger.quarantined;
        assert_eq!((ledger.extracted, target.missing), (accounted, 0), "{run:#?}");
    }
}
