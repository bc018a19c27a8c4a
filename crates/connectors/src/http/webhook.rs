//! Webhooks that go out, signed after Standard Webhooks 1.0.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use connect::Error;
use reqwest::Method;
use ring::hmac;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use spec::{Payload, ReadyTemplate, WebhookTarget};

use super::{
    client::{Client, Content, Outgoing, setting},
    target::item::{Item, Places},
};
use crate::Variables;

/// What stands before a secret.
const SECRET_PREFIX: &str = "whsec_";

/// Makes webhooks of records.
pub(super) struct Webhook {
    keys: Vec<hmac::Key>,
    event: ReadyTemplate,
    payload: Payload,
    pipeline: String,
    target: String,
    key_fields: Vec<String>,
}

impl Webhook {
    /// Resolves the secrets.
    ///
    /// # Errors
    ///
    /// When a secret cannot be resolved, or is not one of Standard Webhooks.
    pub(super) fn new(
        config: &WebhookTarget,
        pipeline: &spec::Pipeline,
        target: &str,
        variables: &Variables,
    ) -> Result<Self, Error> {
        let key = |secret: &spec::SecretText| {
            let secret = secret.resolve(&**variables).map_err(setting)?;
            let secret = secret.expose_secret();
            let bytes = BASE64_STANDARD
                .decode(secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret))
                .ok()
                .filter(|bytes| (16..=128).contains(&bytes.len()));
            let bytes = bytes.ok_or_else(|| {
                Error::stop(
                    format!("a secret of target `{target}` is not one of Standard Webhooks"),
                    "use `whsec_` and the Base64 of 24 to 64 random bytes",
                )
            })?;
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        };
        Ok(Self {
            keys: config.secrets.iter().map(key).collect::<Result<_, Error>>()?,
            event: config.event.resolve(&**variables).map_err(setting)?,
            payload: config.payload,
            pipeline: pipeline.name.to_string(),
            target: target.to_owned(),
            key_fields: pipeline.key.clone(),
        })
    }

    /// Returns the body for a record, where `before` are the values that the receiver was told last,
    /// if any; `None`: there is nothing to tell.
    ///
    /// # Errors
    ///
    /// When a place of the event's name has no value.
    pub(super) fn body(
        &self,
        item: &Item,
        before: Option<&Map<String, Value>>,
    ) -> Result<Option<String>, Error> {
        let operation = match before {
            _ if item.is_gone() => "deleted",
            None => "created",
            Some(_) => "updated",
        };
        let data = match self.payload {
            Payload::Full => item.values.clone(),
            Payload::Thin => self.key_of(&item.values),
            Payload::Changed => {
                let changes = changes(before, &item.values, item.is_gone());
                if changes.is_empty() && operation == "updated" {
                    return Ok(None);
                }
                let mut data = self.key_of(&item.values);
                data.insert("changes".to_owned(), Value::Object(changes));
                data
            }
        };
        let places = Places { item, values: &item.values, pipeline: &self.pipeline, operation };
        let event = places.filled(|values| self.event.fill(values, str::to_owned));
        let event = event.map_err(|cause| {
            Error::stop("a webhook has no name for its event", "correct `event`").because(cause)
        })?;
        // The same however often it is made: the time of the fact, not of the call.
        let time = DateTime::<Utc>::from_timestamp_nanos(item.version.1);
        let time = time.to_rfc3339_opts(SecondsFormat::Millis, true);
        Ok(Some(json!({"type": event, "timestamp": time, "data": data}).to_string()))
    }

    /// Makes the signed call that carries a body.
    pub(super) fn call(&self, client: &Client, item: &Item, body: String) -> Outgoing {
        let id = format!("msg_{}", item.fact(&self.pipeline, &self.target));
        let timestamp = Utc::now().timestamp();
        let signature = self.signature(&id, timestamp, &body);
        Outgoing {
            method: Method::POST,
            url: client.base(),
            headers: vec![
                ("webhook-id".to_owned(), id),
                ("webhook-timestamp".to_owned(), timestamp.to_string()),
                ("webhook-signature".to_owned(), signature),
            ],
            content: Some(Content { media_type: "application/json", bytes: body.into() }),
        }
    }

    fn signature(&self, id: &str, timestamp: i64, body: &str) -> String {
        let message = format!("{id}.{timestamp}.{body}");
        let sign = |key| BASE64_STANDARD.encode(hmac::sign(key, message.as_bytes()));
        let signatures: Vec<_> = self.keys.iter().map(|key| format!("v1,{}", sign(key))).collect();
        signatures.join(" ")
    }

    fn key_of(&self, values: &Map<String, Value>) -> Map<String, Value> {
        let key = self.key_fields.iter();
        key.filter_map(|name| Some((name.clone(), values.get(name)?.clone()))).collect()
    }
}

/// Returns the fields that are not what they were, each with its value before and now. A field that
/// a record does not carry stays as it was.
fn changes(
    before: Option<&Map<String, Value>>,
    now: &Map<String, Value>,
    gone: bool,
) -> Map<String, Value> {
    let none = Map::new();
    let before = before.unwrap_or(&none);
    let change = |name: &String, now: &Value| {
        let before = before.get(name).unwrap_or(&Value::Null);
        (before != now).then(|| (name.clone(), json!({"old": before, "new": now})))
    };
    if gone {
        before.keys().filter_map(|name| change(name, &Value::Null)).collect()
    } else {
        now.iter().filter_map(|(name, value)| change(name, value)).collect()
    }
}
