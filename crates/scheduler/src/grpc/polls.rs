use std::time::Duration;

use prost_types::Duration as WireDuration;
use spec::Pipeline;
use tonic::{Request, Response, Status};
use wire::control::{
    Freshness, ListPollsRequest, ListPollsResponse, PollEstimate, PolledPipeline,
    poll_service_server::PollService,
};

use super::convert;
use crate::{
    core::Scheduler,
    error::Error,
    polls::{Estimate, History, history},
};

/// Runs that are looked at, the newest.
const RUNS: u32 = 1_000;

#[derive(Debug)]
pub(super) struct Polls(pub(super) Scheduler);

#[tonic::async_trait]
impl PollService for Polls {
    async fn list_polls(
        &self,
        request: Request<ListPollsRequest>,
    ) -> Result<Response<ListPollsResponse>, Status> {
        let name = request.into_inner().pipeline;
        Ok(Response::new(ListPollsResponse { pipelines: list(&self.0, &name).await? }))
    }
}

async fn list(scheduler: &Scheduler, name: &str) -> Result<Vec<PolledPipeline>, Error> {
    let store = scheduler.store();
    let stored = if name.is_empty() {
        store.pipelines().await?
    } else {
        let name = name.parse().map_err(Error::from)?;
        let stored = store.pipeline(&name).await?;
        vec![stored.ok_or(store::Error::NoPipeline(name))?]
    };
    let mut polled = Vec::new();
    for stored in stored {
        let Ok(pipeline) = scheduler.parsed(&stored.revision) else { continue };
        let mut runs = store.polls(&pipeline.name, RUNS).await?;
        runs.reverse();
        let declared = pipeline.triggers.every.map(|every| every.interval);
        if runs.is_empty() && declared.is_none() && name.is_empty() {
            continue;
        }
        polled.push(message(&pipeline, history(&runs, declared)));
    }
    Ok(polled)
}

fn message(pipeline: &Pipeline, history: History) -> PolledPipeline {
    let freshness = history.ages.quantile(0.5).zip(history.ages.quantile(0.95));
    PolledPipeline {
        pipeline: pipeline.name.to_string(),
        triggers: convert::triggers(pipeline),
        since: history.since.map(convert::timestamp),
        interval: history.interval.map(duration),
        polls: history.polls,
        polls_without_news: history.without_news,
        changes: history.changes,
        calls: history.calls,
        received_bytes: history.received_bytes,
        freshness: freshness.map(|(median, p95)| Freshness {
            median: Some(duration(median)),
            p95: Some(duration(p95)),
            measured: history.ages.count(),
        }),
        estimates: history.estimates.into_iter().map(estimate).collect(),
    }
}

fn estimate(estimate: Estimate) -> PollEstimate {
    PollEstimate {
        interval: Some(duration(estimate.interval)),
        polls_per_day: estimate.polls_per_day,
        calls_per_day: estimate.calls_per_day,
        received_bytes_per_day: estimate.received_bytes_per_day,
        share_without_news: estimate.share_without_news,
        freshness_median: Some(duration(estimate.median)),
        freshness_p95: Some(duration(estimate.p95)),
        present: estimate.present,
    }
}

fn duration(duration: Duration) -> WireDuration {
    WireDuration::try_from(duration).unwrap_or_default()
}
