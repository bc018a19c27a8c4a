//! Seals everything that is kept with the newest key, so that older keys are not needed any more.

use std::collections::BTreeSet;

use anyhow::Context;
use bus::{Bucket, Bus, OpenError, Renewal, SealKeys, Service, Stream, cursor_place, sealed_with};
use bytes::Bytes;
use store::{KeptRecord, Store};
use tokio_util::sync::CancellationToken;

use crate::{Config, sealing};

/// Records of the quarantine that are looked at together.
const PAGE: u32 = 200;

/// What [`reseal`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// Id of the newest key, which seals.
    pub key: String,
    /// Ids of the other keys in the folder that nothing is sealed with any more.
    pub removable: Vec<String>,
    /// What was looked at, in a stable order.
    pub kept: Vec<Kept>,
}

/// One place at which something is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What the place is called.
    pub place: String,
    /// What is left there goes by itself: a stream that is being worked off, or a run that ends.
    pub passes: bool,
    /// What sealing anew came to. Of a stream it tells what the oldest message is sealed with.
    pub renewal: Renewal,
}

impl Resealed {
    /// Tells whether nothing is sealed with another key than the newest. Damaged texts do not count.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.kept.iter().all(|kept| kept.renewal.left.is_empty())
    }

    /// Returns how many texts are damaged.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.kept.iter().map(|kept| kept.renewal.damaged).sum()
    }
}

/// Seals the values of the broker's buckets, what the quarantine holds of records, and cursors with the
/// newest key, those among the first two that are not sealed, and tells what else is kept under older
/// keys. Services may run meanwhile; repeating it goes on.
///
/// # Errors
///
/// When a setting is out of its limits, there are no keys, or database or broker cannot be used.
pub async fn reseal(config: Config, shutdown: &CancellationToken) -> anyhow::Result<Resealed> {
    config.validate().context("the settings of the scheduler are invalid")?;
    let address = config.database_address()?;
    let store = Store::open(&address, config.database_connections)
        .await
        .context("the database of the control plane cannot be used")?;
    let bus = Bus::connect(&config.bus.of_service(Service::Scheduler), shutdown).await?;
    let keys = bus.seal_keys().cloned().context(
        "there are no keys: name the folder of the services in `bus.seal_keys` of these settings",
    )?;
    let resealed = reseal_all(&bus, &store, &keys).await;
    bus.close().await;
    store.close().await;
    resealed
}

async fn reseal_all(bus: &Bus, store: &Store, keys: &SealKeys) -> anyhow::Result<Resealed> {
    // Read before anything is looked at: a key that arrives meanwhile changes nothing of the answer.
    let ids = keys.ids();
    let mut kept = Vec::new();
    let mut add = |place: String, passes, renewal| kept.push(Kept { place, passes, renewal });
    // A message that is not in a stream any more is in what is looked at after it.
    for stream in Stream::ALL {
        let mut renewal = Renewal::default();
        let id = bus.oldest_sealed_with(stream).await?;
        id.filter(|id| Some(id) != ids.last()).into_iter().for_each(|id| renewal.count_left(id));
        add(format!("stream {}", bus.names().stream(stream)), true, renewal);
    }
    for bucket in Bucket::ALL {
        let renewal = bus.renew(bucket, keys).await?;
        add(format!("bucket {}", bus.names().bucket(bucket)), false, renewal);
    }
    add("quarantine".to_owned(), false, quarantine(store, keys).await?);
    add("cursors".to_owned(), false, cursors(store, keys).await?);
    let mut runs = Renewal::default();
    for cursor in store.sealed_cursors_of_runs().await? {
        match sealed_with(cursor.as_bytes()) {
            Some(id) if Some(&id) == ids.last() => {}
            Some(id) => runs.count_left(id),
            None => runs.count(Err(OpenError::Damaged)),
        }
    }
    add("cursors of runs".to_owned(), true, runs);
    let needed: BTreeSet<&String> =
        kept.iter().flat_map(|kept| kept.renewal.left.keys()).chain(ids.last()).collect();
    let removable = ids.iter().filter(|id| !needed.contains(id)).cloned().collect();
    let key = ids.last().cloned().context("there is always a key")?;
    Ok(Resealed { key, removable, kept })
}

async fn quarantine(store: &Store, keys: &SealKeys) -> anyhow::Result<Renewal> {
    let mut renewal = Renewal::default();
    let mut after = i64::MIN;
    loop {
        let page = store.kept_records(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(renewal) };
        after = last.id;
        for record in page {
            match renewed(keys, record) {
                Ok(Some(record)) => {
                    store.replace_kept(record).await?;
                    renewal.count(Ok(true));
                }
                Ok(None) => {}
                Err(error) => renewal.count(Err(error)),
            }
        }
    }
}

/// Returns a record with everything sealed with the newest key; `None`: it is already.
fn renewed(keys: &SealKeys, mut record: KeptRecord) -> Result<Option<KeptRecord>, OpenError> {
    let place = sealing::place(&record.pipeline);
    let mut is_renewed = false;
    for text in [&mut record.contents, &mut record.raw].into_iter().flatten() {
        if let Some(renewed) = keys.renew(&place, &Bytes::from(text.clone()))? {
            *text = renewed.into();
            is_renewed = true;
        }
    }
    Ok(is_renewed.then_some(record))
}

async fn cursors(store: &Store, keys: &SealKeys) -> anyhow::Result<Renewal> {
    let mut renewal = Renewal::default();
    for found in store.sealed_cursors().await? {
        match keys.renew_text(&cursor_place(&found.pipeline), &found.cursor) {
            // What moved it meanwhile may have used the older key: it is counted as left, and
            // repeating goes on.
            Ok(Some(renewed)) if !store.replace_cursor(&found, &renewed).await? => {
                sealed_with(found.cursor.as_bytes())
                    .into_iter()
                    .for_each(|id| renewal.count_left(id));
            }
            Ok(renewed) => renewal.count(Ok(renewed.is_some())),
            Err(error) => renewal.count(Err(error)),
        }
    }
    Ok(renewal)
}
