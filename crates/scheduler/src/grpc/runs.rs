use std::{pin::Pin, time::Duration};

use futures::Stream;
use model::RunId;
use store::{Range, RunState, Trigger};
use tokio::sync::broadcast::{self, error::RecvError};
use tonic::{Request, Response, Status};
use wire::control::{
    CancelRunRequest, CancelRunResponse, GetRunRequest, GetRunResponse, ListRunsRequest,
    ListRunsResponse, Run, StartRunRequest, StartRunResponse, WatchRunRequest, WatchRunResponse,
    run_service_server::RunService,
};

use super::convert;
use crate::{
    access::Subject,
    core::Scheduler,
    error::Error,
    settling::ended,
    start::{self, Start},
};

/// Runs that a list has where nobody asks for a number, and at most.
const USUAL_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 1_000;
/// How long another scheduler's changes may stay unseen by a watcher.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Runs(pub(super) Scheduler);

async fn message(scheduler: &Scheduler, run: store::Run) -> Result<Run, Error> {
    let notes = scheduler.store().notes(run.id).await?;
    Ok(convert::run(run, notes, scheduler.now()))
}

#[tonic::async_trait]
impl RunService for Runs {
    async fn start_run(
        &self,
        request: Request<StartRunRequest>,
    ) -> Result<Response<StartRunResponse>, Status> {
        let subject = Subject::of(&request);
        let StartRunRequest { pipeline, full, confirm_loss, accept_fields, parameters, from, to } =
            request.into_inner();
        subject.is(&pipeline);
        let name = pipeline.parse().map_err(Error::from)?;
        let range = (from.is_some() || to.is_some()).then_some(Range { from, to });
        if full && range.is_some() {
            let why = "a run reads everything or a range, not both; leave one of them out";
            return Err(Error::Request(why.to_owned()).into());
        }
        let asked = Start {
            trigger: if range.is_some() { Trigger::Backfill } else { Trigger::Manual },
            full,
            confirm_loss,
            accept_fields,
            parameters: parameters.into_iter().collect(),
            range,
            ..Start::default()
        };
        let run = start::start(&self.0, &name, asked).await?;
        let run = message(&self.0, run).await?;
        Ok(Response::new(StartRunResponse { run: Some(run) }))
    }

    async fn list_runs(
        &self,
        request: Request<ListRunsRequest>,
    ) -> Result<Response<ListRunsResponse>, Status> {
        let ListRunsRequest { pipeline, limit } = request.into_inner();
        let limit = if limit == 0 { USUAL_LIMIT } else { limit.min(MAX_LIMIT) };
        let pipeline =
            if pipeline.is_empty() { None } else { Some(pipeline.parse().map_err(Error::from)?) };
        let found = self.0.store().runs(pipeline.as_ref(), limit).await.map_err(Error::from)?;
        let now = self.0.now();
        let runs = found.into_iter().map(|run| convert::run(run, Vec::new(), now)).collect();
        Ok(Response::new(ListRunsResponse { runs }))
    }

    async fn get_run(
        &self,
        request: Request<GetRunRequest>,
    ) -> Result<Response<GetRunResponse>, Status> {
        let id: RunId = request.into_inner().id.parse().map_err(Error::from)?;
        let run = self.0.store().run(id).await.map_err(Error::from)?;
        let run = message(&self.0, run).await?;
        Ok(Response::new(GetRunResponse { run: Some(run) }))
    }

    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<WatchRunResponse, Status>> + Send>>;

    async fn watch_run(
        &self,
        request: Request<WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let id: RunId = request.into_inner().id.parse().map_err(Error::from)?;
        // The wait begins before the first look, so that nothing falls between them.
        let changes = self.0.changes();
        self.0.store().run(id).await.map_err(Error::from)?;
        let watch = Watch { scheduler: self.0.clone(), id, changes, last: None };
        let messages = futures::stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(Some(run)) => Some((Ok(WatchRunResponse { run: Some(run) }), Some(watch))),
                Ok(None) => None,
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn cancel_run(
        &self,
        request: Request<CancelRunRequest>,
    ) -> Result<Response<CancelRunResponse>, Status> {
        Subject::of(&request).is(&request.get_ref().id);
        let id: RunId = request.into_inner().id.parse().map_err(Error::from)?;
        let now = self.0.now();
        let reason = "cancelled by a user";
        let store = self.0.store();
        let run = store.end_run(id, RunState::Cancelled, reason, "", now).await;
        let run = run.map_err(Error::from)?;
        if run.ended_at == Some(now) {
            ended(&self.0, &run).await;
        }
        let run = message(&self.0, run).await?;
        Ok(Response::new(CancelRunResponse { run: Some(run) }))
    }
}

/// Follows a run to its end.
struct Watch {
    scheduler: Scheduler,
    id: RunId,
    changes: broadcast::Receiver<RunId>,
    /// What was sent last.
    last: Option<(store::Run, Run)>,
}

impl Watch {
    /// Waits until the run differs from what was sent last. `None` after it has ended, and on
    /// shutdown.
    async fn next(&mut self) -> Result<Option<Run>, Error> {
        loop {
            if let Some((last, _)) = &self.last {
                if last.state.has_ended() {
                    return Ok(None);
                }
                tokio::select! {
                    () = self.scheduler.shutdown().cancelled() => return Ok(None),
                    () = changed(&mut self.changes, self.id) => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
            let run = self.scheduler.store().run(self.id).await?;
            let next = message(&self.scheduler, run.clone()).await?;
            if self.last.as_ref().is_none_or(|(_, last)| *last != next) {
                self.last = Some((run, next.clone()));
                return Ok(Some(next));
            }
        }
    }
}

async fn changed(changes: &mut broadcast::Receiver<RunId>, id: RunId) {
    loop {
        match changes.recv().await {
            Ok(run) if run != id => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            // The sender lives as long as the scheduler.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
