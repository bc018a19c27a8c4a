//! Commands about tokens and the audit.

use std::time::{Duration, SystemTime};

use wire::control::{
    self, CreateTokenRequest, ListAuditRequest, ListTokensRequest, RevokeTokenRequest,
    VerifyAuditRequest, access_service_client::AccessServiceClient,
};

use super::server::{Connection, Server};
use crate::{
    cli::{Audit, Role, Token},
    failure::Failure,
    output::{Output, access},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn client(server: &Server) -> Result<AccessServiceClient<Connection>, Failure> {
    server.connect().await.map(AccessServiceClient::new)
}

fn role(role: Role) -> control::Role {
    match role {
        Role::Viewer => control::Role::Viewer,
        Role::Operator => control::Role::Operator,
        Role::Editor => control::Role::Editor,
        Role::Privacy => control::Role::Privacy,
        Role::Admin => control::Role::Admin,
    }
}

pub(crate) async fn token(server: &Server, output: Output, given: Token) -> Result<(), Failure> {
    let mut client = client(server).await?;
    match given {
        Token::Create { name, role: given, days } => {
            let what = format!("the token `{name}` cannot be made");
            let expires_at = SystemTime::now() + DAY * u32::from(days);
            let request = CreateTokenRequest {
                name,
                role: role(given).into(),
                expires_at: Some(expires_at.into()),
            };
            let answer = client.create_token(request).await;
            let answer = answer.map_err(|status| server.refused(what, &status))?.into_inner();
            output.print(|| access::created_json(&answer), || access::created(&answer))
        }
        Token::List => {
            let answer = client.list_tokens(ListTokensRequest {}).await;
            let answer = answer
                .map_err(|status| server.refused("the tokens cannot be listed", &status))?
                .into_inner();
            output.print(|| access::tokens_json(&answer.tokens), || access::tokens(&answer.tokens))
        }
        Token::Revoke { name } => {
            let what = format!("the token `{name}` cannot be revoked");
            let answer = client.revoke_token(RevokeTokenRequest { name: name.clone() }).await;
            answer.map_err(|status| server.refused(what, &status))?;
            output.print(
                || serde_json::json!({ "revoked": name }),
                || format!("token `{name}` ends within seconds\n"),
            )
        }
    }
}

pub(crate) async fn audit(server: &Server, output: Output, given: &Audit) -> Result<(), Failure> {
    let mut client = client(server).await?;
    if given.verify {
        let answer = client.verify_audit(VerifyAuditRequest {}).await;
        let answer = answer
            .map_err(|status| server.refused("the audit cannot be checked", &status))?
            .into_inner();
        output.print(|| access::verified_json(&answer), || access::verified(&answer))?;
        return if answer.broken_at == 0 { Ok(()) } else { Err(Failure::Result) };
    }
    let request = ListAuditRequest { before: given.before, limit: given.limit };
    let answer = client.list_audit(request).await;
    let answer = answer
        .map_err(|status| server.refused("the audit cannot be listed", &status))?
        .into_inner();
    output.print(|| access::audit_json(&answer.entries), || access::audit(&answer.entries))
}
