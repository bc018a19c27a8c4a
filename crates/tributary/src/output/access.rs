//! Tokens and the audit, for people and for programs.

use prost_types::Timestamp;
use serde_json::{Value, json};
use wire::control::{AuditEntry, CreateTokenResponse, Role, Token, VerifyAuditResponse};

use super::table::{draw, grouped};

fn role(role: Role) -> String {
    role.as_str_name().trim_start_matches("ROLE_").to_lowercase()
}

pub(super) fn moment(at: Option<&Timestamp>) -> Option<String> {
    let at = at?;
    let at = chrono::DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?)?;
    Some(at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

fn token_json(token: &Token) -> Value {
    json!({
        "name": token.name,
        "role": role(token.role()),
        "created_at": moment(token.created_at.as_ref()),
        "created_by": token.created_by,
        "expires_at": moment(token.expires_at.as_ref()),
        "revoked_at": moment(token.revoked_at.as_ref()),
    })
}

pub(crate) fn created_json(answer: &CreateTokenResponse) -> Value {
    let mut value = answer.token.as_ref().map(token_json).unwrap_or_default();
    value["secret"] = json!(answer.secret);
    value
}

/// The token alone, so that it can go into a file.
pub(crate) fn created(answer: &CreateTokenResponse) -> String {
    format!("{}\n", answer.secret)
}

pub(crate) fn tokens_json(tokens: &[Token]) -> Value {
    json!({ "tokens": tokens.iter().map(token_json).collect::<Value>() })
}

pub(crate) fn tokens(tokens: &[Token]) -> String {
    if tokens.is_empty() {
        return "no token was made yet\n".to_owned();
    }
    let rows = tokens.iter().map(|token| {
        vec![
            token.name.clone(),
            role(token.role()),
            moment(token.created_at.as_ref()).unwrap_or_default(),
            token.created_by.clone(),
            moment(token.expires_at.as_ref()).unwrap_or_default(),
            moment(token.revoked_at.as_ref()).unwrap_or_default(),
        ]
    });
    let heading = ["NAME", "ROLE", "CREATED", "BY", "EXPIRES", "REVOKED"];
    draw(&heading, &[], rows.collect())
}

pub(crate) fn audit_json(entries: &[AuditEntry]) -> Value {
    let entries = entries.iter().map(|entry| {
        json!({
            "id": entry.id,
            "at": moment(entry.at.as_ref()),
            "actor": entry.actor,
            "action": entry.action,
            "subject": entry.subject,
            "outcome": entry.outcome,
            "digest": entry.digest,
        })
    });
    json!({ "entries": entries.collect::<Value>() })
}

pub(crate) fn audit(entries: &[AuditEntry]) -> String {
    if entries.is_empty() {
        return "nothing was done yet\n".to_owned();
    }
    let rows = entries.iter().map(|entry| {
        vec![
            entry.id.to_string(),
            moment(entry.at.as_ref()).unwrap_or_default(),
            entry.actor.clone(),
            entry.action.clone(),
            entry.subject.clone(),
            entry.outcome.clone(),
        ]
    });
    draw(&["ID", "AT", "ACTOR", "ACTION", "SUBJECT", "OUTCOME"], &[0], rows.collect())
}

pub(crate) fn verified_json(answer: &VerifyAuditResponse) -> Value {
    json!({
        "entries": answer.entries,
        "digest": answer.digest,
        "broken_at": (answer.broken_at > 0).then_some(answer.broken_at),
    })
}

pub(crate) fn verified(answer: &VerifyAuditResponse) -> String {
    let entries = grouped(answer.entries);
    match answer.broken_at {
        0 => format!("all {entries} entries fit; the digest of the last is {}\n", answer.digest),
        id => format!("entry {id} is missing or was changed; the {entries} before it fit\n"),
    }
}
