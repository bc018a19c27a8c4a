//! Tokens of an identity provider: what is believed, and what is not.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use scheduler::{AccessConfig, Mode, OidcConfig, Role, TokenAlgorithm};
use serde_json::{Value, json};
use spec::SecretText;
use testkit::http::{Reply, Server};
use tonic::{Code, Status, transport::Channel};
use wire::control::{
    ListPipelinesRequest, ListPipelinesResponse, StartRunRequest, StartRunResponse,
};

use crate::{
    access::{ADMIN, LIST, audit, call},
    house::{House, Replica, within},
};

/// An identity provider whose keys can be replaced.
struct Issuer {
    server: Server,
    keys: Arc<Mutex<Vec<(String, EcdsaKeyPair)>>>,
    _folder: tempfile::TempDir,
    replica: Replica,
    _house: House,
}

fn new_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).unwrap()
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn public(name: &str, key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": name,
        "x": encode(&point[1..33]), "y": encode(&point[33..65]),
    })
}

impl Issuer {
    async fn start() -> Self {
        let keys: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new(vec![("one".to_owned(), new_key())]));
        let (known, server) = (Arc::clone(&keys), Server::always(500).await);
        let url = server.url();
        server.answer(move |request, _| {
            let document = if request.path.starts_with("/.well-known") {
                json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "more": true})
            } else {
                let known = known.lock().unwrap();
                // What this version does not know is no reason to refuse the rest.
                let mut keys = vec![json!({"kty": "new", "kid": "strange"})];
                keys.extend(known.iter().map(|(name, key)| public(name, key)));
                json!({"keys": keys})
            };
            Reply::new(200, document.to_string())
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin-token");
        std::fs::write(&file, ADMIN).unwrap();
        let mut house = House::new().await;
        house.config.access = AccessConfig {
            mode: Some(Mode::Tokens),
            admin_token: Some(SecretText::new(format!("${{file:{}}}", file.display()))),
            oidc: Some(OidcConfig {
                issuer: server.url(),
                audience: "tributary".to_owned(),
                algorithms: vec![TokenAlgorithm::ES256],
                roles_claim: "realm.roles".to_owned(),
                roles: BTreeMap::from([
                    ("crm".to_owned(), Role::Operator),
                    ("privacy".to_owned(), Role::Privacy),
                ]),
                ca: None,
                allow_private: true,
            }),
            tls: None,
        };
        let replica = house.scheduler().await;
        Self { server, keys, _folder: folder, replica, _house: house }
    }

    fn channel(&self) -> &Channel {
        &self.replica.channel
    }

    /// Claims that are believed.
    fn claims(&self) -> Value {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        json!({
            "iss": self.server.url(), "aud": ["other", "tributary"], "sub": "ada",
            "iat": now.as_secs(), "exp": now.as_secs() + 600, "realm": {"roles": ["x", "crm"]},
        })
    }

    fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let keys = self.keys.lock().unwrap();
        let signature = keys[0].1.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", encode(signature))
    }

    fn sign(&self, claims: &Value) -> String {
        let name = self.keys.lock().unwrap()[0].0.clone();
        self.sign_as(&json!({"alg": "ES256", "typ": "at+jwt", "kid": name}), claims)
    }

    async fn list(&self, token: &str) -> Result<ListPipelinesResponse, Status> {
        call(self.channel(), Some(token), LIST, ListPipelinesRequest {}).await
    }

    async fn refused(&self, token: &str, why: &str) {
        let status = self.list(token).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains(why), "{} instead of {why}", status.message());
        assert!(!status.message().contains(token.split('.').nth(1).unwrap()), "it tells the token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_issuer_is_worth_the_roles_that_it_names() {
    let issuer = Issuer::start().await;
    let good = issuer.sign(&issuer.claims());
    issuer.list(&good).await.unwrap();
    let path = "/tributary.control.v1.RunService/StartRun";
    let start = || StartRunRequest { pipeline: "shop".to_owned(), ..Default::default() };
    let answer = call::<_, StartRunResponse>(issuer.channel(), Some(&good), path, start()).await;
    assert_eq!(answer.unwrap_err().code(), Code::NotFound, "an operator may start runs");

    let with = |roles: Value| {
        let mut claims = issuer.claims();
        claims["realm"]["roles"] = roles;
        issuer.sign(&claims)
    };
    for (roles, may) in [
        (json!("crm"), true),
        (json!(["privacy", "crm"]), true),
        (json!("privacy"), false),
        (json!([]), false),
        (json!({"crm": true}), false),
        (json!("admin"), false),
    ] {
        let token = with(roles.clone());
        let answer =
            call::<_, StartRunResponse>(issuer.channel(), Some(&token), path, start()).await;
        let wanted = if may { Code::NotFound } else { Code::PermissionDenied };
        assert_eq!(answer.unwrap_err().code(), wanted, "{roles}");
    }
    let without = with(json!("nobody"));
    let status = issuer.list(&without).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "who has no role sees nothing");
    assert!(status.message().contains("`oidc:ada` has no role"), "{status:?}");
    // Our own tokens hold beside it, and the audit names who it was.
    issuer.list(ADMIN).await.unwrap();
    let entries = audit(issuer.channel()).await;
    assert!(entries.iter().any(|e| e.actor == "oidc:ada" && e.outcome == "NOT_FOUND"));
    issuer.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_hold_is_refused() {
    let issuer = Issuer::start().await;
    let now = issuer.claims()["iat"].as_i64().unwrap();
    for (claim, value, why) in [
        ("iss", json!("https://other.example"), "another issuer"),
        ("aud", json!("other"), "another audience"),
        ("exp", json!(now - 60), "has expired"),
        ("exp", json!((now + 600).to_string()), "`exp`"),
        ("nbf", json!(now + 600), "does not hold yet"),
        ("nbf", json!("soon"), "`nbf`"),
        ("iat", json!(now + 600), "in the future"),
        ("sub", json!(7), "`sub`"),
        ("exp", Value::Null, "`exp`"),
    ] {
        let mut claims = issuer.claims();
        claims[claim] = value.clone();
        issuer.refused(&issuer.sign(&claims), why).await;
    }
    for claim in ["iss", "aud", "exp", "sub"] {
        let mut claims = issuer.claims();
        claims.as_object_mut().unwrap().remove(claim);
        issuer.refused(&issuer.sign(&claims), &format!("no `{claim}`")).await;
    }
    let claims = issuer.claims();
    let unsigned = |algorithm: &str| {
        let header = json!({"alg": algorithm, "kid": "one"}).to_string();
        format!("{}.{}", encode(header), encode(claims.to_string()))
    };
    issuer.refused(&format!("{}.", unsigned("none")), "header cannot be read").await;
    issuer.refused(&format!("{}.AAAA", unsigned("ES256")), "signature is wrong").await;
    issuer.refused(&format!("{}.AAAA", unsigned("RS256")), "`access.oidc.algorithms`").await;
    // The public key is known to everybody, and is no secret to sign with.
    let text = unsigned("HS256");
    let public = public("one", &issuer.keys.lock().unwrap()[0].1).to_string();
    let forged = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()), text.as_bytes());
    issuer.refused(&format!("{text}.{}", encode(forged)), "`access.oidc.algorithms`").await;
    let changed = issuer.sign(&claims);
    let (head, rest) = changed.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let mut more = claims.clone();
    more["realm"]["roles"] = json!(["privacy"]);
    issuer.refused(&format!("{head}.{}.{signature}", encode(more.to_string())), "signature").await;
    issuer.refused(&format!("{}.{}.{}", encode("{}"), encode("{}"), encode("x")), "header").await;
    let long = format!("{}.{}.x", encode("x".repeat(7_000)), encode("x"));
    issuer.refused(&long, "too long").await;
    issuer.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_of_the_issuer_is_found_and_invented_ones_do_not_trouble_it() {
    let issuer = Issuer::start().await;
    let before = issuer.sign(&issuer.claims());
    issuer.list(&before).await.unwrap();
    let asked = issuer.server.count();
    assert_eq!(asked, 2, "the discovery document and the keys");
    for number in 0..20 {
        let header = json!({"alg": "ES256", "kid": format!("invented-{number}")});
        let token = issuer.sign_as(&header, &issuer.claims());
        issuer.refused(&token, "not one of the issuer's").await;
    }
    assert_eq!(issuer.server.count(), asked, "they were fetched a moment ago");

    *issuer.keys.lock().unwrap() = vec![("two".to_owned(), new_key())];
    let mut claims = issuer.claims();
    claims["sub"] = json!("bob");
    let after = issuer.sign(&claims);
    within(async {
        while issuer.list(&after).await.is_err() {
            // Keys are not fetched again sooner than after some seconds.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    within(async {
        while issuer.list(&before).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    issuer.refused(&before, "not one of the issuer's").await;
    issuer.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_provider_of_an_open_api_is_refused() {
    let mut house = House::new().await;
    house.config.access.oidc = Some(OidcConfig {
        issuer: "https://login.example".to_owned(),
        audience: "tributary".to_owned(),
        algorithms: vec![TokenAlgorithm::RS256],
        roles_claim: "roles".to_owned(),
        roles: BTreeMap::from([("crm".to_owned(), Role::Viewer)]),
        ca: None,
        allow_private: false,
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let run = tokio::spawn(scheduler::run_on(listener, house.config.clone(), shutdown));
    let refused = within(run).await.unwrap();
    let told = format!("{:#}", refused.unwrap_err());
    assert!(told.contains("set `access.mode: tokens`"), "{told}");
}
