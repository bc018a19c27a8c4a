use std::time::Duration;

use ipnet::IpNet;

use crate::SecretText;

/// What pushes start: other systems send records by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushTrigger {
    /// Requests to `/hooks/<pipeline>`.
    pub webhook: Option<Webhook>,
    /// Calls of the gRPC ingest service.
    pub grpc: Option<GrpcIngest>,
}

/// How gRPC ingest is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcIngest {
    /// Tokens of which a call carries one. Empty: every call is allowed.
    pub bearer: Vec<SecretText>,
}

/// How a webhook request is checked and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// How the sender proves who it is.
    pub verify: Verify,
    /// Addresses that requests may come from. Empty: all.
    pub allow_addresses: Vec<IpNet>,
    /// Keys on the way to the records, outermost first: one object or an array of objects. Empty:
    /// the body itself.
    pub records: Vec<String>,
    /// What names a delivery; `None`: what the scheme of `verify` has for it, else the content.
    pub id: Option<Place>,
    /// What the records ask of the target.
    pub operation: PushOperation,
    /// Where the ids are in a body that holds no records, only ids of objects to fetch, as the keys
    /// from the record on.
    pub hint: Option<Vec<String>>,
    /// Greatest size of a body in bytes, after decompression.
    pub body_limit: usize,
}

/// Where something stands in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this header, in lower case.
    Header(String),
    /// In the body, under these keys, outermost first.
    Field(Vec<String>),
}

/// What pushed records ask of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOperation {
    /// All the same.
    Always(PushedAs),
    /// As a text of the request says.
    By {
        /// Where the text stands.
        place: Place,
        /// What texts stand for.
        words: Vec<(String, PushedAs)>,
        /// What all other texts stand for, and none.
        other: PushedAs,
    },
}

/// What one pushed record asks of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushedAs {
    /// Insert or replace.
    Upsert,
    /// Change only the fields that are there.
    Patch,
    /// Remove.
    Delete,
    /// Nothing: the request is answered and forgotten.
    Ignore,
}

/// How the sender of a webhook proves who it is. Of several secrets one has to fit, so that they can
/// be changed one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// Everybody is believed.
    None,
    /// Standard Webhooks 1.0: `whsec_…` secrets, or `whpk_…` public keys (ed25519).
    StandardWebhooks {
        /// Secrets and keys.
        secrets: Vec<SecretText>,
        /// How far the time of a request may be from now.
        tolerance: Duration,
    },
    /// `Stripe-Signature`.
    Stripe {
        /// Secrets.
        secrets: Vec<SecretText>,
        /// How far the time of a request may be from now.
        tolerance: Duration,
    },
    /// `X-Hub-Signature-256`.
    GitHub {
        /// Secrets.
        secrets: Vec<SecretText>,
    },
    /// `X-Shopify-Hmac-Sha256`.
    Shopify {
        /// Secrets.
        secrets: Vec<SecretText>,
    },
    /// `X-Slack-Signature`.
    Slack {
        /// Secrets.
        secrets: Vec<SecretText>,
        /// How far the time of a request may be from now.
        tolerance: Duration,
    },
    /// An HMAC of the body in a header.
    Hmac {
        /// Secrets.
        secrets: Vec<SecretText>,
        /// Name of the header, in lower case.
        header: String,
        /// Hash.
        algorithm: HmacAlgorithm,
        /// How the header writes it.
        encoding: HmacEncoding,
        /// What stands before it in the header.
        prefix: String,
    },
    /// HTTP Basic authentication.
    Basic {
        /// User.
        user: String,
        /// Passwords.
        passwords: Vec<SecretText>,
    },
    /// `Authorization: Bearer …`.
    Bearer {
        /// Tokens.
        tokens: Vec<SecretText>,
    },
}

/// Hash of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HmacAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a header writes an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HmacEncoding {
    /// Hexadecimal, of either case.
    Hex,
    /// Base64 of the standard alphabet.
    Base64,
}
