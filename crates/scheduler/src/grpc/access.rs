use chrono::{DateTime, TimeDelta, Utc};
use model::PipelineName;
use prost_types::Timestamp;
use tonic::{Request, Response, Status};
use wire::control::{
    self, CreateTokenRequest, CreateTokenResponse, ListAuditRequest, ListAuditResponse,
    ListTokensRequest, ListTokensResponse, RevokeTokenRequest, RevokeTokenResponse,
    VerifyAuditRequest, VerifyAuditResponse, access_service_server::AccessService,
};

use super::convert::timestamp;
use crate::{
    access::{Caller, Role, Subject, digest, new_secret},
    core::Scheduler,
    error::Error,
};

/// Entries that a list has where nobody asks for a number, and at most.
const USUAL_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;

/// Longest life of a token.
const LONGEST: TimeDelta = TimeDelta::days(366);

#[derive(Debug)]
pub(super) struct AccessApi(pub(super) Scheduler);

fn token(token: store::Token) -> control::Token {
    let role = Role::named(&token.role).map_or(control::Role::Unspecified, Role::to_wire);
    control::Token {
        name: token.name,
        role: role.into(),
        created_at: Some(timestamp(token.created_at)),
        created_by: token.created_by,
        expires_at: Some(timestamp(token.expires_at)),
        revoked_at: token.revoked_at.map(timestamp),
    }
}

fn entry(entry: store::AuditEntry) -> control::AuditEntry {
    control::AuditEntry {
        id: entry.id,
        at: Some(timestamp(entry.at)),
        actor: entry.actor,
        action: entry.action,
        subject: entry.subject,
        outcome: entry.outcome,
        digest: hex(&entry.digest),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text can be written to");
        text
    })
}

fn expiry(asked: Option<Timestamp>, now: DateTime<Utc>) -> Result<DateTime<Utc>, Error> {
    let asked = asked.and_then(|asked| {
        DateTime::from_timestamp(asked.seconds, u32::try_from(asked.nanos).ok()?)
    });
    let asked = asked.ok_or(Error::Request("`expires_at` is missing or no time".to_owned()))?;
    if asked <= now || asked > now + LONGEST {
        let text = "`expires_at` has to be later than now, by 366 days at most";
        return Err(Error::Request(text.to_owned()));
    }
    Ok(asked)
}

#[tonic::async_trait]
impl AccessService for AccessApi {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        Subject::of(&request).is(&request.get_ref().name);
        let created_by = request
            .extensions()
            .get::<Caller>()
            .map(|caller| caller.name.clone())
            .unwrap_or_default();
        let asked = request.into_inner();
        let name: PipelineName = asked.name.parse().map_err(Error::Id)?;
        let role = Role::from_wire(asked.role())
            .ok_or_else(|| Error::Request("`role` is missing".to_owned()))?;
        let now = self.0.now();
        let made = store::Token {
            name: name.to_string(),
            role: role.name().to_owned(),
            created_at: now,
            created_by,
            expires_at: expiry(asked.expires_at, now)?,
            revoked_at: None,
        };
        let secret = new_secret().map_err(|error| Status::internal(error.to_string()))?;
        let created = self.0.store().create_token(&made, &digest(&secret)).await;
        if !created.map_err(Error::from)? {
            return Err(Status::already_exists(format!(
                "there is a token `{name}` already; names are not used twice, so that the audit is \
                 clear"
            )));
        }
        Ok(Response::new(CreateTokenResponse { token: Some(token(made)), secret }))
    }

    async fn list_tokens(
        &self,
        _: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        let tokens = self.0.store().tokens().await.map_err(Error::from)?;
        let tokens = tokens.into_iter().map(token).collect();
        Ok(Response::new(ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        Subject::of(&request).is(&request.get_ref().name);
        let name = request.into_inner().name;
        let revoked = self.0.store().revoke_token(&name, self.0.now()).await;
        if !revoked.map_err(Error::from)? {
            return Err(Status::not_found(format!("there is no token `{name}`")));
        }
        Ok(Response::new(RevokeTokenResponse {}))
    }

    async fn list_audit(
        &self,
        request: Request<ListAuditRequest>,
    ) -> Result<Response<ListAuditResponse>, Status> {
        let ListAuditRequest { before, limit } = request.into_inner();
        let before = (before > 0).then_some(before);
        let limit = if limit == 0 { USUAL_LIMIT } else { limit.min(MAX_LIMIT) };
        let entries = self.0.store().audit(before, limit).await.map_err(Error::from)?;
        let entries = entries.into_iter().map(entry).collect();
        Ok(Response::new(ListAuditResponse { entries }))
    }

    async fn verify_audit(
        &self,
        _: Request<VerifyAuditRequest>,
    ) -> Result<Response<VerifyAuditResponse>, Status> {
        let found = self.0.store().verify_audit().await.map_err(Error::from)?;
        Ok(Response::new(VerifyAuditResponse {
            entries: found.entries,
            digest: hex(&found.digest),
            broken_at: found.broken_at.unwrap_or_default(),
        }))
    }
}
