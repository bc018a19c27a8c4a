//! Commands about the quarantine.

use wire::control::{
    DropQuarantineRequest, GetQuarantinedRequest, ListQuarantineRequest, QuarantineSelection,
    ReplayQuarantineRequest, quarantine_service_client::QuarantineServiceClient,
};

use super::server::{Connection, Server};
use crate::{
    cli::{Quarantine, Selection},
    failure::Failure,
    output::{Output, json, text},
};

pub(crate) async fn run(
    server: &Server,
    output: Output,
    command: Quarantine,
) -> Result<(), Failure> {
    let client = QuarantineServiceClient::new(server.connect().await?);
    match command {
        Quarantine::List { selection, limit } => {
            list(client, server, output, selection, limit).await
        }
        Quarantine::Show { id } => show(client, server, output, id).await,
        Quarantine::Replay(which) => replay(client, server, output, which.selection).await,
        Quarantine::Drop(which) => remove(client, server, output, which.selection).await,
    }
}

type Client = QuarantineServiceClient<Connection>;

async fn list(
    mut client: Client,
    server: &Server,
    output: Output,
    selection: Selection,
    limit: u32,
) -> Result<(), Failure> {
    let request = ListQuarantineRequest { selection: Some(selected(selection)), limit };
    let answer = client.list_quarantine(request).await;
    let answer = answer
        .map_err(|status| server.refused("the quarantine cannot be listed", &status))?
        .into_inner();
    output.print(|| json::quarantine(&answer), || text::quarantine(&answer))
}

async fn show(mut client: Client, server: &Server, output: Output, id: i64) -> Result<(), Failure> {
    let answer = client.get_quarantined(GetQuarantinedRequest { id }).await;
    let answer = answer
        .map_err(|status| server.refused(format!("the record {id} cannot be shown"), &status))?
        .into_inner();
    let record = answer.record.unwrap_or_default();
    output.print(|| json::quarantined(&record), || text::quarantined(&record))
}

async fn replay(
    mut client: Client,
    server: &Server,
    output: Output,
    selection: Selection,
) -> Result<(), Failure> {
    let request = ReplayQuarantineRequest { selection: Some(selected(selection)) };
    let answer = client.replay_quarantine(request).await;
    let answer = answer
        .map_err(|status| server.refused("the records cannot be replayed", &status))?
        .into_inner();
    output.print(|| json::replayed(&answer), || text::replayed(&answer))
}

async fn remove(
    mut client: Client,
    server: &Server,
    output: Output,
    selection: Selection,
) -> Result<(), Failure> {
    let request = DropQuarantineRequest { selection: Some(selected(selection)) };
    let answer = client.drop_quarantine(request).await;
    let records = answer
        .map_err(|status| server.refused("the records cannot be dropped", &status))?
        .into_inner()
        .records;
    output.print(|| json::dropped(records), || text::dropped(records))
}

fn selected(selection: Selection) -> QuarantineSelection {
    QuarantineSelection {
        pipeline: selection.pipeline.unwrap_or_default(),
        run: selection.run.unwrap_or_default(),
        code: selection.code.unwrap_or_default(),
        ids: selection.id,
    }
}
