use std::collections::HashMap;

use bytes::Bytes;
use futures::future::join_all;
use model::PipelineName;
use tokio::sync::{mpsc, oneshot};
use wire::{
    Message,
    ledger::{LedgerEntries, LedgerEntry},
};

use crate::{Bus, Outgoing, PublishError};

/// Size in bytes above which entries go into another message.
const MAX_MESSAGE: usize = 256 * 1024;

/// Callers that may wait to hand over entries before a further one has to wait for its turn.
const QUEUE: usize = 256;

/// Writes ledger entries. Cheap to clone. Its task ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct LedgerWriter {
    queue: mpsc::Sender<Recording>,
}

#[derive(Debug)]
struct Recording {
    pipeline: PipelineName,
    entries: Vec<LedgerEntry>,
    done: oneshot::Sender<Result<(), PublishError>>,
}

/// Entries of one pipeline that travel in one message, and who waits for it.
#[derive(Default)]
struct Group {
    entries: Vec<LedgerEntry>,
    size: usize,
    waiting: Vec<oneshot::Sender<Result<(), PublishError>>>,
}

impl LedgerWriter {
    /// Starts the task that writes.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        let (queue, recordings) = mpsc::channel(QUEUE);
        tokio::spawn(write(bus.clone(), recordings));
        Self { queue }
    }

    /// Records what a stage did and returns when JetStream has acknowledged it. Recording an entry
    /// twice is harmless.
    ///
    /// # Errors
    ///
    /// As [`Bus::publish`].
    pub async fn record(
        &self,
        pipeline: &PipelineName,
        entries: Vec<LedgerEntry>,
    ) -> Result<(), PublishError> {
        let (done, result) = oneshot::channel();
        let recording = Recording { pipeline: pipeline.clone(), entries, done };
        self.queue.send(recording).await.map_err(|_| PublishError::Cancelled)?;
        result.await.unwrap_or(Err(PublishError::Cancelled))
    }
}

async fn write(bus: Bus, mut recordings: mpsc::Receiver<Recording>) {
    let mut taken = Vec::new();
    // What is queued while a publish is in flight goes out together with the next one.
    while recordings.recv_many(&mut taken, QUEUE).await > 0 {
        let publishes = group(taken.drain(..)).into_iter().map(|(pipeline, group)| {
            let bus = &bus;
            async move {
                let entries = LedgerEntries { entries: group.entries };
                let subject = bus.names().ledger(&pipeline);
                let payload = Bytes::from(entries.encode_to_vec());
                let result = bus.publish(Outgoing::new(subject, payload)).await;
                for waiting in group.waiting {
                    // A caller that is gone needs no answer.
                    drop(waiting.send(copy(&result)));
                }
            }
        });
        join_all(publishes).await;
    }
}

/// Groups entries into messages, in order.
fn group(recordings: impl Iterator<Item = Recording>) -> Vec<(PipelineName, Group)> {
    let mut finished = Vec::new();
    let mut open: HashMap<PipelineName, Group> = HashMap::new();
    for Recording { pipeline, entries, done } in recordings {
        let size: usize = entries.iter().map(|entry| entry.encoded_len() + 8).sum();
        let group = open.entry(pipeline.clone()).or_default();
        if !group.entries.is_empty() && group.size + size > MAX_MESSAGE {
            finished.push((pipeline, std::mem::take(group)));
        }
        group.size += size;
        group.entries.extend(entries);
        group.waiting.push(done);
    }
    finished.extend(open);
    finished
}

/// Gives the result of one publish to each who waits for it.
fn copy(result: &Result<(), PublishError>) -> Result<(), PublishError> {
    match result {
        Ok(()) => Ok(()),
        Err(PublishError::TooLarge { size }) => Err(PublishError::TooLarge { size: *size }),
        Err(PublishError::NotAcknowledged { subject, patience, cause }) => {
            Err(PublishError::NotAcknowledged {
                subject: subject.clone(),
                patience: *patience,
                cause: cause.to_string().into(),
            })
        }
        Err(PublishError::Cancelled) => Err(PublishError::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(pipeline: &str, reason: &str) -> Recording {
        let stopped = wire::ledger::RunStopped { reason: reason.into(), ..Default::default() };
        let event = Some(wire::ledger::ledger_entry::Event::RunStopped(stopped));
        Recording {
            pipeline: pipeline.parse().unwrap(),
            entries: vec![LedgerEntry { event, ..LedgerEntry::default() }],
            done: oneshot::channel().0,
        }
    }

    #[test]
    fn entries_share_a_message_until_it_is_full() {
        let long = "x".repeat(MAX_MESSAGE / 2);
        let recordings = [
            recording("a", "1"),
            recording("b", "2"),
            recording("a", "3"),
            recording("a", &long),
            recording("a", &long),
        ];
        let mut messages: Vec<_> = group(recordings.into_iter())
            .into_iter()
            .map(|(pipeline, group)| (pipeline.to_string(), group.entries.len()))
            .collect();
        messages.sort();
        assert_eq!(messages, [("a".into(), 1), ("a".into(), 3), ("b".into(), 1)]);
    }
}
