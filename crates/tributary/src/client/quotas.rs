//! Commands about quotas.

use wire::control::{
    DeleteQuotaRequest, ListQuotasRequest, quota_service_client::QuotaServiceClient,
};

use super::server::Server;
use crate::{
    cli::Quotas,
    failure::Failure,
    output::{Output, json, quotas},
};

pub(crate) async fn run(server: &Server, output: Output, given: Quotas) -> Result<(), Failure> {
    let mut client = QuotaServiceClient::new(server.connect().await?);
    if let Some(name) = given.delete {
        let request = DeleteQuotaRequest { name: name.clone() };
        let answer = client.delete_quota(request).await;
        answer.map_err(|status| server.refused("the quota cannot be removed", &status))?;
        return output.print(|| json::deleted(&name), || format!("quota `{name}` was removed\n"));
    }
    let answer = client.list_quotas(ListQuotasRequest {}).await;
    let mut answer = answer
        .map_err(|status| server.refused("the quotas cannot be listed", &status))?
        .into_inner();
    if let Some(name) = given.name {
        answer.quotas.retain(|quota| quota.name == name);
        if answer.quotas.is_empty() {
            return Err(Failure::new(
                format!("there is no quota `{name}`"),
                "no file that declares it was applied",
                "list them with `tributary quotas`",
            ));
        }
    }
    output.print(|| quotas::json(&answer), || quotas::text(&answer))
}
