use std::time::Duration;

use tonic::{Request, Response, Status};
use wire::control::{
    self, DeleteQuotaRequest, DeleteQuotaResponse, ListQuotasRequest, ListQuotasResponse,
    quota_service_server::QuotaService,
};

use crate::{
    access::Subject,
    core::Scheduler,
    error::Error,
    shared::{self, Standing},
};

#[derive(Debug)]
pub(super) struct Quotas(pub(super) Scheduler);

#[tonic::async_trait]
impl QuotaService for Quotas {
    async fn list_quotas(
        &self,
        _request: Request<ListQuotasRequest>,
    ) -> Result<Response<ListQuotasResponse>, Status> {
        let standings = shared::quotas(&self.0).await?;
        let quotas = standings.into_iter().map(quota).collect();
        Ok(Response::new(ListQuotasResponse { quotas }))
    }

    async fn delete_quota(
        &self,
        request: Request<DeleteQuotaRequest>,
    ) -> Result<Response<DeleteQuotaResponse>, Status> {
        Subject::of(&request).is(&request.get_ref().name);
        let name = request.into_inner().name.parse().map_err(Error::from)?;
        shared::delete(&self.0, &name).await?;
        Ok(Response::new(DeleteQuotaResponse {}))
    }
}

fn quota(standing: Standing) -> control::Quota {
    let Standing { declared, used, pipelines } = standing;
    let limits = declared.quota.limits.iter().map(|limit| control::QuotaLimit {
        limit: limit.to_string(),
        calls: limit.calls,
        window: Some(duration(limit.window())),
        used: 0,
    });
    let mut quota = control::Quota {
        name: declared.name.to_string(),
        limits: limits.collect(),
        concurrency: declared.quota.concurrency.unwrap_or(0),
        share: 1.0,
        pipelines,
        ..control::Quota::default()
    };
    let used = match used {
        Ok(Some(used)) => used,
        Ok(None) => {
            quota.unknown = "the broker does not know it yet".to_owned();
            return quota;
        }
        Err(error) => {
            quota.unknown = error.told();
            return quota;
        }
    };
    for (limit, known) in quota.limits.iter_mut().zip(&used.limits) {
        limit.used = known.used;
    }
    quota.outstanding = used.outstanding;
    let waiting = used.waiting.into_iter();
    quota.waiting =
        waiting.map(|(pipeline, calls)| control::QuotaWaiting { pipeline, calls }).collect();
    quota.estimate = used.estimate.map(duration);
    quota.paused = used.paused.map(duration);
    quota.left = used.left;
    quota.share = used.share;
    quota.calls = used.calls;
    quota.refused = used.refused;
    quota.processes = used.processes;
    quota
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}
