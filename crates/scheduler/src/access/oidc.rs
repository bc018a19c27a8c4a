//! Tokens of an identity provider.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use spec::SecretText;
use tonic::Status;

use super::{Caller, OidcConfig, Role, TokenAlgorithm, signatures};

/// How far the clock of the provider may be from ours.
const LEEWAY: Duration = Duration::from_secs(30);
/// How long keys are used before they are fetched again.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// How long keys are used while the provider cannot be reached.
const USABLE: Duration = Duration::from_secs(60 * 60);
/// Time between two fetches, however many tokens name a key that nobody knows.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest token that is looked at, in bytes.
const MOST_BYTES: usize = 8 * 1024;
/// Characters of a subject that the audit keeps.
const MOST_SUBJECT: usize = 200;

/// An identity provider with its keys.
#[derive(Debug)]
pub(super) struct Provider {
    config: OidcConfig,
    keys: RwLock<Option<Keys>>,
    /// When the keys were fetched last, or tried to. Held while they are.
    tried: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Clone)]
struct Keys {
    set: Arc<JwkSet>,
    fetched: Instant,
}

/// What a discovery document says, as far as it matters.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Provider {
    /// Takes the settings. Nothing is fetched before the first token.
    ///
    /// # Errors
    ///
    /// When a setting cannot work.
    pub(super) fn new(config: OidcConfig) -> anyhow::Result<Self> {
        let issuer = &config.issuer;
        let is_secure = issuer.starts_with("https://");
        let is_near = issuer.starts_with("http://") && config.allow_private;
        ensure!(
            is_secure || is_near,
            "`access.oidc.issuer` is `{issuer}`; it has to begin with https://"
        );
        ensure!(!config.audience.is_empty(), "`access.oidc.audience` is empty; name our audience");
        ensure!(!config.algorithms.is_empty(), "`access.oidc.algorithms` is empty; name RS256");
        ensure!(
            !config.roles.is_empty(),
            "`access.oidc.roles` is empty, so that nobody could do anything; say what a text of the \
             claim `{}` stands for, such as `crm-admins: admin`",
            config.roles_claim
        );
        signatures::install();
        Ok(Self { config, keys: RwLock::default(), tried: tokio::sync::Mutex::default() })
    }

    /// Tells whether a token looks like one of an identity provider.
    pub(super) fn is_meant(token: &str) -> bool {
        token.split('.').count() == 3
    }

    /// Tells who sends a token.
    pub(super) async fn caller(&self, token: &str) -> Result<Caller, Status> {
        let refused = |why: &str| Status::unauthenticated(format!("the token is refused: {why}"));
        if token.len() > MOST_BYTES {
            return Err(refused("it is too long"));
        }
        let header = decode_header(token).map_err(|_| refused("its header cannot be read"))?;
        if !self.config.algorithms.iter().any(|allowed| allowed.named() == header.alg) {
            return Err(refused(
                "it is signed in a way that `access.oidc.algorithms` does not name",
            ));
        }
        let key = self.key(header.kid.as_deref(), header.alg).await?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[&self.config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = decode::<Map<String, Value>>(token, &key, &validation)
            .map_err(|error| refused(&why(error.kind())))?
            .claims;
        let issued = claims.get("iat").map(|iat| iat.as_f64().unwrap_or(f64::INFINITY));
        let latest = (chrono::Utc::now() + LEEWAY).timestamp();
        if issued.is_some_and(|issued| issued > latest as f64) {
            return Err(refused("it was issued in the future"));
        }
        let Some(Value::String(subject)) = claims.get("sub") else {
            return Err(refused("its `sub` is no text"));
        };
        let subject: String =
            subject.chars().filter(|c| !c.is_control()).take(MOST_SUBJECT).collect();
        Ok(Caller { name: format!("oidc:{subject}"), roles: self.roles(&claims) })
    }

    /// Returns the roles that the claim stands for.
    fn roles(&self, claims: &Map<String, Value>) -> Vec<Role> {
        let mut steps = self.config.roles_claim.split('.');
        let found = steps.next().and_then(|first| claims.get(first));
        let found = steps.fold(found, |found, step| found?.get(step));
        let texts: Vec<&str> = match found {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        texts.into_iter().filter_map(|text| self.config.roles.get(text).copied()).collect()
    }

    /// Returns the key of that name. One that is not known may be new.
    async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, Status> {
        let known = self.known(FRESH);
        if let Some(key) = known.and_then(|keys| find(&keys.set, id, algorithm)) {
            return Ok(key);
        }
        self.refresh().await;
        let Some(keys) = self.known(USABLE) else {
            return Err(Status::unavailable("the keys of the identity provider cannot be fetched"));
        };
        find(&keys.set, id, algorithm).ok_or_else(|| {
            Status::unauthenticated(
                "the token is refused: it is signed with a key that is not one of the issuer's",
            )
        })
    }

    fn known(&self, age: Duration) -> Option<Keys> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone().filter(|keys| keys.fetched.elapsed() < age)
    }

    /// Fetches the keys, unless somebody just has.
    async fn refresh(&self) {
        let mut tried = self.tried.lock().await;
        if tried.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        match self.fetch().await {
            Ok(set) => {
                let keys = Keys { set: Arc::new(set), fetched: Instant::now() };
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                issuer = self.config.issuer,
                "the keys of the identity provider cannot be fetched"
            ),
        }
        *tried = Some(Instant::now());
    }

    async fn fetch(&self) -> anyhow::Result<JwkSet> {
        let OidcConfig { issuer, .. } = &self.config;
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found: Discovery = self.document(&place).await?;
        ensure!(
            found.issuer == *issuer,
            "`{place}` is of the issuer `{}`, and `access.oidc.issuer` is another one",
            found.issuer
        );
        ensure!(
            found.jwks_uri.starts_with("https://") || issuer.starts_with("http://"),
            "the issuer's keys are not at an https:// address"
        );
        self.document(&found.jwks_uri).await
    }

    async fn document<T: for<'de> Deserialize<'de>>(&self, url: &str) -> anyhow::Result<T> {
        let ca = self.config.ca.as_ref();
        let ca = ca.map(|file| SecretText::new(format!("${{file:{}}}", file.display())));
        let text = connectors::document(url, ca, self.config.allow_private).await;
        let text = text.map_err(|error| anyhow::anyhow!("{}; {}", error.chain(), error.hint))?;
        serde_json::from_slice(&text).with_context(|| format!("`{url}` cannot be read"))
    }
}

/// Finds the key that a token names; without a name, the only one that could be meant.
fn find(set: &JwkSet, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
    let mut fitting = set.keys.iter().filter(|key| {
        id.is_none_or(|id| key.common.key_id.as_deref() == Some(id)) && fits(key, algorithm)
    });
    let (first, second) = (fitting.next(), fitting.next());
    first.filter(|_| second.is_none()).and_then(|key| DecodingKey::from_jwk(key).ok())
}

fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let signs = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let named = key.common.key_algorithm.is_none_or(|named| named == named_in_keys(algorithm));
    let is_public = !matches!(key.algorithm, AlgorithmParameters::OctetKey(_));
    let family = DecodingKey::from_jwk(key).is_ok_and(|key| key.family() == algorithm.family());
    signs && named && is_public && family
}

fn named_in_keys(algorithm: Algorithm) -> KeyAlgorithm {
    match algorithm {
        Algorithm::RS256 => KeyAlgorithm::RS256,
        Algorithm::RS384 => KeyAlgorithm::RS384,
        Algorithm::RS512 => KeyAlgorithm::RS512,
        Algorithm::PS256 => KeyAlgorithm::PS256,
        Algorithm::PS384 => KeyAlgorithm::PS384,
        Algorithm::PS512 => KeyAlgorithm::PS512,
        Algorithm::ES256 => KeyAlgorithm::ES256,
        Algorithm::ES384 => KeyAlgorithm::ES384,
        Algorithm::EdDSA => KeyAlgorithm::EdDSA,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 | _ => {
            KeyAlgorithm::UNKNOWN_ALGORITHM
        }
    }
}

impl TokenAlgorithm {
    fn named(self) -> Algorithm {
        match self {
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// Why a token does not hold, without anything of it.
fn why(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::ImmatureSignature => "it does not hold yet".to_owned(),
        ErrorKind::InvalidIssuer => "it is of another issuer".to_owned(),
        ErrorKind::InvalidAudience => "it is for another audience".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it has no `{claim}`"),
        ErrorKind::InvalidClaimFormat(claim) => format!("its `{claim}` cannot be read"),
        ErrorKind::InvalidSignature => "its signature is wrong".to_owned(),
        _ => "it cannot be read".to_owned(),
    }
}
