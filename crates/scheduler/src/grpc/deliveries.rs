use chrono::DateTime;
use model::PipelineName;
use spec::UNDELIVERED;
use store::Selection;
use tonic::{Request, Response, Status};
use wire::control::{
    self, EnableReceiverRequest, EnableReceiverResponse, ListReceiversRequest,
    ListReceiversResponse, ResendDeliveriesRequest, ResendDeliveriesResponse,
    delivery_service_server::DeliveryService,
};

use super::convert::timestamp;
use crate::{
    access::Subject,
    core::Scheduler,
    delivered::{self, Wanted},
    deliveries,
    error::Error,
    replay::{self, Replayed},
};

#[derive(Debug)]
pub(super) struct Deliveries(pub(super) Scheduler);

fn receiver(known: store::Receiver) -> control::Receiver {
    control::Receiver {
        pipeline: known.pipeline.to_string(),
        target: known.target,
        waiting: known.waiting,
        given_up: known.given_up,
        failing_since: known.failing_since.map(timestamp),
        next_attempt_at: known.next_attempt_at.map(timestamp),
        reason: known.reason,
        disabled_at: known.disabled_at.map(timestamp),
    }
}

fn answer(replayed: &Replayed) -> ResendDeliveriesResponse {
    ResendDeliveriesResponse {
        deliveries: replayed.records,
        runs: replayed.runs.iter().map(ToString::to_string).collect(),
    }
}

#[tonic::async_trait]
impl DeliveryService for Deliveries {
    async fn list_receivers(
        &self,
        request: Request<ListReceiversRequest>,
    ) -> Result<Response<ListReceiversResponse>, Status> {
        let pipeline = request.into_inner().pipeline;
        let known = self.0.store().receivers().await.map_err(Error::from)?;
        let of =
            |known: &store::Receiver| pipeline.is_empty() || known.pipeline.as_str() == pipeline;
        let receivers = known.into_iter().filter(of).map(receiver).collect();
        Ok(Response::new(ListReceiversResponse { receivers }))
    }

    async fn resend_deliveries(
        &self,
        request: Request<ResendDeliveriesRequest>,
    ) -> Result<Response<ResendDeliveriesResponse>, Status> {
        let subject = Subject::of(&request);
        let ResendDeliveriesRequest { pipeline, target, ids, since, delivered, key } =
            request.into_inner();
        subject.is(format!("pipeline `{pipeline}`, target `{target}`"));
        let since = since
            .map(|since| {
                let nanos = u32::try_from(since.nanos).ok();
                nanos
                    .and_then(|nanos| DateTime::from_timestamp(since.seconds, nanos))
                    .ok_or_else(|| Error::Request("`since` is no time".to_owned()))
            })
            .transpose()?;
        let named = |name: String| (!name.is_empty()).then_some(name);
        let pipeline: Option<PipelineName> =
            named(pipeline).map(|name| name.parse()).transpose().map_err(Error::Id)?;
        if delivered {
            let (Some(pipeline), true) = (pipeline, ids.is_empty()) else {
                let text = "name the pipeline of what was delivered, and no ids".to_owned();
                return Err(Error::Request(text).into());
            };
            let wanted = Wanted { target: named(target), key: named(key), since };
            let resent = delivered::resend(&self.0, &pipeline, &wanted).await?;
            return Ok(Response::new(answer(&resent)));
        }
        let selection = Selection {
            pipeline,
            target: named(target),
            code: Some(UNDELIVERED.to_owned()),
            since,
            ids,
            ..Selection::default()
        };
        let replayed = replay::replay(&self.0, &selection).await?;
        Ok(Response::new(answer(&replayed)))
    }

    async fn enable_receiver(
        &self,
        request: Request<EnableReceiverRequest>,
    ) -> Result<Response<EnableReceiverResponse>, Status> {
        let subject = Subject::of(&request);
        let EnableReceiverRequest { pipeline, target } = request.into_inner();
        subject.is(format!("{pipeline}.{target}"));
        let pipeline: PipelineName = pipeline.parse().map_err(Error::Id)?;
        let target: PipelineName = target.parse().map_err(Error::Id)?;
        if !deliveries::enable(&self.0, &pipeline, &target).await? {
            let text = format!("the receiver `{target}` of pipeline `{pipeline}` is not disabled");
            return Err(Status::not_found(text));
        }
        Ok(Response::new(EnableReceiverResponse {}))
    }
}
