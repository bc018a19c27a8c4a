//! Commands about webhooks that were not delivered.

use prost_types::Timestamp;
use wire::control::{
    EnableReceiverRequest, ListReceiversRequest, ResendDeliveriesRequest,
    delivery_service_client::DeliveryServiceClient,
};

use super::server::Server;
use crate::{
    cli::{Deliveries, Resend},
    failure::Failure,
    output::{Output, deliveries},
};

pub(crate) async fn run(server: &Server, output: Output, given: Deliveries) -> Result<(), Failure> {
    let mut client = server.connect().await.map(DeliveryServiceClient::new)?;
    match given {
        Deliveries::List { pipeline } => {
            let request = ListReceiversRequest { pipeline: pipeline.unwrap_or_default() };
            let answer = client.list_receivers(request).await;
            let receivers = answer
                .map_err(|status| server.refused("the receivers cannot be listed", &status))?
                .into_inner()
                .receivers;
            output.print(|| deliveries::json(&receivers), || deliveries::text(&receivers))
        }
        Deliveries::Resend(Resend { pipeline, target, id, since, delivered, record }) => {
            let request = ResendDeliveriesRequest {
                pipeline: pipeline.unwrap_or_default(),
                target: target.unwrap_or_default(),
                ids: id,
                since: since.map(|since| Timestamp { seconds: since.timestamp(), nanos: 0 }),
                delivered,
                key: record.unwrap_or_default(),
            };
            let answer = client.resend_deliveries(request).await;
            let answer = answer
                .map_err(|status| server.refused("no webhook can be sent again", &status))?
                .into_inner();
            output.print(|| deliveries::resent_json(&answer), || deliveries::resent(&answer))
        }
        Deliveries::Enable { pipeline, target } => {
            let what = format!("the receiver `{target}` cannot be enabled");
            let request =
                EnableReceiverRequest { pipeline: pipeline.clone(), target: target.clone() };
            let answer = client.enable_receiver(request).await;
            answer.map_err(|status| server.refused(what, &status))?;
            output.print(
                || serde_json::json!({ "enabled": { "pipeline": pipeline, "target": target } }),
                || format!("receiver `{target}` is called again; what was set aside is sent\n"),
            )
        }
    }
}
