//! From batches to what became of them.

mod together;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use chrono::Utc;
use connect::{Error, Refused, Written};
use futures::{TryStreamExt, stream};
use model::{Batch, Remedy};
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};
use tokio::time::sleep_until;

use super::{
    Failing, GIVE_UP_AFTER, Target,
    item::Item,
    judge::{Failed, Fate, Told},
    outage::Outage,
    sent::{Claimed, Ticket},
};
use crate::http::client::{Outgoing, Response};

/// Code of what comes again by itself.
const UNDELIVERED: &str = spec::UNDELIVERED;
/// How often a call is repeated that was one too many under its quota, before the write fails.
const REPEATS: usize = 8;

/// A record with the right to send it.
struct Work {
    item: Item,
    ticket: Ticket,
    content: Sendable,
}

/// What is to be sent of a record.
enum Sendable {
    Values(Map<String, Value>),
    Webhook(String),
}

/// What has become of the records so far.
struct Progress {
    written: Mutex<Vec<Written>>,
    failed: Mutex<Option<Failed>>,
    /// Something failed that others would meet as well.
    over: AtomicBool,
}

impl Progress {
    fn written(&self, item: &Item, count: impl FnOnce(&mut Written, usize)) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let (batch, index) = item.place;
        count(&mut written[batch], index);
    }

    fn loaded(&self, item: &Item) {
        self.written(item, |written, _| written.loaded += 1);
    }

    fn unchanged(&self, item: &Item) {
        self.written(item, |written, _| written.unchanged += 1);
    }

    fn refused(&self, item: &Item, code: &'static str, message: String, field: String) {
        self.written(item, |written, index| {
            written.refused.push(Refused { index, code, message, field });
        });
    }

    fn failed(&self, failed: Failed) {
        if failed.whole {
            self.over.store(true, Ordering::Relaxed);
        }
        let mut worst = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let after = worst.as_ref().and_then(|worst| worst.after).max(failed.after);
        *worst = Some(Failed { after, ..failed });
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// The records of one key, oldest first.
type Chain = VecDeque<Item>;

impl Target {
    pub(super) async fn write_all(&self, batches: &[Batch]) -> Result<Vec<Written>, Error> {
        let progress = Progress {
            written: Mutex::new(vec![Written::default(); batches.len()]),
            failed: Mutex::default(),
            over: AtomicBool::new(false),
        };
        let chains = self.chains(batches, &progress);
        if let Some(outage) = &self.outage
            && outage.is_disabled().await?
        {
            for item in chains.iter().flatten() {
                let message = "the receiver is disabled, because nothing got through for too long";
                progress.refused(item, UNDELIVERED, message.to_owned(), String::new());
            }
        } else if self.config.batch.is_some() {
            self.in_batches(chains, &progress).await?;
        } else {
            stream::iter(chains.into_iter().map(Ok))
                .try_for_each_concurrent(self.config.in_flight, |chain| {
                    self.one_by_one(chain, &progress)
                })
                .await?;
        }
        let failed = progress.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failed) = failed {
            let mut error = Error::retry(failed.reason, "look after the API");
            error.remedy = Remedy::Retry { after: failed.after };
            return Err(error);
        }
        let mut written = progress.written.into_inner().unwrap_or_else(PoisonError::into_inner);
        for written in &mut written {
            written.refused.sort_by_key(|refused| refused.index);
        }
        Ok(written)
    }

    /// Sorts records by key, and refuses those that have none.
    fn chains(&self, batches: &[Batch], progress: &Progress) -> Vec<Chain> {
        let mut chains: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        // In the order of the source, so that the first records are sent first.
        let mut order = Vec::new();
        for (number, batch) in batches.iter().enumerate() {
            for index in 0..batch.records.len() {
                match Item::new(batch, (number, index), &self.key_fields) {
                    Ok(item) if self.webhook.is_none() && !self.calls.concerns(&item) => {
                        progress.unchanged(&item);
                    }
                    Ok(item) => {
                        let keeps = self.ledger.keeps_delivered();
                        let item = if keeps { item.kept(batch) } else { item };
                        let chain = chains.entry(item.key.clone()).or_default();
                        if chain.is_empty() {
                            order.push(item.key.clone());
                        }
                        chain.push(item);
                    }
                    Err(refused) => {
                        let mut written =
                            progress.written.lock().unwrap_or_else(PoisonError::into_inner);
                        written[number].refused.push(refused);
                    }
                }
            }
        }
        let chain = |key: String| {
            let mut chain = chains.remove(&key)?;
            chain.sort_by_key(|item| item.version);
            Some(Chain::from(chain))
        };
        order.into_iter().filter_map(chain).collect()
    }

    async fn one_by_one(&self, mut chain: Chain, progress: &Progress) -> Result<(), Error> {
        while let Some(item) = chain.pop_front() {
            if progress.is_over() {
                return Ok(());
            }
            let work = loop {
                match self.claim(item.clone(), progress).await? {
                    Some(Ok(work)) => break Some(work),
                    Some(Err(_)) if progress.is_over() => return Ok(()),
                    Some(Err(_)) => self.ledger.changed().await,
                    None => break None,
                }
            };
            let Some(work) = work else { continue };
            let made = match (&work.content, &self.webhook) {
                (Sendable::Webhook(body), Some(webhook)) => {
                    Ok(webhook.call(&self.client, &work.item, body.clone()))
                }
                (Sendable::Values(values), _) => {
                    self.calls.single(&self.client, &work.item, values)
                }
                (Sendable::Webhook(_), None) => unreachable!("only webhooks make such content"),
            };
            let outgoing = match made {
                Ok(outgoing) => outgoing,
                Err(not_filled) => {
                    let (message, field) = not_filled.reason()?;
                    progress.refused(&work.item, "place", message, field);
                    self.ledger.release(work.ticket, &work.item).await?;
                    continue;
                }
            };
            let Some(answer) = self.send(&outgoing, work.item.version.1, progress).await else {
                return self.ledger.release(work.ticket, &work.item).await;
            };
            let delete = work.item.is_gone() && self.calls.delete.is_some();
            let fate = match answer {
                Err(fate) => Ok(fate),
                Ok(answer) => {
                    let body = serde_json::from_slice::<Value>(&answer.body).ok();
                    self.judge(answer.status, &answer.headers, body.as_ref(), delete)
                }
            };
            if !self.settle(work, fate, progress).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Claims a record; `Err`: it has to wait for another one; `None`: there is nothing to do for it.
    async fn claim(
        &self,
        item: Item,
        progress: &Progress,
    ) -> Result<Option<Result<Work, Item>>, Error> {
        match self.ledger.claim(&item).await? {
            Claimed::Go(ticket) => match self.content(&item, &ticket)? {
                Some(content) => return Ok(Some(Ok(Work { item, ticket: *ticket, content }))),
                None => {
                    self.ledger.skip(*ticket, &item).await?;
                    progress.unchanged(&item);
                }
            },
            Claimed::Settled(true) => progress.loaded(&item),
            Claimed::Settled(false) => progress.unchanged(&item),
            Claimed::Unknown => unknown(&item, "the call was interrupted", progress),
            Claimed::Busy => return Ok(Some(Err(item))),
        }
        Ok(None)
    }

    fn content(&self, item: &Item, ticket: &Ticket) -> Result<Option<Sendable>, Error> {
        Ok(match &self.webhook {
            Some(webhook) => webhook.body(item, ticket.told_before())?.map(Sendable::Webhook),
            None => self.calls.values(item, &ticket.known).map(Sendable::Values),
        })
    }

    /// Makes a call for what was extracted at `extracted_ns`, when there is a place for it and unless
    /// the write is over. In trouble there is one place only.
    async fn send(
        &self,
        outgoing: &Outgoing,
        extracted_ns: i64,
        progress: &Progress,
    ) -> Option<Result<Response, Fate>> {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        let probe = match self.trouble.load(Ordering::Relaxed) {
            true => Some(self.probe.lock().await),
            false => None,
        };
        if let Some(drain) = &self.drain {
            sleep_until(drain.turn(Instant::now().into(), extracted_ns)).await;
        }
        if progress.is_over() {
            return None;
        }
        if let Some(reason) = self.outage.as_ref().and_then(Outage::hopeless) {
            return Some(Err(Fate::Failed(Failed { reason, after: None, whole: true })));
        }
        let probe = probe.filter(|_| self.trouble.load(Ordering::Relaxed));
        let mut answered = self.client.send(outgoing).await;
        for _ in 0..REPEATS {
            if progress.is_over() || !answered.as_ref().is_ok_and(|a| self.is_over_quota(a)) {
                break;
            }
            // The quota holds the repetition back until the API takes calls again.
            answered = self.client.send(outgoing).await;
        }
        drop(probe);
        if let (Some(drain), Ok(answer)) = (&self.drain, &answered)
            && (200..300).contains(&answer.status)
        {
            drain.called(Instant::now().into());
        }
        Some(answered.map_err(|failed| {
            let reason = failed.error.chain();
            if let Some(outage) = &self.outage {
                outage.goes_on(&reason);
            }
            match failed.error.remedy {
                Remedy::Retry { after } if !failed.sent => {
                    self.fails();
                    Fate::Failed(Failed { reason, after, whole: true })
                }
                Remedy::Retry { after } if self.config.idempotent => {
                    self.fails();
                    Fate::Failed(Failed { reason, after, whole: false })
                }
                Remedy::Stop if !failed.sent => Fate::Stopped(reason, failed.error.hint),
                Remedy::Retry { .. } | Remedy::Quarantine | Remedy::Stop => Fate::Unknown(reason),
            }
        }))
    }

    fn fails(&self) {
        self.trouble.store(true, Ordering::Relaxed);
        if let Some(drain) = &self.drain {
            drain.fails(Instant::now().into());
        }
    }

    fn works(&self) {
        self.trouble.store(false, Ordering::Relaxed);
        let now_ns = Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX);
        let drain = self.drain.as_ref();
        if let Some(per_second) = drain.and_then(|drain| drain.works(Instant::now().into(), now_ns))
        {
            tracing::info!(
                calls_per_second = per_second,
                "the target is back; what has piled up is sent at this pace"
            );
        }
    }

    /// Tells whether an answer says no more than that it was a call too many under its quota.
    fn is_over_quota(&self, answer: &Response) -> bool {
        let Response { status, headers, .. } = answer;
        let body = serde_json::from_slice::<Value>(&answer.body).ok();
        let told = Told { status: *status, headers, body: body.as_ref(), delete: false };
        let judged = || self.judge.judge(&told);
        *status == 429
            && answer.counted
            && matches!(judged(), Ok(Fate::Failed(failed)) if failed.whole)
    }

    fn judge(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: Option<&Value>,
        delete: bool,
    ) -> Result<Fate, Error> {
        let fate = self.judge.judge(&Told { status, headers, body, delete })?;
        match &fate {
            Fate::Failed(failed) => {
                if failed.whole {
                    self.fails();
                }
                if let Some(outage) = &self.outage {
                    outage.goes_on(&failed.reason);
                }
            }
            Fate::Unknown(_) | Fate::Stopped(..) => {}
            Fate::Done | Fate::Rejected(_) => {
                if let Some(outage) = &self.outage {
                    outage.ended();
                }
                self.works();
                self.successes.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(fate)
    }

    /// Remembers what became of a record. False: the later ones of its key have to wait.
    async fn settle(
        &self,
        work: Work,
        fate: Result<Fate, Error>,
        progress: &Progress,
    ) -> Result<bool, Error> {
        let Work { item, ticket, .. } = work;
        let fate = match fate {
            Ok(fate) => fate,
            Err(error) => {
                self.ledger.release(ticket, &item).await?;
                return Err(error);
            }
        };
        match fate {
            Fate::Done => {
                self.ledger.confirm(ticket, &item).await?;
                self.forget(&item);
                progress.loaded(&item);
            }
            Fate::Rejected(reason) => {
                self.ledger.release(ticket, &item).await?;
                self.forget(&item);
                progress.refused(&item, "rejected", reason, String::new());
            }
            Fate::Unknown(reason) => {
                if self.config.idempotent {
                    self.ledger.release(ticket, &item).await?;
                } else {
                    self.ledger.park(ticket, &item).await?;
                }
                unknown(&item, &reason, progress);
            }
            Fate::Failed(failed) => {
                self.ledger.release(ticket, &item).await?;
                let given_up = !failed.whole && self.gives_up(&item);
                if given_up || self.outage.as_ref().is_some_and(Outage::is_long) {
                    self.forget(&item);
                    let code = if self.outage.is_some() { UNDELIVERED } else { "failing" };
                    progress.refused(&item, code, failed.reason, String::new());
                } else {
                    progress.failed(failed);
                    return Ok(false);
                }
            }
            Fate::Stopped(reason, hint) => {
                self.ledger.release(ticket, &item).await?;
                return Err(Error::stop(reason, hint));
            }
        }
        Ok(true)
    }

    fn forget(&self, item: &Item) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.remove(&attempt_key(item));
    }

    /// Counts a failure of a record, and tells whether it is to be set aside. It only counts where
    /// other calls have succeeded since its last one.
    fn gives_up(&self, item: &Item) -> bool {
        let successes = self.successes.load(Ordering::Relaxed);
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = failing.entry(attempt_key(item)).or_insert_with(|| Failing {
            since: Instant::now(),
            attempts: 0,
            successes: successes.saturating_sub(1),
        });
        if successes > entry.successes {
            entry.successes = successes;
            entry.attempts += 1;
        }
        entry.attempts >= self.config.attempts || entry.since.elapsed() > GIVE_UP_AFTER
    }
}

fn attempt_key(item: &Item) -> String {
    format!("{}/{}", item.id, item.version.0)
}

fn unknown(item: &Item, reason: &str, progress: &Progress) {
    let message = format!("it may have happened: {reason}; replay the record to send it again");
    progress.refused(item, "unknown_outcome", message, String::new());
}
