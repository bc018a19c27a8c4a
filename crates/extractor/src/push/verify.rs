//! Whether a request comes from whom it says, decided over the raw body and in constant time.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use connectors::Variables;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::{
    hmac,
    signature::{ED25519, UnparsedPublicKey},
};
use secrecy::ExposeSecret;
use spec::{HmacAlgorithm, HmacEncoding, Place, SecretText, Verify};
use subtle::ConstantTimeEq;

/// A way to verify cannot be set up. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidVerify {
    /// A reference leads nowhere.
    #[error("a secret of `verify` cannot be resolved")]
    Secret(#[from] spec::ResolveError),
    /// With an empty secret everybody could sign.
    #[error("a secret of `verify` is empty")]
    Empty,
    /// The text is no secret of this scheme.
    #[error("a secret of `verify` is neither `whsec_` nor `whpk_` with base64 behind it")]
    Malformed,
}

/// Verifies requests of one pipeline.
pub(crate) enum Verifier {
    None,
    StandardWebhooks {
        keys: Vec<hmac::Key>,
        public_keys: Vec<Vec<u8>>,
        tolerance: Duration,
    },
    Stripe {
        keys: Vec<hmac::Key>,
        tolerance: Duration,
    },
    Slack {
        keys: Vec<hmac::Key>,
        tolerance: Duration,
    },
    Hmac {
        keys: Vec<hmac::Key>,
        header: String,
        encoding: HmacEncoding,
        prefix: String,
    },
    /// What stands behind `Authorization:`, all of it.
    Authorization {
        scheme: &'static str,
        credentials: Vec<Vec<u8>>,
    },
}

impl Verifier {
    pub(crate) fn new(verify: &Verify, variables: &Variables) -> Result<Self, InvalidVerify> {
        let texts = |secrets: &[SecretText]| resolve(secrets, variables);
        let keys = |secrets: &[SecretText], algorithm| -> Result<Vec<hmac::Key>, InvalidVerify> {
            let secrets = texts(secrets)?;
            Ok(secrets.iter().map(|secret| hmac::Key::new(algorithm, secret.as_bytes())).collect())
        };
        let sha256 = |secrets: &[SecretText]| keys(secrets, hmac::HMAC_SHA256);
        Ok(match verify {
            Verify::None => Self::None,
            Verify::StandardWebhooks { secrets, tolerance } => {
                let (mut keys, mut public_keys) = (Vec::new(), Vec::new());
                for secret in texts(secrets)? {
                    let public = secret.strip_prefix("whpk_");
                    let key = secret.strip_prefix("whsec_").unwrap_or(&secret);
                    let key = STANDARD.decode(public.unwrap_or(key).trim());
                    let key = key.map_err(|_| InvalidVerify::Malformed)?;
                    match public {
                        Some(_) if key.len() == 32 => public_keys.push(key),
                        None if !key.is_empty() => {
                            keys.push(hmac::Key::new(hmac::HMAC_SHA256, &key));
                        }
                        _ => return Err(InvalidVerify::Malformed),
                    }
                }
                Self::StandardWebhooks { keys, public_keys, tolerance: *tolerance }
            }
            Verify::Stripe { secrets, tolerance } => {
                Self::Stripe { keys: sha256(secrets)?, tolerance: *tolerance }
            }
            Verify::Slack { secrets, tolerance } => {
                Self::Slack { keys: sha256(secrets)?, tolerance: *tolerance }
            }
            Verify::GitHub { secrets } => Self::Hmac {
                keys: sha256(secrets)?,
                header: "x-hub-signature-256".to_owned(),
                encoding: HmacEncoding::Hex,
                prefix: "sha256=".to_owned(),
            },
            Verify::Shopify { secrets } => Self::Hmac {
                keys: sha256(secrets)?,
                header: "x-shopify-hmac-sha256".to_owned(),
                encoding: HmacEncoding::Base64,
                prefix: String::new(),
            },
            Verify::Hmac { secrets, header, algorithm, encoding, prefix } => {
                let algorithm = match algorithm {
                    HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
                    HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
                };
                Self::Hmac {
                    keys: keys(secrets, algorithm)?,
                    header: header.clone(),
                    encoding: *encoding,
                    prefix: prefix.clone(),
                }
            }
            Verify::Basic { user, passwords } => {
                let written = |password: String| STANDARD.encode(format!("{user}:{password}"));
                let credentials = texts(passwords)?.into_iter().map(written);
                let credentials = credentials.map(String::into_bytes).collect();
                Self::Authorization { scheme: "Basic", credentials }
            }
            Verify::Bearer { tokens } => {
                let credentials = texts(tokens)?.into_iter().map(String::into_bytes).collect();
                Self::Authorization { scheme: "Bearer", credentials }
            }
        })
    }

    /// Tells whether the sender of a request has one of the secrets. `now_s` is the time in seconds
    /// since 1970-01-01 UTC.
    pub(crate) fn verify(&self, headers: &HeaderMap, body: &[u8], now_s: i64) -> bool {
        match self {
            Self::None => true,
            Self::StandardWebhooks { keys, public_keys, tolerance } => {
                standard(headers, body, keys, public_keys, (now_s, *tolerance)).unwrap_or(false)
            }
            Self::Stripe { keys, tolerance } => {
                stripe(headers, body, keys, (now_s, *tolerance)).unwrap_or(false)
            }
            Self::Slack { keys, tolerance } => {
                slack(headers, body, keys, (now_s, *tolerance)).unwrap_or(false)
            }
            Self::Hmac { keys, header, encoding, prefix } => {
                let tag = text(headers, header)
                    .and_then(|text| text.strip_prefix(prefix.as_str()))
                    .and_then(|text| decode(text, *encoding));
                tag.is_some_and(|tag| is_signed(keys, &[body], &tag))
            }
            Self::Authorization { scheme, credentials } => {
                is_authorized(text(headers, AUTHORIZATION.as_str()), scheme, credentials)
            }
        }
    }

    /// Returns what a sender that was not believed is asked for.
    pub(crate) fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Authorization { scheme: "Basic", .. } => Some("Basic realm=\"hooks\""),
            Self::Authorization { .. } => Some("Bearer"),
            _ => None,
        }
    }
}

/// Returns where senders of a scheme name their deliveries.
pub(crate) fn usual_ids(verify: &Verify) -> Vec<Place> {
    let header = |name: &str| Place::Header(name.to_owned());
    let field = |name: &str| Place::Field(vec![name.to_owned()]);
    match verify {
        Verify::StandardWebhooks { .. } => vec![header("webhook-id"), header("svix-id")],
        Verify::Stripe { .. } => vec![field("id")],
        Verify::GitHub { .. } => vec![header("x-github-delivery")],
        Verify::Shopify { .. } => vec![header("x-shopify-webhook-id")],
        Verify::Slack { .. } => vec![field("event_id")],
        Verify::None | Verify::Hmac { .. } | Verify::Basic { .. } | Verify::Bearer { .. } => {
            Vec::new()
        }
    }
}

/// Resolves secrets, of which none may be empty.
pub(crate) fn resolve(
    secrets: &[SecretText],
    variables: &Variables,
) -> Result<Vec<String>, InvalidVerify> {
    let resolve = |secret: &SecretText| {
        let secret = secret.resolve(|name| variables(name))?;
        match secret.expose_secret() {
            "" => Err(InvalidVerify::Empty),
            text => Ok(text.to_owned()),
        }
    };
    secrets.iter().map(resolve).collect()
}

/// Tells whether an `Authorization` has one of the credentials.
pub(crate) fn is_authorized(
    authorization: Option<&str>,
    scheme: &str,
    credentials: &[Vec<u8>],
) -> bool {
    let given = authorization.and_then(|text| text.split_once(' '));
    let Some((given_scheme, given)) = given else { return false };
    let given = given.trim_start().as_bytes();
    let mut equal = subtle::Choice::from(0);
    for known in credentials {
        equal |= known.as_slice().ct_eq(given);
    }
    given_scheme.eq_ignore_ascii_case(scheme) && bool::from(equal)
}

type Clock = (i64, Duration);

fn standard(
    headers: &HeaderMap,
    body: &[u8],
    keys: &[hmac::Key],
    public_keys: &[Vec<u8>],
    clock: Clock,
) -> Option<bool> {
    let header = |name: &str| {
        text(headers, &format!("webhook-{name}")).or_else(|| text(headers, &format!("svix-{name}")))
    };
    let (id, time) = (header("id")?, header("timestamp")?);
    is_recent(time, clock)?;
    let signed = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    Some(header("signature")?.split(' ').any(|signature| {
        let (version, signature) = signature.split_once(',').unwrap_or_default();
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        match version {
            "v1" => is_signed(keys, &signed, &signature),
            "v1a" => {
                let signed = signed.concat();
                public_keys.iter().any(|key| {
                    UnparsedPublicKey::new(&ED25519, key).verify(&signed, &signature).is_ok()
                })
            }
            _ => false,
        }
    }))
}

fn stripe(headers: &HeaderMap, body: &[u8], keys: &[hmac::Key], clock: Clock) -> Option<bool> {
    let pairs = text(headers, "stripe-signature")?.split(',');
    let pairs: Vec<(&str, &str)> = pairs.filter_map(|pair| pair.trim().split_once('=')).collect();
    let (_, time) = pairs.iter().find(|(key, _)| *key == "t")?;
    is_recent(time, clock)?;
    let signatures = pairs.iter().filter(|(key, _)| *key == "v1");
    Some(
        signatures
            .filter_map(|(_, tag)| decode(tag, HmacEncoding::Hex))
            .any(|tag| is_signed(keys, &[time.as_bytes(), b".", body], &tag)),
    )
}

fn slack(headers: &HeaderMap, body: &[u8], keys: &[hmac::Key], clock: Clock) -> Option<bool> {
    let time = text(headers, "x-slack-request-timestamp")?;
    is_recent(time, clock)?;
    let tag = text(headers, "x-slack-signature")?.strip_prefix("v0=")?;
    let tag = decode(tag, HmacEncoding::Hex)?;
    Some(is_signed(keys, &[b"v0:", time.as_bytes(), b":", body], &tag))
}

fn is_signed(keys: &[hmac::Key], signed: &[&[u8]], tag: &[u8]) -> bool {
    keys.iter().any(|key| {
        let mut context = hmac::Context::with_key(key);
        for piece in signed {
            context.update(piece);
        }
        bool::from(context.sign().as_ref().ct_eq(tag))
    })
}

/// A request that somebody has kept for later is not believed.
fn is_recent(time: &str, (now_s, tolerance): Clock) -> Option<()> {
    let time: i64 = time.parse().ok()?;
    (now_s.abs_diff(time) <= tolerance.as_secs()).then_some(())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn decode(text: &str, encoding: HmacEncoding) -> Option<Vec<u8>> {
    match encoding {
        HmacEncoding::Base64 => STANDARD.decode(text).ok(),
        HmacEncoding::Hex => {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let bytes = text.as_bytes().chunks(2).map(|pair| match *pair {
                [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
                _ => None,
            });
            bytes.collect()
        }
    }
}
