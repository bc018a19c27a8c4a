use store::{NewQuarantined, Quarantined};
use tonic::{Request, Response, Status};
use wire::control::{
    DropQuarantineRequest, DropQuarantineResponse, GetQuarantinedRequest, GetQuarantinedResponse,
    ListQuarantineRequest, ListQuarantineResponse, QuarantineSelection, ReplayQuarantineRequest,
    ReplayQuarantineResponse, quarantine_service_server::QuarantineService,
};

use super::convert;
use crate::{access::Subject, core::Scheduler, error::Error, replay, sealing};

/// Records that a list has where nobody asks for a number, and at most.
const USUAL_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;

#[derive(Debug)]
pub(super) struct Quarantine(pub(super) Scheduler);

/// The contents of a record as JSON text: an object of its fields, or a text where it was never
/// parsed; empty where nothing is known. What is marked `pii` is masked.
async fn contents_of(scheduler: &Scheduler, record: &NewQuarantined) -> Result<String, Error> {
    let open = |sealed: &Vec<u8>| sealing::open(scheduler, &record.pipeline, sealed.clone());
    let contents = record.contents.as_ref().map(open).transpose()?;
    if let Some(contents) = contents
        && let Ok(batch) = wire::decode(contents)
        && !batch.records.is_empty()
    {
        let mut values = model::to_json(&batch.records, 0);
        sealing::mask(scheduler, record, &mut values).await?;
        return Ok(serde_json::Value::Object(values).to_string());
    }
    match record.raw.as_ref().map(open).transpose()? {
        Some(raw) => sealing::masked_text(scheduler, record, &raw).await,
        None => Ok(String::new()),
    }
}

/// What was selected, as the audit tells it.
fn described(selection: Option<&QuarantineSelection>) -> String {
    let Some(selection) = selection else { return "all records".to_owned() };
    let QuarantineSelection { ids, pipeline, run, .. } = selection;
    if ids.is_empty() {
        format!("records of pipeline `{pipeline}`, run `{run}`")
    } else {
        format!("records {}", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }
}

#[tonic::async_trait]
impl QuarantineService for Quarantine {
    async fn list_quarantine(
        &self,
        request: Request<ListQuarantineRequest>,
    ) -> Result<Response<ListQuarantineResponse>, Status> {
        let ListQuarantineRequest { selection, limit } = request.into_inner();
        let selection = convert::selection(selection)?;
        let limit = if limit == 0 { USUAL_LIMIT } else { limit.min(MAX_LIMIT) };
        let store = self.0.store();
        let records = store.quarantined(&selection, limit).await.map_err(Error::from)?;
        let total = store.count_quarantined(&selection).await.map_err(Error::from)?;
        let records =
            records.into_iter().map(|record| convert::quarantined(record, String::new())).collect();
        Ok(Response::new(ListQuarantineResponse { records, total }))
    }

    async fn get_quarantined(
        &self,
        request: Request<GetQuarantinedRequest>,
    ) -> Result<Response<GetQuarantinedResponse>, Status> {
        Subject::of(&request).is(format!("record {}", request.get_ref().id));
        let id = request.into_inner().id;
        let found = self.0.store().quarantined_record(id).await.map_err(Error::from)?;
        let found: Quarantined = found.ok_or(Error::NoRecord(id))?;
        let contents = contents_of(&self.0, &found.record).await?;
        let record = convert::quarantined(found, contents);
        Ok(Response::new(GetQuarantinedResponse { record: Some(record) }))
    }

    async fn replay_quarantine(
        &self,
        request: Request<ReplayQuarantineRequest>,
    ) -> Result<Response<ReplayQuarantineResponse>, Status> {
        Subject::of(&request).is(described(request.get_ref().selection.as_ref()));
        let selection = convert::selection(request.into_inner().selection)?;
        let replayed = replay::replay(&self.0, &selection).await?;
        Ok(Response::new(ReplayQuarantineResponse {
            records: replayed.records,
            runs: replayed.runs.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn drop_quarantine(
        &self,
        request: Request<DropQuarantineRequest>,
    ) -> Result<Response<DropQuarantineResponse>, Status> {
        Subject::of(&request).is(described(request.get_ref().selection.as_ref()));
        let selection = convert::selection(request.into_inner().selection)?;
        let records = self.0.store().drop_quarantined(&selection).await.map_err(Error::from)?;
        tracing::info!(records, "quarantined records were dropped");
        Ok(Response::new(DropQuarantineResponse { records }))
    }
}
