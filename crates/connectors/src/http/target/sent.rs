//! What was sent for each key, so that an older record never follows a newer one and nothing is sent
//! twice that need not be.
//!
//! Before a call, the key is claimed; after it, the claim is replaced by what was sent. A claim that
//! is found without its owner means a call whose outcome nobody knows.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::Utc;
use connect::{Error, Memory, Put};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::item::Item;

/// What is remembered of a key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    /// What the API has confirmed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sent: Option<Fact>,
    /// A call that goes on, or whose outcome is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<Claim>,
}

/// What was sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fact {
    version: (i64, i64),
    record: String,
    run: String,
    content: String,
    gone: bool,
    /// The values, where they are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) values: Option<Map<String, Value>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claim {
    version: (i64, i64),
    record: String,
    run: String,
    holder: u64,
    /// When its owner cannot be calling any more, in milliseconds since 1970-01-01 UTC.
    until: i64,
    /// Its outcome is known to be unknown.
    parked: bool,
}

impl Known {
    /// Returns the values that the API has, if it has any of the key.
    pub(crate) fn values(&self) -> Option<&Map<String, Value>> {
        self.sent.as_ref().filter(|sent| !sent.gone)?.values.as_ref()
    }
}

/// How a target wants its keys to be remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) once: bool,
    pub(crate) idempotent: bool,
    pub(crate) keeps_values: bool,
    /// Longer than any call takes.
    pub(crate) lease: Duration,
}

/// What may be done about a record.
pub(crate) enum Claimed {
    /// It is to be sent.
    Go(Box<Ticket>),
    /// It needs no call; true: because this very record was sent in this run.
    Settled(bool),
    /// It may have been sent, and a second call could do harm.
    Unknown,
    /// Another record of the key is being sent.
    Busy,
}

/// The right to make a call for a key.
pub(crate) struct Ticket {
    pub(crate) known: Known,
    key: String,
    revision: u64,
    _place: KeyPlace,
}

/// What a target has sent.
pub(crate) struct Ledger {
    memory: Arc<dyn Memory>,
    scope: String,
    holder: u64,
    rules: Rules,
    keys: Arc<Keys>,
}

/// Keys that this process works on.
#[derive(Default)]
struct Keys {
    taken: Mutex<HashSet<String>>,
    freed: Notify,
}

struct KeyPlace {
    keys: Arc<Keys>,
    key: String,
}

impl Drop for KeyPlace {
    fn drop(&mut self) {
        let mut taken = self.keys.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.key);
        drop(taken);
        self.keys.freed.notify_waiters();
    }
}

impl Ledger {
    pub(crate) fn new(memory: Arc<dyn Memory>, scope: String, rules: Rules) -> Self {
        Self { memory, scope, holder: rand::random(), rules, keys: Arc::default() }
    }

    /// Remembers the values of every record from now on.
    pub(crate) fn keep_values(&mut self) {
        self.rules.keeps_values = true;
    }

    /// Waits a little, or until this process has finished with a key.
    pub(crate) async fn changed(&self) {
        // Other processes finish without a word.
        let patience = Duration::from_millis(100);
        tokio::time::timeout(patience, self.keys.freed.notified()).await.ok();
    }

    /// Claims the key of a record, unless there is nothing to do for it.
    ///
    /// # Errors
    ///
    /// When the memory cannot be reached.
    pub(crate) async fn claim(&self, item: &Item) -> Result<Claimed, Error> {
        let key = format!("{}.{}", self.scope, item.key);
        let fresh = {
            let mut taken = self.keys.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.insert(key.clone())
        };
        if !fresh {
            return Ok(Claimed::Busy);
        }
        let place = KeyPlace { keys: Arc::clone(&self.keys), key: key.clone() };
        loop {
            let found = self.memory.get(&key).await?;
            let (mut known, revision) = match &found {
                Some(found) => (read(&found.value)?, Some(found.revision)),
                None => (Known::default(), None),
            };
            if let Some(sent) = &mut known.sent {
                if self.rules.once || sent.version >= item.version {
                    let same = sent.record == item.id && sent.run == item.run;
                    return Ok(Claimed::Settled(same));
                }
                let same = sent.content == item.content || (sent.gone && item.is_gone());
                if same && known.claim.is_none() {
                    sent.version = item.version;
                    match self.memory.put(&key, write(&known), revision).await? {
                        Put::Stored(_) => return Ok(Claimed::Settled(false)),
                        Put::Conflict => continue,
                    }
                }
            }
            let now = Utc::now().timestamp_millis();
            if let Some(claim) = &mut known.claim {
                let same = claim.record == item.id && claim.version == item.version;
                let goes_on = claim.holder != self.holder && !claim.parked && now < claim.until;
                // The same fact under the same idempotency key does no harm at any time.
                if goes_on && !(same && self.rules.idempotent) {
                    return Ok(Claimed::Busy);
                }
                if !self.rules.idempotent {
                    // The same record in a later run is somebody's decision to send it again.
                    let redelivered = same && claim.run == item.run;
                    let decided = claim.record == item.id && claim.run != item.run;
                    if redelivered || (self.rules.once && !decided) {
                        if !claim.parked {
                            claim.parked = true;
                            if self.memory.put(&key, write(&known), revision).await?
                                == Put::Conflict
                            {
                                continue;
                            }
                        }
                        return Ok(Claimed::Unknown);
                    }
                }
            }
            let lease = i64::try_from(self.rules.lease.as_millis()).unwrap_or(i64::MAX);
            known.claim = Some(Claim {
                version: item.version,
                record: item.id.clone(),
                run: item.run.clone(),
                holder: self.holder,
                until: now.saturating_add(lease),
                parked: false,
            });
            if let Put::Stored(revision) = self.memory.put(&key, write(&known), revision).await? {
                let ticket = Ticket { known, key, revision, _place: place };
                return Ok(Claimed::Go(Box::new(ticket)));
            }
        }
    }

    /// The API has confirmed a record.
    ///
    /// # Errors
    ///
    /// When the memory cannot be reached.
    pub(crate) async fn confirm(&self, mut ticket: Ticket, item: &Item) -> Result<(), Error> {
        let values = self.rules.keeps_values.then(|| {
            let before = ticket.known.sent.take().filter(|sent| !sent.gone);
            let mut values = before.and_then(|sent| sent.values).unwrap_or_default();
            values.extend(item.values.clone());
            values
        });
        ticket.known.sent = Some(Fact {
            version: item.version,
            record: item.id.clone(),
            run: item.run.clone(),
            content: item.content.clone(),
            gone: item.is_gone(),
            values,
        });
        ticket.known.claim = None;
        self.give_back(ticket, item.version).await
    }

    /// Nothing of the call has happened.
    ///
    /// # Errors
    ///
    /// When the memory cannot be reached.
    pub(crate) async fn release(&self, mut ticket: Ticket, item: &Item) -> Result<(), Error> {
        ticket.known.claim = None;
        self.give_back(ticket, item.version).await
    }

    /// Nobody knows what became of the call, and a second one could do harm.
    ///
    /// # Errors
    ///
    /// When the memory cannot be reached.
    pub(crate) async fn park(&self, mut ticket: Ticket, item: &Item) -> Result<(), Error> {
        if let Some(claim) = &mut ticket.known.claim {
            claim.parked = true;
        }
        self.give_back(ticket, item.version).await
    }

    /// Remembers that a record needs no call.
    ///
    /// # Errors
    ///
    /// When the memory cannot be reached.
    pub(crate) async fn skip(&self, mut ticket: Ticket, item: &Item) -> Result<(), Error> {
        if let Some(sent) = &mut ticket.known.sent {
            sent.version = item.version;
        }
        ticket.known.claim = None;
        self.give_back(ticket, item.version).await
    }

    async fn give_back(&self, ticket: Ticket, version: (i64, i64)) -> Result<(), Error> {
        let value = write(&ticket.known);
        let mut revision = Some(ticket.revision);
        // Somebody may have taken the claim over when it seemed to have no owner any more.
        while self.memory.put(&ticket.key, value.clone(), revision).await? == Put::Conflict {
            let found = self.memory.get(&ticket.key).await?;
            let newer = match &found {
                Some(found) => read(&found.value)?.sent.is_some_and(|sent| sent.version >= version),
                None => false,
            };
            if newer || ticket.known.sent.as_ref().is_none_or(|sent| sent.version != version) {
                return Ok(());
            }
            revision = found.map(|found| found.revision);
        }
        Ok(())
    }
}

fn read(value: &[u8]) -> Result<Known, Error> {
    serde_json::from_slice(value).map_err(|error| {
        Error::stop(
            "what was sent for a key cannot be read",
            "run the loaders of one version of Tributary",
        )
        .because(error)
    })
}

fn write(known: &Known) -> Vec<u8> {
    serde_json::to_vec(known).expect("texts and numbers can be written")
}

#[cfg(test)]
mod tests {
    use connect::LocalMemory;
    use model::Operation;
    use serde_json::json;

    use super::{super::item::tests::item, *};

    fn ledger(memory: &Arc<LocalMemory>, once: bool, idempotent: bool) -> Ledger {
        let rules = Rules { once, idempotent, keeps_values: true, lease: Duration::from_secs(60) };
        Ledger::new(Arc::clone(memory) as Arc<dyn Memory>, "p.t".to_owned(), rules)
    }

    async fn go(ledger: &Ledger, item: &Item) -> Ticket {
        match ledger.claim(item).await.unwrap() {
            Claimed::Go(ticket) => *ticket,
            _ => panic!("the record is to be sent"),
        }
    }

    #[tokio::test]
    async fn an_older_record_never_follows_a_newer_one() {
        let memory = Arc::default();
        let (ours, theirs) = (ledger(&memory, false, true), ledger(&memory, false, true));
        let mut newer = item(json!({"a": 2}), Operation::Upsert);
        newer.version = (2, 2);
        let older = item(json!({"a": 1}), Operation::Upsert);
        let ticket = go(&ours, &newer).await;
        assert!(matches!(ours.claim(&older).await.unwrap(), Claimed::Busy));
        assert!(matches!(theirs.claim(&older).await.unwrap(), Claimed::Busy));
        ours.confirm(ticket, &newer).await.unwrap();
        assert!(matches!(theirs.claim(&older).await.unwrap(), Claimed::Settled(false)));
        assert!(matches!(theirs.claim(&newer).await.unwrap(), Claimed::Settled(true)));
    }

    #[tokio::test]
    async fn the_same_values_again_need_no_call_but_hold_off_what_is_between() {
        let memory = Arc::default();
        let ledger = ledger(&memory, false, true);
        let first = item(json!({"a": 1}), Operation::Upsert);
        let ticket = go(&ledger, &first).await;
        ledger.confirm(ticket, &first).await.unwrap();
        let mut again = item(json!({"a": 1}), Operation::Upsert);
        again.version = (3, 3);
        assert!(matches!(ledger.claim(&again).await.unwrap(), Claimed::Settled(false)));
        let mut between = item(json!({"a": 2}), Operation::Upsert);
        between.version = (2, 2);
        assert!(matches!(ledger.claim(&between).await.unwrap(), Claimed::Settled(false)));
    }

    #[tokio::test]
    async fn a_call_that_was_interrupted_is_repeated_only_where_that_does_no_harm() {
        let fact = item(json!({"a": 1}), Operation::Upsert);
        let memory = Arc::default();
        drop(go(&ledger(&memory, false, true), &fact).await);
        assert!(matches!(ledger(&memory, false, true).claim(&fact).await.unwrap(), Claimed::Go(_)));

        let memory = Arc::default();
        let before = ledger(&memory, false, false);
        drop(go(&before, &fact).await);
        let after = ledger(&memory, false, false);
        // Its owner may still be calling.
        assert!(matches!(after.claim(&fact).await.unwrap(), Claimed::Busy));
        assert!(matches!(before.claim(&fact).await.unwrap(), Claimed::Unknown));
        assert!(matches!(after.claim(&fact).await.unwrap(), Claimed::Unknown));
        let decided = Item { run: "another".to_owned(), ..fact };
        assert!(matches!(after.claim(&decided).await.unwrap(), Claimed::Go(_)));
    }

    #[tokio::test]
    async fn once_means_once_per_key() {
        let memory = Arc::default();
        let ledger = ledger(&memory, true, true);
        let first = item(json!({"a": 1}), Operation::Upsert);
        let ticket = go(&ledger, &first).await;
        ledger.release(ticket, &first).await.unwrap();
        let ticket = go(&ledger, &first).await;
        ledger.confirm(ticket, &first).await.unwrap();
        let mut later = item(json!({"a": 2}), Operation::Upsert);
        (later.version, later.id) = ((9, 9), "f:9".to_owned());
        assert!(matches!(ledger.claim(&later).await.unwrap(), Claimed::Settled(false)));
    }
}
