//! Takes what the stages report into the database: a group of messages per transaction,
//! acknowledged after the commit.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bus::{Consumer, ConsumerOptions, Delivery, Queue};
use futures::future::join_all;
use model::Remedy;
use store::NewQuarantined;
use wire::{
    Message,
    ledger::{LedgerEntries, LedgerEntry},
};

use crate::{
    core::Scheduler,
    deliveries,
    error::chain,
    pushes,
    refused::{refused_records, unreadable_message},
    sealing,
    settling::ended,
};

/// Messages of one transaction.
const GROUP: usize = 64;
/// Bytes of the messages of one transaction; the last one may exceed it.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// How long a group waits for another message.
const GATHER: Duration = Duration::from_millis(3);
/// How long to wait before the database is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a message rests that the database refuses for another reason than being away.
const REST: Duration = Duration::from_secs(10);

/// Records ledger entries until shutdown.
pub(crate) async fn ledger(scheduler: Scheduler) -> anyhow::Result<()> {
    let mut consumer = scheduler.bus().consumer(ConsumerOptions::new(Queue::Ledger));
    let mut known = pushes::Known::default();
    while let Some(group) = next_group(&scheduler, &mut consumer).await {
        let begun = Instant::now();
        let mut entries: Vec<LedgerEntry> = Vec::new();
        let mut pushed = BTreeMap::new();
        for delivery in &group {
            let told = entries_of(delivery);
            if let Some(pipeline) = delivery.pipeline() {
                let unknown = told
                    .iter()
                    .filter_map(|entry| known.unknown(&pipeline, &entry.run, entry.push.as_ref()?));
                pushed.extend(unknown.map(|(pipeline, run, push)| (run, (pipeline, push))));
            }
            entries.extend(told);
        }
        let opened = retried(&scheduler, "runs of pushes", || async {
            for (run, (pipeline, push)) in &pushed {
                pushes::open(&scheduler, pipeline, *run, push).await?;
            }
            Ok(())
        })
        .await;
        match opened {
            Outcome::Done(()) => known.insert(pushed.into_keys()),
            Outcome::Refused => {
                give_back(group).await;
                continue;
            }
            Outcome::Shutdown => return Ok(()),
        }
        let number = entries.len() as u64;
        let recorded = retried(&scheduler, "ledger entries", || {
            scheduler.store().record(entries.clone(), scheduler.now())
        })
        .await;
        match recorded {
            Outcome::Done(recorded) => {
                runtime::fault::point("scheduler.recorded");
                acknowledge(group).await;
                scheduler.metrics().recorded(number, begun.elapsed());
                if recorded.unknown > 0 {
                    let entries = recorded.unknown;
                    tracing::warn!(
                        entries,
                        "ledger entries of runs that nobody knows are left out"
                    );
                }
                scheduler.fall_behind(recorded.changed);
                for run in recorded.stopped {
                    match scheduler.store().run(run).await {
                        Ok(run) => ended(&scheduler, &run).await,
                        Err(error) => tracing::warn!(error = chain(&error), "a run cannot be read"),
                    }
                }
            }
            Outcome::Refused => give_back(group).await,
            Outcome::Shutdown => return Ok(()),
        }
    }
    Ok(())
}

/// Keeps refused records until shutdown.
pub(crate) async fn quarantine(scheduler: Scheduler) -> anyhow::Result<()> {
    let mut consumer = scheduler.bus().consumer(ConsumerOptions::new(Queue::Quarantine));
    while let Some(group) = next_group(&scheduler, &mut consumer).await {
        let mut records: Vec<NewQuarantined> = group.iter().flat_map(records_of).collect();
        deliveries::plan(&scheduler, &mut records).await;
        if let Err(error) = sealing::seal(&scheduler, &mut records).await {
            tracing::warn!(error = chain(&error), "refused records cannot be sealed yet");
            give_back(group).await;
            continue;
        }
        let kept = retried(&scheduler, "refused records", || {
            scheduler.store().quarantine(records.clone(), scheduler.now())
        })
        .await;
        match kept {
            Outcome::Done(_) => {
                runtime::fault::point("scheduler.quarantined");
                acknowledge(group).await;
                for record in &records {
                    let NewQuarantined { pipeline, stage, code, .. } = record;
                    scheduler.metrics().quarantined(pipeline.as_str(), stage, code);
                }
            }
            Outcome::Refused => give_back(group).await,
            Outcome::Shutdown => return Ok(()),
        }
    }
    Ok(())
}

/// Waits for a message and takes those that are there already along. `None` on shutdown.
async fn next_group(scheduler: &Scheduler, consumer: &mut Consumer) -> Option<Vec<Delivery>> {
    let first = consumer.next(scheduler.shutdown()).await?;
    let mut bytes = first.damaged_payload().len();
    let mut group = vec![first];
    while group.len() < GROUP && bytes < GROUP_BYTES {
        match tokio::time::timeout(GATHER, consumer.next(scheduler.shutdown())).await {
            Ok(Some(delivery)) => {
                bytes += delivery.damaged_payload().len();
                group.push(delivery);
            }
            Ok(None) | Err(_) => break,
        }
    }
    Some(group)
}

/// The entries of a message. One that cannot be read is left out: the books then do not balance,
/// nothing moves, and what it told of is done again.
fn entries_of(delivery: &Delivery) -> Vec<LedgerEntry> {
    let decoded = delivery
        .payload()
        .map_err(|error| chain(&error))
        .and_then(|payload| LedgerEntries::decode(payload).map_err(|error| chain(&error)));
    match decoded {
        Ok(entries) => entries.entries,
        Err(error) => {
            tracing::error!(error, "a ledger message cannot be read and is left out");
            Vec::new()
        }
    }
}

fn records_of(delivery: &Delivery) -> Vec<NewQuarantined> {
    let decoded = delivery
        .payload()
        .map_err(|error| chain(&error))
        .and_then(|payload| wire::decode_quarantined(payload).map_err(|error| chain(&error)));
    let Some(pipeline) = delivery.pipeline() else {
        tracing::error!("a quarantine message of no pipeline is left out");
        return Vec::new();
    };
    match decoded {
        Ok(quarantined) => refused_records(&pipeline, quarantined),
        Err(error) => {
            tracing::warn!(error, "a quarantine message cannot be read and is kept as it is");
            vec![unreadable_message(pipeline, &delivery.damaged_payload(), &error)]
        }
    }
}

enum Outcome<T> {
    Done(T),
    /// Trying again at once would not help.
    Refused,
    Shutdown,
}

/// Does something with the database, however long that is away.
async fn retried<T, F>(
    scheduler: &Scheduler,
    what: &'static str,
    attempt: impl Fn() -> F,
) -> Outcome<T>
where
    F: Future<Output = Result<T, store::Error>>,
{
    loop {
        let error = match attempt().await {
            Ok(value) => return Outcome::Done(value),
            Err(error) => error,
        };
        match error.remedy() {
            Remedy::Retry { .. } => {
                tracing::warn!(error = chain(&error), "{what} cannot be stored yet, trying again");
            }
            Remedy::Quarantine | Remedy::Stop => {
                tracing::error!(error = chain(&error), "the database refuses {what}");
                return Outcome::Refused;
            }
        }
        tokio::select! {
            () = scheduler.shutdown().cancelled() => return Outcome::Shutdown,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn acknowledge(group: Vec<Delivery>) {
    for outcome in join_all(group.into_iter().map(Delivery::ack)).await {
        if let Err(error) = outcome {
            tracing::debug!(%error, "a message will come again, which is harmless");
        }
    }
}

async fn give_back(group: Vec<Delivery>) {
    join_all(group.into_iter().map(|delivery| delivery.nak(REST))).await;
}
