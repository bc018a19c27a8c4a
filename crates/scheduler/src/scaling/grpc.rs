use std::{pin::Pin, time::Duration};

use futures::{Stream, stream};
use tonic::{Request, Response, Status};
use wire::scaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, ScaledObjectRef, external_scaler_server::ExternalScaler,
};

use super::demand::Demand;
use crate::core::Scheduler;

/// How often a stream looks whether there is work.
const LOOK: Duration = Duration::from_secs(3);

/// Answers KEDA.
#[derive(Debug)]
pub(crate) struct Scaler(pub(crate) Scheduler);

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream =
        Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        let demand = demand(&request.into_inner())?;
        let (messages, _) = waiting(&self.0, &demand).await?;
        Ok(Response::new(IsActiveResponse { result: messages > 0 }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let demand = demand(&request.into_inner())?;
        let scheduler = self.0.clone();
        let changes =
            stream::unfold((scheduler, demand, None), |(scheduler, demand, told)| async move {
                let mut timer = tokio::time::interval(LOOK);
                if told.is_some() {
                    timer.tick().await;
                }
                loop {
                    tokio::select! {
                        () = scheduler.shutdown().cancelled() => return None,
                        _ = timer.tick() => {}
                    }
                    let result = match waiting(&scheduler, &demand).await {
                        Ok((messages, _)) => messages > 0,
                        // It stays as it was told until somebody knows better.
                        Err(status) => {
                            tracing::debug!(%status, "what waits is unknown");
                            continue;
                        }
                    };
                    if told != Some(result) {
                        let answer = Ok(IsActiveResponse { result });
                        return Some((answer, (scheduler, demand, Some(result))));
                    }
                }
            });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let demand = demand(&request.into_inner())?;
        let backlog = spec(demand.backlog_metric(), demand.backlog);
        let age = demand.age.map(|seconds| spec(demand.age_metric(), seconds));
        let metric_specs = [backlog].into_iter().chain(age).collect();
        Ok(Response::new(GetMetricSpecResponse { metric_specs }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let request = request.into_inner();
        let object = request.scaled_object_ref.ok_or_else(|| {
            Status::invalid_argument("`scaledObjectRef` is missing; KEDA always sends it")
        })?;
        let demand = demand(&object)?;
        let (messages, age) = waiting(&self.0, &demand).await?;
        #[expect(clippy::cast_precision_loss, reason = "messages are few")]
        let value = match &request.metric_name {
            name if *name == demand.backlog_metric() => messages as f64,
            name if *name == demand.age_metric() => age.as_secs_f64(),
            name => {
                let (backlog, age) = (demand.backlog_metric(), demand.age_metric());
                let told = format!("there is no metric `{name}`; ask for `{backlog}` or `{age}`");
                return Err(Status::not_found(told));
            }
        };
        let metric_value = MetricValue {
            metric_name: request.metric_name,
            metric_value: whole(value),
            metric_value_float: value,
        };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![metric_value] }))
    }
}

fn demand(object: &ScaledObjectRef) -> Result<Demand, Status> {
    Demand::read(&object.scaler_metadata).map_err(|error| {
        let (namespace, name) = (&object.namespace, &object.name);
        Status::invalid_argument(format!("ScaledObject `{namespace}/{name}`: {error}"))
    })
}

async fn waiting(scheduler: &Scheduler, demand: &Demand) -> Result<(u64, Duration), Status> {
    let waiting = scheduler.survey().waiting(scheduler).await?;
    Ok(demand.of(&waiting))
}

fn spec(metric_name: String, target: f64) -> MetricSpec {
    MetricSpec { metric_name, target_size: whole(target), target_size_float: target }
}

/// The next whole number: a little work is not none.
#[expect(clippy::cast_possible_truncation, reason = "too large a number becomes the largest")]
fn whole(number: f64) -> i64 {
    number.ceil() as i64
}
