//! HTTP APIs that records are sent to.
//!
//! - `item` is a record as the API sees it, `call` makes calls of items, `judge` says what answers
//!   mean, `sent` remembers what was sent for each key, `write` puts these together, alone or
//!   many in one call.
//! - Records of one key are sent one after the other, oldest first; those of different keys side by
//!   side, up to the budget of calls in flight.
//! - A failure that others would meet as well ends the write; the caller waits and repeats it, and
//!   what was confirmed is not sent again. After it a single call goes ahead of all others.
//! - Where deliveries are set aside (`outage`), nobody waits for long: what does not get through is
//!   refused, and comes again as a replay.

mod call;
mod drain;
pub(super) mod item;
mod judge;
mod outage;
mod sent;
mod write;

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use connect::{Error, Sweep, Written};
use model::{Batch, Field};
use reqwest::Method;
use tokio::sync::Semaphore;

use self::{call::Calls, drain::Drain, judge::Judge, outage::Outage, sent::Ledger};
use super::{
    client::{Client, Outgoing},
    webhook::Webhook,
};
use crate::Context;

/// Time that a claim outlives the longest call, for a quota to let it through.
const CLAIM_MARGIN: Duration = Duration::from_secs(120);

/// A record that fails although the API answers is given up after so long, even where nothing else
/// shows that the API works.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60 * 60);

/// An HTTP API as a target.
pub(crate) struct Target {
    client: Client,
    calls: Calls,
    /// What makes webhooks of records, where that is what is sent.
    webhook: Option<Webhook>,
    judge: Judge,
    ledger: Ledger,
    config: spec::HttpTarget,
    key_fields: Vec<String>,
    /// Calls that may be open.
    places: Semaphore,
    /// The last call has found the API failing.
    trouble: AtomicBool,
    /// Held by the only call that is made in trouble.
    probe: tokio::sync::Mutex<()>,
    successes: AtomicU64,
    /// How fast it is called after an outage, where that is bounded.
    drain: Option<Drain>,
    /// How long nothing has got through, where deliveries are set aside after a while.
    outage: Option<Outage>,
    /// Records that fail while the API works, by their claims.
    failing: Mutex<HashMap<String, Failing>>,
}

/// How often a record has failed.
struct Failing {
    since: Instant,
    attempts: u32,
    /// Calls that had succeeded then.
    successes: u64,
}

impl Target {
    /// Prepares a target. Nothing is dialled yet, but secrets are resolved.
    ///
    /// # Errors
    ///
    /// When a secret cannot be resolved or a setting cannot work.
    pub(crate) fn new(
        config: &spec::HttpTarget,
        pipeline: &spec::Pipeline,
        target: &spec::Target,
        context: &Context,
    ) -> Result<Self, Error> {
        if pipeline.key.is_empty() {
            return Err(Error::stop(
                format!("target `{}` has no key to tell records apart", target.name),
                "set `key:` in the pipeline",
            ));
        }
        let rules = sent::Rules {
            once: config.once,
            idempotent: config.idempotent,
            keeps_values: config.only_changed,
            keeps_delivered: false,
            lease: config.client.timeout + CLAIM_MARGIN,
        };
        let scope = format!("{}.{}", pipeline.name, target.name);
        Ok(Self {
            client: Client::new(&config.client, pipeline.name.as_str(), context)?,
            calls: Calls::new(config, pipeline, target.name.as_str(), &context.variables)?,
            webhook: None,
            judge: Judge::new(&config.answers, config.idempotent)?,
            ledger: Ledger::new(std::sync::Arc::clone(&context.memory), scope, rules),
            places: Semaphore::new(config.in_flight),
            config: config.clone(),
            key_fields: pipeline.key.clone(),
            trouble: AtomicBool::new(false),
            probe: tokio::sync::Mutex::default(),
            successes: AtomicU64::new(0),
            drain: config.drain.map(Drain::new),
            outage: None,
            failing: Mutex::default(),
        })
    }

    /// Prepares a receiver of webhooks, which is an API with one call. Nothing is dialled yet, but
    /// secrets are resolved.
    ///
    /// # Errors
    ///
    /// When a secret cannot be resolved or a setting cannot work.
    pub(crate) fn webhook(
        config: &spec::WebhookTarget,
        pipeline: &spec::Pipeline,
        target: &spec::Target,
        context: &Context,
    ) -> Result<Self, Error> {
        let name = target.name.as_str();
        let webhook = Webhook::new(config, pipeline, name, &context.variables)?;
        let mut api = Self::new(&config.as_api(), pipeline, target, context)?;
        api.webhook = Some(webhook);
        let key = spec::disabled_key(&pipeline.name, &target.name);
        api.outage =
            Some(Outage::new(config.retry[0], std::sync::Arc::clone(&context.memory), key));
        api.ledger.keep(!config.keep_delivered.is_zero());
        Ok(api)
    }
}

#[async_trait]
impl connect::Target for Target {
    async fn check(&self) -> Result<String, Error> {
        match &self.outage {
            // What is to be done then is known to the write.
            Some(outage) if outage.is_long() => Ok("deliveries are set aside".to_owned()),
            _ => check(&self.client).await,
        }
    }

    async fn plan(&self, _fields: &[Field]) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    async fn write(&self, batches: &[Batch]) -> Result<Vec<Written>, Error> {
        self.write_all(batches).await
    }

    async fn sweep(&self, _sweep: &Sweep) -> Result<u64, Error> {
        Ok(0)
    }

    fn bounds_itself(&self) -> bool {
        true
    }
}

/// Asks whether anybody answers, by a call that changes nothing.
///
/// # Errors
///
/// Retry where nobody does.
pub(super) async fn check(client: &Client) -> Result<String, Error> {
    let url = client.base();
    let host = url.host_str().unwrap_or_default().to_owned();
    let outgoing = Outgoing { method: Method::HEAD, url, headers: Vec::new(), content: None };
    let answer = client.send(&outgoing).await.map_err(|failed| failed.error)?;
    if matches!(answer.status, 429 | 502..=504) {
        let mut error = Error::retry(
            format!("`{host}` answers {}", answer.status),
            "wait, or look after the API",
        );
        let after = super::delay::retry_after(&answer.headers, chrono::Utc::now());
        error.remedy = model::Remedy::Retry { after };
        return Err(error);
    }
    Ok(format!("`{host}` answers"))
}
