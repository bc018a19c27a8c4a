//! Several records in one call, and what became of each.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::PoisonError,
};

use connect::Error;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::{Chain, Progress, Sendable, Work};
use crate::http::client::Response;
use crate::http::target::{
    Target,
    item::Item,
    judge::{Failed, Fate, select},
};

impl Target {
    /// Sends several records with one call, as many such calls at a time as there are places.
    pub(super) async fn in_batches(
        &self,
        chains: Vec<Chain>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let (gone, mut chains): (Vec<Chain>, Vec<Chain>) =
            chains.into_iter().partition(|chain| chain.iter().any(Item::is_gone));
        let size = self.config.batch.as_ref().map_or(1, |batch| batch.size);
        while !chains.is_empty() && !progress.is_over() {
            let firsts: Vec<Item> = chains.iter_mut().filter_map(VecDeque::pop_front).collect();
            let offered = firsts.len();
            let claimed: Vec<(usize, Option<Result<Work, Item>>)> =
                stream::iter(firsts.into_iter().enumerate())
                    .map(|(chain, item)| async move {
                        Ok::<_, Error>((chain, self.claim(item, progress).await?))
                    })
                    .buffered(self.config.in_flight.max(size.min(64)))
                    .try_collect()
                    .await?;
            let mut works = Vec::new();
            for (chain, claimed) in claimed {
                match claimed {
                    Some(Ok(work)) => works.push(work),
                    Some(Err(item)) => chains[chain].push_front(item),
                    None => {}
                }
            }
            if works.is_empty() && chains.iter().map(VecDeque::len).sum::<usize>() >= offered {
                self.ledger.changed().await;
            }
            let mut groups = Vec::new();
            while !works.is_empty() {
                let rest = works.split_off(works.len().min(size));
                groups.push(std::mem::replace(&mut works, rest));
            }
            stream::iter(groups.into_iter().map(Ok))
                .try_for_each_concurrent(self.config.in_flight, |group| {
                    self.together(group, progress)
                })
                .await?;
            if progress.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return Ok(());
            }
            chains.retain(|chain| !chain.is_empty());
        }
        stream::iter(gone.into_iter().map(Ok))
            .try_for_each_concurrent(self.config.in_flight, |chain| {
                self.one_by_one(chain, progress)
            })
            .await
    }

    /// Sends records with one call, and where the API refuses them, halves of them.
    async fn together(&self, group: Vec<Work>, progress: &Progress) -> Result<(), Error> {
        let mut todo = vec![group];
        while let Some(mut group) = todo.pop() {
            let mut entries = Vec::with_capacity(group.len());
            let mut works = Vec::with_capacity(group.len());
            for work in group.drain(..) {
                let Sendable::Values(values) = &work.content else {
                    unreachable!("webhooks go one by one");
                };
                match self.calls.entry(&work.item, values) {
                    Ok(entry) => {
                        entries.push(entry);
                        works.push(work);
                    }
                    Err(not_filled) => {
                        let (message, field) = not_filled.reason()?;
                        progress.refused(&work.item, "place", message, field);
                        self.ledger.release(work.ticket, &work.item).await?;
                    }
                }
            }
            if works.is_empty() {
                continue;
            }
            let pairs = works.iter().zip(&entries).map(|(work, entry)| (&work.item, &**entry));
            let outgoing = match self.calls.several(&self.client, pairs) {
                Ok(outgoing) => outgoing,
                Err(not_filled) => {
                    let (reason, _) = not_filled.reason()?;
                    return Err(Error::stop(reason, "correct `batch` in the pipeline"));
                }
            };
            let newest = works.iter().map(|work| work.item.version.1).max().unwrap_or_default();
            let Some(answer) = self.send(&outgoing, newest, progress).await else {
                for work in works {
                    self.ledger.release(work.ticket, &work.item).await?;
                }
                continue;
            };
            let fates = match answer {
                Err(fate) => vec![Ok(fate); works.len()],
                Ok(answer) => self.fates(&works, &answer),
            };
            let all_rejected = fates.iter().all(|fate| matches!(fate, Ok(Fate::Rejected(_))));
            let told_apart = self.config.batch.as_ref().is_some_and(|b| b.results.is_some())
                && fates.len() > 1
                && fates.windows(2).any(|pair| pair[0] != pair[1]);
            if all_rejected && works.len() > 1 && !told_apart {
                let half = works.split_off(works.len() / 2);
                todo.extend([half, works]);
                continue;
            }
            let settled = works.into_iter().zip(fates);
            for (work, fate) in settled {
                self.settle(work, fate.map_err(Stopped::into_error), progress).await?;
            }
        }
        Ok(())
    }

    /// Says what became of each record of a call.
    fn fates(&self, works: &[Work], answer: &Response) -> Vec<Result<Fate, Stopped>> {
        let all = |fate: Result<Fate, Stopped>| vec![fate; works.len()];
        let judge = |status, body: Option<&Value>| {
            self.judge(status, &answer.headers, body, false).map_err(Stopped::from)
        };
        let body = serde_json::from_slice::<Value>(&answer.body).ok();
        let results = self.config.batch.as_ref().and_then(|batch| batch.results.as_ref());
        let whole = judge(answer.status, body.as_ref().filter(|_| results.is_none()));
        let (Some(results), Ok(Fate::Done)) = (results, &whole) else { return all(whole) };
        let list = body.as_ref().and_then(|body| select(body, &results.list)?.as_array());
        let Some(list) = list else {
            return all(Ok(self.untold("the answer has no list of results")));
        };
        let by_key: Option<BTreeMap<String, &Value>> = results.key.as_ref().map(|path| {
            let key = |result| {
                Some((spec::text_of(&select(result, path)?.to_string()).into_owned(), result))
            };
            list.iter().filter_map(key).collect()
        });
        let of = |(index, work): (usize, &Work)| {
            let result = match &by_key {
                Some(by_key) => by_key.get(&work.item.key_text).copied(),
                None => list.get(index),
            };
            let Some(result) = result else {
                return Ok(self.untold("the answer has no result for the record"));
            };
            let status = match &results.status {
                None => Some(answer.status),
                Some(path) => select(result, path)
                    .and_then(|status| spec::text_of(&status.to_string()).parse().ok()),
            };
            match status {
                Some(status) => judge(status, Some(result)),
                None => Ok(self.untold("the result of the record has no status")),
            }
        };
        works.iter().enumerate().map(of).collect()
    }

    /// The API took the call, but does not say what became of a record.
    fn untold(&self, reason: &str) -> Fate {
        if self.config.idempotent {
            Fate::Failed(Failed { reason: reason.to_owned(), after: None, whole: false })
        } else {
            Fate::Unknown(reason.to_owned())
        }
    }
}

/// Why nobody gets through any more; as [`Error`], but for several records.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stopped {
    what: String,
    hint: String,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self { what: error.chain(), hint: error.hint }
    }
}

impl Stopped {
    fn into_error(self) -> Error {
        Error::stop(self.what, self.hint)
    }
}
