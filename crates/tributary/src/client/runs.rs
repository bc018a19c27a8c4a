//! Commands about runs.

use wire::control::{
    CancelRunRequest, ListRunsRequest, StartRunRequest, run_service_client::RunServiceClient,
};

use super::{
    server::{Connection, Server},
    watch,
};
use crate::{
    cli,
    failure::Failure,
    output::{Output, json, text},
};

pub(crate) async fn client(server: &Server) -> Result<RunServiceClient<Connection>, Failure> {
    server.connect().await.map(RunServiceClient::new)
}

pub(crate) async fn start(server: &Server, output: Output, given: cli::Run) -> Result<(), Failure> {
    let what = format!("no run of `{}` can be started", given.name);
    let request = StartRunRequest {
        pipeline: given.name,
        full: given.full,
        confirm_loss: given.confirm_loss,
        accept_fields: given.accept,
        parameters: given.parameters.into_iter().collect(),
        from: given.from,
        to: given.to,
    };
    let answer = client(server).await?.start_run(request).await;
    let answer = answer.map_err(|status| server.refused(what, &status))?.into_inner();
    let run = answer.run.unwrap_or_default();
    if given.watch {
        watch::watch(server, output, run.id).await
    } else if given.wait {
        watch::wait(server, output, run.id).await
    } else {
        output.print(|| json::run(&run), || text::started(&run))
    }
}

pub(crate) async fn list(server: &Server, output: Output, given: cli::Runs) -> Result<(), Failure> {
    let pipeline = given.name.unwrap_or_default();
    let request = ListRunsRequest { pipeline, limit: given.limit };
    let answer = client(server).await?.list_runs(request).await;
    let runs = answer
        .map_err(|status| server.refused("the runs cannot be listed", &status))?
        .into_inner()
        .runs;
    output.print(|| json::runs(&runs), || text::runs(&runs))
}

pub(crate) async fn cancel(server: &Server, output: Output, id: String) -> Result<(), Failure> {
    let what = format!("the run {id} cannot be cancelled");
    let answer = client(server).await?.cancel_run(CancelRunRequest { id }).await;
    let answer = answer.map_err(|status| server.refused(what, &status))?.into_inner();
    let run = answer.run.unwrap_or_default();
    output.print(|| json::run(&run), || text::ledger(&run))
}
