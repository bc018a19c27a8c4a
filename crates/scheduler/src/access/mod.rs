//! Who may call the gRPC API, and who has.

mod config;
mod guard;
mod oidc;
mod permission;
mod signatures;
mod subject;
mod tokens;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use secrecy::ExposeSecret;
use spec::SecretText;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::core::Scheduler;

use self::oidc::Provider;
pub use self::{
    config::{AccessConfig, Mode, OidcConfig, TokenAlgorithm},
    permission::Role,
};
pub(crate) use self::{
    guard::GuardLayer,
    permission::{Permission, declared},
    subject::Subject,
    tokens::{digest, new_secret},
};

/// How long a token that was found good is believed, and so how long one that is revoked still works.
const BELIEVED: Duration = Duration::from_secs(5);

/// Tokens that are believed at once; more are looked up each time.
const MOST_BELIEVED: usize = 10_000;

/// Lookups that go on at once, so that guessing does not take the database from everybody else.
const LOOKUPS: usize = 4;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Name, which the audit tells.
    pub(crate) name: String,
    /// What may be done: what any of them may.
    pub(crate) roles: Vec<Role>,
}

impl Caller {
    pub(crate) fn may(&self, permission: Permission) -> bool {
        self.roles.iter().any(|role| role.may(permission))
    }
}

/// Decides who may call what. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mode: Mode,
    admin_token: Option<SecretText>,
    provider: Option<Provider>,
    scheduler: Scheduler,
    believed: Mutex<HashMap<[u8; 32], (Caller, Instant)>>,
    lookups: Semaphore,
}

impl Access {
    /// Takes the settings of an API that listens on `address`.
    ///
    /// # Errors
    ///
    /// When everybody on the network could call without a token and nobody has said so, or a method
    /// of the API has no declared permission.
    pub(crate) fn new(
        config: &AccessConfig,
        address: SocketAddr,
        scheduler: Scheduler,
    ) -> anyhow::Result<Self> {
        permission::check_all_methods(wire::FILE_DESCRIPTOR_SET)?;
        let mode = match config.mode {
            Some(mode) => mode,
            None if address.ip().is_loopback() => Mode::None,
            None => bail!(
                "the gRPC API listens on {address}, where others can call it, and `access.mode` is \
                 not set; set `tokens` to ask callers for a token, or `none` to let everybody in"
            ),
        };
        if mode == Mode::Tokens && config.tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                "tokens travel in clear to {address}; set `access.tls`, unless something in front \
                 of the API ends TLS"
            );
        }
        ensure!(
            config.oidc.is_none() || mode == Mode::Tokens,
            "`access.oidc` is set, and `access.mode` lets everybody in without a token; set \
             `access.mode: tokens`"
        );
        let provider = config.oidc.clone().map(Provider::new).transpose()?;
        let inner = Inner {
            mode,
            admin_token: config.admin_token.clone(),
            provider,
            scheduler,
            believed: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Tells who sends this `authorization` header.
    async fn caller(&self, authorization: Option<&str>) -> Result<Caller, Status> {
        if self.inner.mode == Mode::None {
            return Ok(Caller { name: "anonymous".to_owned(), roles: vec![Role::Admin] });
        }
        let Some(authorization) = authorization else {
            return Err(Status::unauthenticated(
                "a token is needed: send `authorization: Bearer …`; the command line takes it from \
                 TRIBUTARY_TOKEN",
            ));
        };
        let scheme = authorization.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("bearer "));
        let Some(secret) = scheme.map(|_| authorization[7..].trim()) else {
            return Err(Status::unauthenticated("the authorization is not a bearer token"));
        };
        let digest = digest(secret);
        if let Some(caller) = self.believed(&digest) {
            return Ok(caller);
        }
        let caller = match &self.inner.provider {
            Some(provider) if Provider::is_meant(secret) => provider.caller(secret).await?,
            Some(_) | None => self.look_up(&digest).await?,
        };
        let mut believed = self.inner.believed.lock().unwrap_or_else(PoisonError::into_inner);
        believed.retain(|_, (_, since)| since.elapsed() < BELIEVED);
        if believed.len() < MOST_BELIEVED {
            believed.insert(digest, (caller.clone(), Instant::now()));
        }
        Ok(caller)
    }

    fn believed(&self, digest: &[u8; 32]) -> Option<Caller> {
        let believed = self.inner.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let (caller, since) = believed.get(digest)?;
        (since.elapsed() < BELIEVED).then(|| caller.clone())
    }

    async fn look_up(&self, digest: &[u8; 32]) -> Result<Caller, Status> {
        if self.is_admin_token(digest) {
            return Ok(Caller { name: "admin".to_owned(), roles: vec![Role::Admin] });
        }
        let _turn = self.inner.lookups.acquire().await.expect("the semaphore is never closed");
        let token = self.inner.scheduler.store().token(digest).await;
        let token = token.map_err(|error| Status::from(crate::error::Error::from(error)))?;
        let Some(token) = token else {
            return Err(Status::unauthenticated("the token is not known"));
        };
        if token.revoked_at.is_some() {
            return Err(Status::unauthenticated(format!("token `{}` was revoked", token.name)));
        }
        if token.expires_at <= self.inner.scheduler.now() {
            return Err(Status::unauthenticated(format!("token `{}` has expired", token.name)));
        }
        let Some(role) = Role::named(&token.role) else {
            return Err(Status::unauthenticated(format!(
                "token `{}` has a role that this version does not know",
                token.name
            )));
        };
        Ok(Caller { name: token.name, roles: vec![role] })
    }

    /// Read anew each time, so that it can be changed without a restart.
    fn is_admin_token(&self, sent: &[u8; 32]) -> bool {
        let Some(token) = &self.inner.admin_token else { return false };
        match token.resolve(|name| std::env::var(name).ok()) {
            Ok(secret) => {
                !secret.expose_secret().is_empty() && digest(secret.expose_secret()) == *sent
            }
            Err(error) => {
                tracing::warn!(%error, "`access.admin_token` cannot be resolved");
                false
            }
        }
    }
}
