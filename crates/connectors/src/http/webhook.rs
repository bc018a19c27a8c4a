//! Webhooks that go out, signed after Standard Webhooks 1.0.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use connect::Error;
use reqwest::Method;
use ring::{hmac, signature::Ed25519KeyPair};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use spec::{Payload, ReadyTemplate, WebhookTarget};

use super::{
    client::{Client, Content, Outgoing, setting},
    target::item::{Item, Places},
};
use crate::Variables;

/// What stands before a secret, and before the private key of a pair.
const SECRET_PREFIX: &str = "whsec_";
const PRIVATE_KEY_PREFIX: &str = "whsk_";

/// What signs.
enum Key {
    /// Known to the receiver as well.
    Shared(hmac::Key),
    /// The receiver has the public half.
    Private(Box<Ed25519KeyPair>),
}

impl Key {
    /// Takes a secret of Standard Webhooks; `None`: it is none.
    fn new(secret: &str) -> Option<Self> {
        if let Some(key) = secret.strip_prefix(PRIVATE_KEY_PREFIX) {
            // The seed, followed by the public key or not.
            let bytes = BASE64_STANDARD.decode(key).ok()?;
            let pair = match bytes.len() {
                32 => Ed25519KeyPair::from_seed_unchecked(&bytes),
                64 => Ed25519KeyPair::from_seed_and_public_key(&bytes[..32], &bytes[32..]),
                _ => return None,
            };
            return pair.ok().map(|pair| Self::Private(Box::new(pair)));
        }
        let bytes =
            BASE64_STANDARD.decode(secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret)).ok()?;
        let is_long_enough = (16..=128).contains(&bytes.len());
        is_long_enough.then(|| Self::Shared(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn signature(&self, message: &str) -> String {
        match self {
            Self::Shared(key) => {
                format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(key, message.as_bytes())))
            }
            Self::Private(pair) => {
                format!("v1a,{}", BASE64_STANDARD.encode(pair.sign(message.as_bytes())))
            }
        }
    }
}

/// Makes webhooks of records.
pub(super) struct Webhook {
    keys: Vec<Key>,
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
            Key::new(secret.expose_secret()).ok_or_else(|| {
                Error::stop(
                    format!("a secret of target `{target}` is not one of Standard Webhooks"),
                    "use `whsec_` and the Base64 of 24 to 64 random bytes, or `whsk_` and that of an \
                     ed25519 key",
                )
            })
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
        let signatures: Vec<_> = self.keys.iter().map(|key| key.signature(&message)).collect();
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

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, KeyPair, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_private_key_signs_what_its_public_key_verifies() {
        let seed = [7; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let both = [seed.to_vec(), public.clone()].concat();
        for bytes in [seed.to_vec(), both] {
            let key = Key::new(&format!("whsk_{}", BASE64_STANDARD.encode(bytes))).unwrap();
            let signature = key.signature("msg_1.1.{}");
            let signature =
                BASE64_STANDARD.decode(signature.strip_prefix("v1a,").unwrap()).unwrap();
            let public = UnparsedPublicKey::new(&ED25519, &public);
            public.verify(b"msg_1.1.{}", &signature).unwrap();
            assert!(public.verify(b"msg_2.1.{}", &signature).is_err());
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for wrong in ["", "whsec_", "whsec_c2hvcnQ=", "whsk_c2hvcnQ=", "no Base64"] {
            assert!(Key::new(wrong).is_none(), "{wrong}");
        }
    }
}
