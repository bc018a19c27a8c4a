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

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::Utc;
use connect::{Error, Memory, Put};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use spec::{Delivered, delivered_key};
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
    /// What was delivered can be sent again.
    pub(crate) keeps_delivered: bool,
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
    /// Somebody has asked for what was delivered to be sent again; what had been told before it.
    again: Option<Before>,
    key: String,
    revision: u64,
    _place: KeyPlace,
}

/// What a receiver had been told; `None`: nothing.
type Before = Option<Map<String, Value>>;

impl Ticket {
    /// Returns what the receiver had been told when it was told of the record first.
    pub(crate) fn told_before(&self) -> Option<&Map<String, Value>> {
        match &self.again {
            Some(before) => before.as_ref(),
            None => self.known.values(),
        }
    }
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

    /// Remembers the values of every record from now on, and the records themselves if they are to
    /// be sent again.
    pub(crate) fn keep(&mut self, delivered: bool) {
        self.rules.keeps_values = true;
        self.rules.keeps_delivered = delivered;
    }

    /// Tells whether records are kept once they are delivered.
    pub(crate) fn keeps_delivered(&self) -> bool {
        self.rules.keeps_delivered
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
            let mut again = None;
            if let Some(sent) = &mut known.sent {
                if self.rules.once || sent.version >= item.version {
                    let is_last = sent.record == item.id && sent.version == item.version;
                    if is_last && sent.run != item.run {
                        again = self.asked_again(item).await?;
                    }
                    if again.is_none() {
                        let same = sent.record == item.id && sent.run == item.run;
                        return Ok(Claimed::Settled(same));
                    }
                }
                let same = sent.content == item.content || (sent.gone && item.is_gone());
                if same && again.is_none() && known.claim.is_none() {
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
                let ticket = Ticket { known, again, key, revision, _place: place };
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
        let delivered = item.message.as_ref().map(|message| {
            let before = ticket.told_before().map(|before| {
                let of_record = |name: &String| item.is_gone() || item.values.contains_key(name);
                let told = before.iter().filter(|(name, _)| of_record(name));
                told.map(|(name, value)| (name.clone(), value.clone())).collect()
            });
            Delivered {
                at_ms: Utc::now().timestamp_millis(),
                key: item.key_text.clone(),
                record: item.id.clone(),
                version: item.version,
                message: BASE64_STANDARD.encode(message),
                before,
                again: false,
            }
        });
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
        self.give_back(ticket, item.version).await?;
        match delivered {
            Some(delivered) => self.keep_delivered(&item.key, delivered).await,
            None => Ok(()),
        }
    }

    /// Remembers what was delivered last for a key. What was delivered later by somebody else stays.
    async fn keep_delivered(&self, key: &str, delivered: Delivered) -> Result<(), Error> {
        let key = self.delivered_key(key);
        let value = serde_json::to_vec(&delivered).expect("texts and numbers can be written");
        loop {
            let found = self.memory.get(&key).await?;
            if let Some(found) = &found
                && let Ok(known) = serde_json::from_slice::<Delivered>(&found.value)
                && known.version > delivered.version
            {
                return Ok(());
            }
            let revision = found.map(|found| found.revision);
            if let Put::Stored(_) = self.memory.put(&key, value.clone(), revision).await? {
                return Ok(());
            }
        }
    }

    /// Tells whether somebody has asked for the record to be sent again, though it was delivered.
    async fn asked_again(&self, item: &Item) -> Result<Option<Before>, Error> {
        if !self.rules.keeps_delivered {
            return Ok(None);
        }
        let Some(found) = self.memory.get(&self.delivered_key(&item.key)).await? else {
            return Ok(None);
        };
        let known = serde_json::from_slice::<Delivered>(&found.value).ok();
        let is_meant = |known: &Delivered| {
            known.again && known.record == item.id && known.version == item.version
        };
        Ok(known.filter(is_meant).map(|known| known.before))
    }

    fn delivered_key(&self, key: &str) -> String {
        let (pipeline, target) = self.scope.split_once('.').unwrap_or((&self.scope, ""));
        delivered_key(pipeline, target, key)
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
            let known = found.as_ref().map(|found| read(&found.value)).transpose()?;
            let known = known.unwrap_or_default();
            // It was written anew, and says the same.
            let is_held = known.claim.is_some_and(|claim| claim.holder == self.holder);
            let newer = known.sent.is_some_and(|sent| sent.version >= version);
            let tells = ticket.known.sent.as_ref().is_some_and(|sent| sent.version == version);
            if !is_held && (newer || !tells) {
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
        let rules = Rules {
            once,
            idempotent,
            keeps_values: true,
            keeps_delivered: true,
            lease: Duration::from_secs(60),
        };
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
    async fn what_was_delivered_is_sent_again_when_asked_for_and_not_after_a_newer_one() {
        let memory: Arc<LocalMemory> = Arc::default();
        let ledger = ledger(&memory, false, true);
        let mut first = item(json!({"a": 1, "b": 5}), Operation::Upsert);
        first.message = Some(b"first".as_slice().into());
        let ticket = go(&ledger, &first).await;
        ledger.confirm(ticket, &first).await.unwrap();
        let mut second = item(json!({"a": 2}), Operation::Upsert);
        second.message = Some(b"second".as_slice().into());
        (second.version, second.id) = ((2, 2), "f:2".to_owned());
        let ticket = go(&ledger, &second).await;
        ledger.confirm(ticket, &second).await.unwrap();
        let replayed = |of: &Item| Item { run: "replay".to_owned(), ..of.clone() };
        let claim = ledger.claim(&replayed(&second)).await.unwrap();
        assert!(matches!(claim, Claimed::Settled(false)), "nobody has asked for it");

        let key = ledger.delivered_key(&second.key);
        let kept = memory.get(&key).await.unwrap().unwrap();
        let mut delivered: Delivered = serde_json::from_slice(&kept.value).unwrap();
        assert_eq!(BASE64_STANDARD.decode(&delivered.message).unwrap(), b"second");
        delivered.again = true;
        let value = serde_json::to_vec(&delivered).unwrap();
        memory.put(&key, value, Some(kept.revision)).await.unwrap();
        assert!(matches!(ledger.claim(&replayed(&first)).await.unwrap(), Claimed::Settled(false)));
        let ticket = go(&ledger, &replayed(&second)).await;
        let before = Value::Object(ticket.told_before().unwrap().clone());
        assert_eq!(before, json!({"a": 1}), "as it was told the first time");
        ledger.release(ticket, &second).await.unwrap();
        let ticket = go(&ledger, &replayed(&second)).await;
        ledger.confirm(ticket, &replayed(&second)).await.unwrap();
        let claim = ledger.claim(&Item { run: "later".to_owned(), ..second }).await.unwrap();
        assert!(matches!(claim, Claimed::Settled(false)), "it was asked for once");
        let known = memory.get("p.t.k").await.unwrap().unwrap();
        let values = read(&known.value).unwrap().sent.unwrap().values.unwrap();
        assert_eq!(Value::Object(values), json!({"a": 2, "b": 5}));
    }

    #[tokio::test]
    async fn a_claim_that_was_written_anew_is_given_back_all_the_same() {
        let memory: Arc<LocalMemory> = Arc::default();
        let ledger = ledger(&memory, false, false);
        let fact = item(json!({"a": 1}), Operation::Upsert);
        for confirms in [false, true] {
            let ticket = go(&ledger, &fact).await;
            let kept = memory.get("p.t.k").await.unwrap().unwrap();
            memory.put("p.t.k", kept.value, Some(kept.revision)).await.unwrap();
            if confirms {
                ledger.confirm(ticket, &fact).await.unwrap();
            } else {
                ledger.release(ticket, &fact).await.unwrap();
            }
            let known = memory.get("p.t.k").await.unwrap().unwrap();
            assert!(read(&known.value).unwrap().claim.is_none(), "confirmed: {confirms}");
        }
        assert!(matches!(ledger.claim(&fact).await.unwrap(), Claimed::Settled(true)));
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
