//! The gRPC API: requests to calls, answers to messages, nothing else.

mod access;
mod convert;
mod deliveries;
mod pipelines;
mod polls;
mod quarantine;
mod quotas;
mod runs;

use anyhow::Context;
use runtime::tls::Tls;
use tokio::net::TcpListener;
use wire::control::{
    access_service_server::AccessServiceServer, delivery_service_server::DeliveryServiceServer,
    pipeline_service_server::PipelineServiceServer, poll_service_server::PollServiceServer,
    quarantine_service_server::QuarantineServiceServer, quota_service_server::QuotaServiceServer,
    run_service_server::RunServiceServer,
};
use wire::scaler::external_scaler_server::ExternalScalerServer;

use crate::{
    access::{Access, GuardLayer},
    core::Scheduler,
    scaling::Scaler,
};

/// A message holds at most so many bytes: many pipelines at once, or one large record.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Serves until shutdown, then ends the calls in hand.
pub(crate) async fn serve(
    scheduler: Scheduler,
    listener: TcpListener,
    tls: Option<Tls>,
) -> anyhow::Result<()> {
    let pipelines = PipelineServiceServer::new(pipelines::Pipelines(scheduler.clone()))
        .max_decoding_message_size(MAX_MESSAGE);
    let polls = PollServiceServer::new(polls::Polls(scheduler.clone()));
    let runs = RunServiceServer::new(runs::Runs(scheduler.clone()));
    let quarantine = QuarantineServiceServer::new(quarantine::Quarantine(scheduler.clone()));

    let quotas = QuotaServiceServer::new(quotas::Quotas(scheduler.clone()));
    let deliveries = DeliveryServiceServer::new(deliveries::Deliveries(scheduler.clone()));
    let access = AccessServiceServer::new(access::AccessApi(scheduler.clone()));
    let scaler = ExternalScalerServer::new(Scaler(scheduler.clone()));

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PipelineServiceServer<pipelines::Pipelines>>().await;
    health.set_serving::<RunServiceServer<runs::Runs>>().await;
    health.set_serving::<PollServiceServer<polls::Polls>>().await;
    health.set_serving::<QuarantineServiceServer<quarantine::Quarantine>>().await;
    health.set_serving::<QuotaServiceServer<quotas::Quotas>>().await;
    health.set_serving::<DeliveryServiceServer<deliveries::Deliveries>>().await;
    health.set_serving::<AccessServiceServer<access::AccessApi>>().await;
    health.set_serving::<ExternalScalerServer<Scaler>>().await;

    // Two versions of reflection are in use.
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let address = listener.local_addr().context("the listener has no address")?;
    let settings = &scheduler.config().access;
    let guard = GuardLayer::new(Access::new(settings, address, scheduler.clone())?);
    let router = runtime::grpc::server()
        .layer(guard)
        .add_service(health_service)
        .add_service(reflection().build_v1().context("reflection v1")?)
        .add_service(reflection().build_v1alpha().context("reflection v1alpha")?)
        .add_service(pipelines)
        .add_service(runs)
        .add_service(polls)
        .add_service(quarantine)
        .add_service(quotas)
        .add_service(deliveries)
        .add_service(access)
        .add_service(scaler);
    tracing::info!(%address, tls = settings.tls.is_some(), "the control API listens");
    let shutdown = scheduler.shutdown().clone().cancelled_owned();
    router
        .serve_with_incoming_shutdown(runtime::grpc::incoming(listener, tls), shutdown)
        .await
        .context("the control API failed")
}

/// Serves what KEDA asks, and nothing else, without tokens, which KEDA cannot send.
pub(crate) async fn serve_scaler(
    scheduler: Scheduler,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the listener has no address")?;
    tracing::info!(%address, "the scaler for KEDA listens");
    runtime::grpc::server()
        .add_service(ExternalScalerServer::new(Scaler(scheduler.clone())))
        .serve_with_incoming_shutdown(
            runtime::grpc::incoming(listener, None),
            scheduler.shutdown().clone().cancelled_owned(),
        )
        .await
        .context("the scaler for KEDA failed")
}
