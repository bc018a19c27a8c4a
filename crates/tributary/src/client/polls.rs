//! What polling costs and brings.

use wire::control::{ListPollsRequest, poll_service_client::PollServiceClient};

use super::server::Server;
use crate::{
    cli,
    failure::Failure,
    output::{Output, polls},
};

pub(crate) async fn list(
    server: &Server,
    output: Output,
    given: cli::Polls,
) -> Result<(), Failure> {
    let request = ListPollsRequest { pipeline: given.name.unwrap_or_default() };
    let mut client = server.connect().await.map(PollServiceClient::new)?;
    let polled = client
        .list_polls(request)
        .await
        .map_err(|status| server.refused("the polls cannot be told of", &status))?
        .into_inner()
        .pipelines;
    output.print(|| polls::json(&polled), || polls::text(&polled))
}
