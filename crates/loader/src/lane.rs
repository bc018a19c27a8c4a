use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow_array::BooleanArray;
use connect::{Target, Written};
use futures::future::join_all;
use model::{Batch, PipelineName, Remedy, RunId};
use stage::{Failure, Turn, Unreadable};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use wire::{
    Quarantined, Reason,
    ledger::{LedgerEntry, RunStopped, ledger_entry::Event},
};

use crate::{
    Config,
    group::Group,
    metrics::{Loaded, Metrics},
    patience::Patience,
    receipt::{self, Pile, Receipt, acknowledge},
    service::Service,
};

/// Revisions whose targets stay open.
const OPEN_REVISIONS: usize = 2;

/// Stopped runs that are remembered.
const STOPPED_RUNS: usize = 32;

/// Failures of a group after which its batches are written one by one.
const GROUP_FAILURES: u32 = 2;

/// A target with the state of the secret files that it was built with.
type Opened = (u64, Arc<dyn Target>);

/// Everything that is written to one target of one pipeline.
pub(crate) struct Lane {
    service: Arc<Service>,
    pipeline: PipelineName,
    name: PipelineName,
    metrics: Metrics,
    targets: tokio::sync::Mutex<BTreeMap<u32, Opened>>,
    /// Runs that this target has stopped, with their attempt, oldest first.
    stopped: Mutex<VecDeque<(RunId, u32)>>,
    ending: CancellationToken,
}

impl Lane {
    pub(crate) fn new(
        service: Arc<Service>,
        pipeline: PipelineName,
        name: PipelineName,
        ending: CancellationToken,
    ) -> Self {
        Self {
            metrics: Metrics::new(pipeline.as_str(), name.as_str()),
            service,
            pipeline,
            name,
            targets: tokio::sync::Mutex::default(),
            stopped: Mutex::default(),
            ending,
        }
    }

    /// Writes a group and answers its messages. What is not answered for is delivered again.
    pub(crate) async fn load(&self, group: Group, turn: Turn) {
        runtime::fault::point("loader.received");
        let span = tracing::info_span!(
            "group",
            stage = "loader",
            pipeline = %self.pipeline,
            target = %self.name,
        );
        async {
            match self.try_load(group, &turn).await {
                Ok(()) | Err(Failure::Shutdown) => {}
                Err(Failure::Later { reason, .. } | Failure::Stop { reason, .. }) => {
                    tracing::warn!(reason, "batches are given back");
                }
            }
        }
        .instrument(span)
        .await;
    }

    async fn try_load(&self, group: Group, turn: &Turn) -> Result<(), Failure> {
        let read = tokio::task::spawn_blocking(move || {
            let deliveries = group.deliveries.into_iter();
            deliveries.map(|delivery| (stage::read_batch(&delivery), delivery)).collect::<Vec<_>>()
        });
        let mut revisions: BTreeMap<u32, Pile> = BTreeMap::new();
        for (batch, delivery) in read.await.map_err(|_| Failure::Shutdown)? {
            match batch {
                Ok(batch) if self.is_stopped(&batch) => acknowledge(delivery).await,
                Ok(batch) => {
                    let pile = revisions.entry(batch.header.revision).or_default();
                    pile.receipts.push(Receipt::new(delivery, &batch, self.name.as_str()));
                    pile.batches.push(batch);
                }
                Err(error) => self.set_aside(delivery, &error).await?,
            }
        }
        if revisions
            .values()
            .flat_map(|pile| &pile.batches)
            .any(|batch| batch.records.are_partial())
        {
            turn.first().await;
        }
        for (revision, pile) in revisions {
            match self.target(revision).await {
                Ok(target) => self.write(target.as_ref(), pile).await?,
                Err(Failure::Stop { reason, hint }) => self.stop(pile, &reason, &hint).await?,
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    async fn set_aside(&self, delivery: bus::Delivery, error: &Unreadable) -> Result<(), Failure> {
        let (bus, target) = (&self.service.bus, self.name.as_str());
        let code = error.set_aside(bus, &self.pipeline, "loader", target, &delivery).await?;
        self.metrics.refused(code, 1);
        acknowledge(delivery).await;
        Ok(())
    }

    /// Returns the target as a revision declares it, built anew when a secret has changed.
    pub(crate) async fn target(&self, revision: u32) -> Result<Arc<dyn Target>, Failure> {
        let pipelines = &self.service.pipelines;
        let stored = pipelines.get(&self.pipeline, revision, &self.ending).await?;
        let secrets = stored.secrets_state();
        let mut targets = self.targets.lock().await;
        if let Some((state, target)) = targets.get(&revision)
            && *state == secrets
        {
            return Ok(Arc::clone(target));
        }
        let target =
            self.service.target(&self.pipeline, revision, &self.name, &self.ending).await?;
        targets.insert(revision, (secrets, Arc::clone(&target)));
        while targets.len() > OPEN_REVISIONS {
            targets.pop_first();
        }
        Ok(target)
    }

    /// Returns the field that tells which of two records is newer, by a revision.
    async fn newest_by(&self, revision: u32) -> Result<Option<String>, Failure> {
        let pipelines = &self.service.pipelines;
        let stored = pipelines.get(&self.pipeline, revision, &self.ending).await?;
        Ok(stored.pipeline()?.newest_by.clone())
    }

    /// Writes a pile, together as long as that works.
    async fn write(&self, target: &dyn Target, mut pile: Pile) -> Result<(), Failure> {
        let mut patience = Patience::new(target, self.service.config.retry, &self.ending);
        let mut failures = 0;
        let mut alone = false;
        while !pile.batches.is_empty() {
            let count = if alone { 1 } else { pile.batches.len() };
            let error = match self.call(target, &pile.batches[..count]).await? {
                Ok(written) => {
                    runtime::fault::point("loader.written");
                    patience.reset();
                    self.settle(pile.take(count), written).await?;
                    continue;
                }
                Err(error) => error,
            };
            match error.remedy {
                Remedy::Retry { after } => {
                    self.metrics.retried();
                    failures += 1;
                    alone = alone || failures >= GROUP_FAILURES;
                    if alone {
                        pile.rotate();
                    }
                    patience.wait(&error, after).await?;
                }
                Remedy::Quarantine | Remedy::Stop if count > 1 => alone = true,
                Remedy::Quarantine => self.refuse(pile.take(1), &error).await?,
                Remedy::Stop => self.stop(pile.take(1), &error.chain(), &error.hint).await?,
            }
        }
        Ok(())
    }

    /// Calls the target. A call without an answer may have happened, and is repeated all the same:
    /// ids, keys and versions make that harmless. One that goes on when the end comes has a little
    /// time left.
    async fn call(
        &self,
        target: &dyn Target,
        batches: &[Batch],
    ) -> Result<Result<Vec<Written>, connect::Error>, Failure> {
        let Config { write_timeout, shutdown_grace, .. } = self.service.config;
        let span = tracing::info_span!("write", batches = batches.len());
        let limit = if target.bounds_itself() { Duration::MAX } else { write_timeout };
        let write = timeout(limit, target.write(batches).instrument(span));
        tokio::select! {
            written = write => Ok(written.unwrap_or_else(|_| {
                let what = format!("a write was not answered in {}s", write_timeout.as_secs());
                Err(connect::Error::retry(what, "look for locks in the target"))
            })),
            () = async {
                self.ending.cancelled().await;
                tokio::time::sleep(shutdown_grace).await;
            } => Err(Failure::Shutdown),
        }
    }

    /// Quarantines what the target refused, enters the batches in the ledger, acknowledges them.
    async fn settle(&self, pile: Pile, written: Vec<Written>) -> Result<(), Failure> {
        let newest_by = match pile.batches.first() {
            Some(batch) => self.newest_by(batch.header.revision).await?,
            None => None,
        };
        let mut entries = Vec::with_capacity(written.len());
        let mut counts = Vec::with_capacity(written.len());
        for ((batch, receipt), written) in pile.batches.iter().zip(&pile.receipts).zip(written) {
            let reasons: Vec<(usize, Reason)> =
                written.refused.into_iter().map(|refused| reason(batch, refused)).collect();
            let quarantined = u32::try_from(reasons.len()).unwrap_or(u32::MAX);
            self.quarantine(batch, reasons).instrument(receipt.span.clone()).await?;
            let numbers = (written.loaded, written.unchanged, quarantined);
            let ages = receipt::ages(batch, newest_by.as_deref(), written.loaded);
            entries.push(receipt::loaded(&batch.header, self.name.as_str(), numbers, &ages));
            counts.push(numbers);
        }
        self.service.ledger.record(&self.pipeline, entries).await?;
        runtime::fault::point("loader.ledgered");
        for ((batch, receipt), (loaded, unchanged, quarantined)) in
            pile.batches.iter().zip(&pile.receipts).zip(counts)
        {
            self.metrics.loaded(Loaded {
                loaded,
                unchanged,
                quarantined,
                bytes: receipt.bytes as u64,
                taken: receipt.received_at.elapsed(),
                lag: receipt::lag(batch),
            });
        }
        join_all(pile.receipts.into_iter().map(Receipt::acknowledge)).await;
        runtime::fault::point("loader.acked");
        Ok(())
    }

    /// Publishes refused records; the reasons are sorted by the index of their record.
    async fn quarantine(
        &self,
        batch: &Batch,
        reasons: Vec<(usize, Reason)>,
    ) -> Result<(), Failure> {
        if reasons.is_empty() {
            return Ok(());
        }
        let mut mask = vec![false; batch.records.len()];
        for (index, reason) in &reasons {
            mask[*index] = true;
            self.metrics.refused(&reason.code, 1);
        }
        let records = batch
            .records
            .filter(&BooleanArray::from(mask))
            .expect("the mask has one entry per record");
        let refused = Quarantined {
            header: Some(batch.header.clone()),
            records: Some(records),
            reasons: reasons.into_iter().map(|(_, reason)| reason).collect(),
            stage: "loader".to_owned(),
            target: self.name.to_string(),
        };
        Ok(stage::quarantine(&self.service.bus, &self.pipeline, refused).await?)
    }

    /// Sets aside all records of a batch that the target refused as a whole.
    async fn refuse(&self, pile: Pile, error: &connect::Error) -> Result<(), Failure> {
        let all = |batch: &Batch| Written {
            refused: (0..batch.records.len())
                .map(|index| connect::Refused {
                    index,
                    code: "target",
                    message: error.chain(),
                    field: String::new(),
                })
                .collect(),
            ..Written::default()
        };
        let written = pile.batches.iter().map(all).collect();
        self.settle(pile, written).await
    }

    /// Stops the runs of batches.
    ///
    /// They are acknowledged though they are not loaded. The run fails, and the loaded cursor stays
    /// before the first batch that is not in the ledger as loaded, so the next run extracts that
    /// range again. Kept in the queue they would be tried again and again before any later run.
    ///
    /// What was pushed cannot be extracted again, so it is set aside.
    async fn stop(&self, pile: Pile, reason: &str, hint: &str) -> Result<(), Failure> {
        let (pushed, pile) = pile.split(|batch| batch.header.push.is_some());
        if !pushed.batches.is_empty() {
            tracing::error!(target = %self.name, reason, hint, "pushed records are set aside");
            let error = connect::Error::stop(format!("{reason}; {hint}"), hint);
            self.refuse(pushed, &error).await?;
        }
        let mut entries = Vec::new();
        for batch in &pile.batches {
            if self.is_stopped(batch) {
                continue;
            }
            let (run, attempt) = (batch.header.run, batch.header.attempt);
            tracing::error!(run.id = %run, target = %self.name, reason, hint, "the run stops");
            let stopped = RunStopped {
                stage: "loader".to_owned(),
                reason: format!("target `{}`: {reason}", self.name),
                hint: hint.to_owned(),
            };
            let event = Some(Event::RunStopped(stopped));
            entries.push(LedgerEntry {
                run: run.to_string(),
                attempt,
                event,
                push: wire::push_run(&batch.header),
            });
            let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
            stopped.push_back((run, attempt));
            if stopped.len() > STOPPED_RUNS {
                stopped.pop_front();
            }
        }
        if !entries.is_empty() {
            self.service.ledger.record(&self.pipeline, entries).await?;
        }
        join_all(pile.receipts.into_iter().map(Receipt::acknowledge)).await;
        Ok(())
    }

    fn is_stopped(&self, batch: &Batch) -> bool {
        let run = (batch.header.run, batch.header.attempt);
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).contains(&run)
    }
}

fn reason(batch: &Batch, refused: connect::Refused) -> (usize, Reason) {
    let reason = Reason {
        record: batch.records.id(refused.index),
        code: refused.code.to_owned(),
        message: refused.message,
        field: refused.field,
        ..Reason::default()
    };
    (refused.index, reason)
}
