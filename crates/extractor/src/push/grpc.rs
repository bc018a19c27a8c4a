//! gRPC ingest: records in calls and streams of messages, each acknowledged by its id.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use connectors::{Variables, pushed::Object};
use futures::{Stream, StreamExt, TryStreamExt};
use model::{Operation, PipelineName};
use opentelemetry::trace::SpanContext;
use runtime::tls::Tls;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};
use wire::ingest::{
    IngestRequest, IngestResponse, IngestStreamRequest, IngestStreamResponse, PushOperation,
    PushedRecord, RejectedRecord,
    ingest_service_server::{IngestService, IngestServiceServer},
};

use super::{
    inlet::Refused,
    intake::{Closed, Intake, Open},
    item::{self, Item, Pushed},
    seen::delivery,
    verify::{self, InvalidVerify},
};

/// Records of one message.
const MAX_RECORDS: usize = 4_096;

/// Messages of a stream that are worked on at the same time. The stream is not read on while so many
/// are not answered.
const WINDOW: usize = 16;

/// Ids of records have at most so many bytes.
const MAX_ID: usize = 256;

/// Size of one message; with the window it bounds what a stream holds.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Who may call, and for which revision.
pub(crate) struct Allowed {
    pipeline: PipelineName,
    revision: u32,
    tokens: Vec<Vec<u8>>,
}

impl Allowed {
    pub(crate) fn new(
        pipeline: PipelineName,
        revision: u32,
        declared: &spec::GrpcIngest,
        variables: &Variables,
    ) -> Result<Self, InvalidVerify> {
        let tokens = verify::resolve(&declared.bearer, variables)?;
        let tokens = tokens.into_iter().map(String::into_bytes).collect();
        Ok(Self { pipeline, revision, tokens })
    }

    fn allows(&self, metadata: &MetadataMap) -> bool {
        let authorization = metadata.get("authorization").and_then(|value| value.to_str().ok());
        self.tokens.is_empty() || verify::is_authorized(authorization, "Bearer", &self.tokens)
    }
}

struct Service {
    intake: Arc<Intake>,
}

/// Serves gRPC ingest until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    intake: Arc<Intake>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IngestServiceServer<Service>>().await;
    let service =
        IngestServiceServer::new(Service { intake }).max_decoding_message_size(MAX_MESSAGE);
    runtime::grpc::server()
        .add_service(health_service)
        .add_service(reflection)
        .add_service(service)
        .serve_with_incoming_shutdown(
            runtime::grpc::incoming(listener, tls),
            shutdown.cancelled_owned(),
        )
        .await?;
    Ok(())
}

impl Service {
    fn open(&self, pipeline: &str, metadata: &MetadataMap) -> Result<Open<Allowed>, Status> {
        let open = self.intake.grpc(pipeline).map_err(|closed| match closed {
            Closed::NotFound => {
                Status::not_found(format!("no pipeline `{pipeline}` takes records by gRPC"))
            }
            Closed::Misconfigured => Status::unavailable("the pipeline is not configured here"),
        })?;
        match open.how.allows(metadata) {
            true => Ok(open),
            false => Err(Status::unauthenticated("the call is not authorized")),
        }
    }
}

/// The span of the sender.
fn sender(metadata: &MetadataMap) -> Option<SpanContext> {
    bus::span_of(metadata.get("traceparent")?.to_str().ok()?)
}

/// Pushes the records of one message.
async fn push(
    open: &Open<Allowed>,
    records: Vec<PushedRecord>,
    sender: Option<SpanContext>,
) -> Result<(Vec<String>, Vec<RejectedRecord>), Status> {
    if records.len() > MAX_RECORDS {
        let reason = format!("a message has at most {MAX_RECORDS} records");
        return Err(Status::invalid_argument(reason));
    }
    let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
    let mut items = Vec::with_capacity(records.len());
    for record in records {
        let id = record.id.clone();
        match item(&open.how.pipeline, record) {
            Ok(item) => {
                items.push(item);
                accepted.push(id);
            }
            Err(reason) => rejected.push(RejectedRecord { id, reason }),
        }
    }
    if !items.is_empty() {
        let pushed = open.inlet.push(open.how.revision, items, sender).await;
        pushed.map_err(|refused| match refused {
            Refused::Full => Status::resource_exhausted("too much is on its way in"),
            Refused::Unavailable => Status::unavailable("nothing can be stored at the moment"),
        })?;
    }
    Ok((accepted, rejected))
}

fn item(pipeline: &PipelineName, record: PushedRecord) -> Result<Item, String> {
    let PushedRecord { id, operation, json } = record;
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        return Err(format!("an id has 1 to {MAX_ID} bytes and no control characters"));
    }
    let operation = match PushOperation::try_from(operation) {
        Ok(PushOperation::Unspecified | PushOperation::Upsert) => Operation::Upsert,
        Ok(PushOperation::Patch) => Operation::Patch,
        Ok(PushOperation::Delete) => Operation::Delete,
        Err(_) => return Err("the operation is not known".to_owned()),
    };
    let object = Object::parse(&json).map_err(|error| error.to_string())?;
    item::fits(&object)
        .map_err(|_| format!("the record is larger than {} bytes", item::RECORD_BYTES))?;
    drop(object);
    let delivery = Some(delivery(pipeline, &id));
    let pushed = vec![Pushed::Record { json: Bytes::from(json), operation }];
    Ok(Item { id: Some(id), delivery, pushed })
}

#[tonic::async_trait]
impl IngestService for Service {
    async fn ingest(
        &self,
        request: Request<IngestRequest>,
    ) -> Result<Response<IngestResponse>, Status> {
        let (metadata, _, IngestRequest { pipeline, records }) = request.into_parts();
        let open = self.open(&pipeline, &metadata)?;
        let (accepted, rejected) = push(&open, records, sender(&metadata)).await?;
        Ok(Response::new(IngestResponse { accepted, rejected }))
    }

    type IngestStreamStream =
        Pin<Box<dyn Stream<Item = Result<IngestStreamResponse, Status>> + Send>>;

    async fn ingest_stream(
        &self,
        request: Request<Streaming<IngestStreamRequest>>,
    ) -> Result<Response<Self::IngestStreamStream>, Status> {
        let (metadata, _, mut messages) = request.into_parts();
        let Some(first) = messages.try_next().await? else {
            return Ok(Response::new(Box::pin(futures::stream::empty())));
        };
        let name = first.pipeline.clone();
        // A revision that is applied meanwhile counts for the messages after it.
        self.open(&name, &metadata)?;
        let service = Self { intake: Arc::clone(&self.intake) };
        let answers = futures::stream::once(async { Ok(first) })
            .chain(messages)
            .map(move |message| {
                let opened = message.and_then(|message| {
                    if !message.pipeline.is_empty() && message.pipeline != name {
                        let reason = "all messages of a stream are for one pipeline";
                        return Err(Status::invalid_argument(reason));
                    }
                    Ok((service.open(&name, &metadata)?, message.records, sender(&metadata)))
                });
                async move {
                    let (open, records, sender) = opened?;
                    let (accepted, rejected) = push(&open, records, sender).await?;
                    Ok(IngestStreamResponse { accepted, rejected })
                }
            })
            .buffered(WINDOW);
        Ok(Response::new(Box::pin(answers)))
    }
}
