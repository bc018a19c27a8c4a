//! The batches of one pipeline: received, transformed, published, entered in the ledger, answered.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arrow_array::BooleanArray;
use bus::{Bus, Delivery, LedgerWriter, MAX_PAYLOAD, Outgoing};
use bytes::Bytes;
use futures::future::try_join_all;
use model::{Batch, BatchHeader, PipelineName, Records, RunId};
use stage::{Failure, Pipelines, Turn, Unreadable};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::{
    Quarantined, Reason,
    ledger::{BatchTransformed, LedgerEntry, Noted, RunStopped, ledger_entry::Event},
};

use super::{
    fitting,
    metrics::{Metrics, Transformed},
    programs::{Compiled, Programs},
};
use crate::Refused;

/// Notes that are remembered as told already.
const TOLD_NOTES: usize = 1_000;

/// Does the work of one pipeline.
pub(crate) struct Worker {
    bus: Bus,
    ledger: LedgerWriter,
    pipeline: PipelineName,
    programs: Programs,
    metrics: Metrics,
    told: Mutex<HashSet<(RunId, String)>>,
}

/// A batch after its program, encoded.
struct Prepared {
    header: BatchHeader,
    /// What goes to every target; `None` where no record is left.
    message: Option<Bytes>,
    passed: u32,
    filtered: u32,
    quarantined: Option<Quarantined>,
    notes: Vec<String>,
    stop: Option<crate::Stop>,
}

impl Worker {
    pub(crate) fn new(
        bus: Bus,
        ledger: LedgerWriter,
        pipeline: PipelineName,
        pipelines: Pipelines,
    ) -> Self {
        Self {
            metrics: Metrics::new(pipeline.as_str()),
            programs: Programs::new(pipeline.clone(), pipelines),
            bus,
            ledger,
            pipeline,
            told: Mutex::default(),
        }
    }

    /// Transforms the batch of one message and answers the message.
    pub(crate) async fn take(&self, delivery: Delivery, turn: &Turn, ending: &CancellationToken) {
        runtime::fault::point("transformer.received");
        match self.transform(&delivery, turn, ending).await {
            Ok(()) => {
                if let Err(error) = delivery.ack().await {
                    tracing::warn!(%error, "a message may be delivered again");
                }
                runtime::fault::point("transformer.acked");
            }
            Err(Failure::Later { reason, delay }) => {
                let delay_ms = delay.as_millis();
                tracing::warn!(reason, delay_ms, "a batch is given back");
                delivery.nak(delay).await;
            }
            // Dropped unanswered, the message is delivered again.
            Err(Failure::Shutdown | Failure::Stop { .. }) => {}
        }
    }

    async fn transform(
        &self,
        delivery: &Delivery,
        turn: &Turn,
        ending: &CancellationToken,
    ) -> Result<(), Failure> {
        let received_at = Instant::now();
        let batch = match stage::read_batch(delivery) {
            Ok(batch) => batch,
            Err(error) => return self.set_aside(delivery, &error).await,
        };
        let header = batch.header.clone();
        let span = tracing::info_span!(
            "batch",
            stage = "transformer",
            pipeline = %header.pipeline,
            run.id = %header.run,
            batch.id = %header.batch,
            records = batch.records.len(),
        );
        if let Err(error) = span.set_parent(delivery.context()) {
            tracing::trace!(%error, "the span has no parent");
        }
        let bytes = delivery.damaged_payload().len() as u64;
        // Sharing the columns costs little.
        let pushed = header.push.map(|_| batch.clone());
        let done = self.pass_on(batch, (bytes, received_at), turn, ending).instrument(span).await;
        match done {
            Err(Failure::Stop { reason, hint }) if pushed.is_some() => {
                self.refuse(pushed, &format!("{reason}; {hint}")).await
            }
            // The run fails and its loaded cursor stays before this batch, so the next run extracts
            // it again. Kept in the queue it would be tried again and again before any later run.
            Err(Failure::Stop { reason, hint }) => {
                tracing::error!(run.id = %header.run, reason, hint, "the run stops");
                let stopped = RunStopped { stage: "transformer".to_owned(), reason, hint };
                self.record(&header, vec![Event::RunStopped(stopped)]).await
            }
            done => done,
        }
    }

    async fn pass_on(
        &self,
        batch: Batch,
        (bytes, received_at): (u64, Instant),
        turn: &Turn,
        ending: &CancellationToken,
    ) -> Result<(), Failure> {
        let compiled = self.programs.get(batch.header.revision, ending).await?;
        let carried = count(batch.records.len());
        let partial = batch.records.are_partial();
        let prepared = {
            let (compiled, span) = (Arc::clone(&compiled), Span::current());
            tokio::task::spawn_blocking(move || span.in_scope(|| prepare(&compiled, batch)))
                .await
                .map_err(|error| Failure::Stop {
                reason: format!("a batch cannot be transformed: {error}"),
                hint: "report it with the transformer's log".to_owned(),
            })?
        };
        if let Some(crate::Stop { reason, hint }) = prepared.stop {
            return Err(Failure::Stop { reason, hint });
        }
        if partial {
            turn.first().await;
        }
        self.publish(&compiled, &prepared).await?;
        let quarantined = prepared.quarantined.as_ref().map_or(0, |refused| refused.reasons.len());
        let quarantined = u32::try_from(quarantined).unwrap_or(u32::MAX);
        for refused in prepared.quarantined.iter().flat_map(|refused| &refused.reasons) {
            self.metrics.refused(&refused.code);
        }
        if let Some(refused) = prepared.quarantined {
            stage::quarantine(&self.bus, &self.pipeline, refused).await?;
        }
        runtime::fault::point("transformer.published");
        let mut events = vec![Event::BatchTransformed(BatchTransformed {
            batch: prepared.header.batch.to_string(),
            filtered: prepared.filtered,
            quarantined,
            extracted: carried,
        })];
        events.extend(self.news(prepared.header.run, prepared.notes));
        self.record(&prepared.header, events).await?;
        runtime::fault::point("transformer.ledgered");
        self.metrics.transformed(Transformed {
            passed: prepared.passed.into(),
            filtered: prepared.filtered,
            quarantined,
            bytes,
            taken: received_at.elapsed(),
        });
        Ok(())
    }

    /// Sets a whole batch aside. What was pushed cannot be read again by a later run.
    async fn refuse(&self, batch: Option<Batch>, why: &str) -> Result<(), Failure> {
        let Some(Batch { header, records }) = batch else { return Ok(()) };
        tracing::error!(run.id = %header.run, reason = why, "pushed records are set aside");
        let refused = (0..records.len()).map(|index| Refused {
            index,
            code: "stopped",
            message: why.to_owned(),
            step: String::new(),
            field: String::new(),
        });
        let quarantined = count(records.len());
        if let Some(refused) = self::quarantined(&header, &records, refused.collect()) {
            self.metrics.refused("stopped");
            stage::quarantine(&self.bus, &self.pipeline, refused).await?;
        }
        let transformed = BatchTransformed {
            batch: header.batch.to_string(),
            filtered: 0,
            quarantined,
            extracted: quarantined,
        };
        self.record(&header, vec![Event::BatchTransformed(transformed)]).await
    }

    async fn publish(&self, compiled: &Compiled, prepared: &Prepared) -> Result<(), Failure> {
        let Some(message) = &prepared.message else { return Ok(()) };
        let header = &prepared.header;
        let publishes = compiled.targets.iter().map(|target| {
            // The attempt is part of the id because the broker may have lost the batch but not its
            // id.
            let id = format!("{}#{}/{target}", header.batch, header.attempt);
            let subject = self.bus.names().ready(&self.pipeline, target);
            self.bus.publish(Outgoing::new(subject, message.clone()).with_id(id))
        });
        try_join_all(publishes).await?;
        Ok(())
    }

    /// Returns the notes that this process has not told for the run yet.
    fn news(&self, run: RunId, notes: Vec<String>) -> Vec<Event> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() > TOLD_NOTES {
            told.clear();
        }
        let new = notes.into_iter().filter(|text| told.insert((run, text.clone())));
        new.map(|text| Event::Noted(Noted { stage: "transformer".to_owned(), text })).collect()
    }

    async fn record(&self, header: &BatchHeader, events: Vec<Event>) -> Result<(), Failure> {
        let entry = |event| LedgerEntry {
            run: header.run.to_string(),
            attempt: header.attempt,
            event: Some(event),
            push: wire::push_run(header),
        };
        let entries = events.into_iter().map(entry).collect();
        Ok(self.ledger.record(&self.pipeline, entries).await?)
    }

    async fn set_aside(&self, delivery: &Delivery, error: &Unreadable) -> Result<(), Failure> {
        let code = error.set_aside(&self.bus, &self.pipeline, "transformer", "", delivery).await?;
        self.metrics.refused(code);
        Ok(())
    }
}

fn count(records: usize) -> u32 {
    u32::try_from(records).unwrap_or(u32::MAX)
}

/// Runs the program and encodes what goes on.
fn prepare(compiled: &Compiled, batch: Batch) -> Prepared {
    let Batch { header, records } = batch;
    let outcome = compiled.program.apply(&records);
    let left: Vec<u64> = outcome.records.positions.clone();
    let fitted = fitting::fit(outcome.records, &header);
    let mut refused = outcome.refused;
    if !fitted.left_out.is_empty() {
        let too_large: HashSet<u64> = fitted.left_out.iter().map(|row| left[*row]).collect();
        refused.extend(refuse_too_large(&records, &too_large));
        refused.sort_by_key(|refused| refused.index);
    }
    Prepared {
        passed: u32::try_from(fitted.records.len()).unwrap_or(u32::MAX),
        filtered: outcome.filtered,
        quarantined: quarantined(&header, &records, refused),
        notes: outcome.notes,
        stop: outcome.stop,
        header,
        message: fitted.message,
    }
}

/// Refuses the records at these positions of the source.
fn refuse_too_large(records: &Records, positions: &HashSet<u64>) -> Vec<Refused> {
    let is_too_large = |index: &usize| positions.contains(&records.positions[*index]);
    (0..records.len())
        .filter(is_too_large)
        .map(|index| Refused {
            index,
            code: "size",
            message: format!(
                "the steps have made its batch larger than the {MAX_PAYLOAD} bytes of a message, \
                 and this record is one of the largest; make `batch_bytes` of the extractors smaller"
            ),
            step: String::new(),
            field: String::new(),
        })
        .collect()
}

/// Collects refused records as they came in, with their reasons.
fn quarantined(
    header: &BatchHeader,
    records: &Records,
    refused: Vec<Refused>,
) -> Option<Quarantined> {
    if refused.is_empty() {
        return None;
    }
    let mut mask = vec![false; records.len()];
    for refused in &refused {
        mask[refused.index] = true;
    }
    let reasons = refused
        .into_iter()
        .map(|refused| Reason {
            record: records.id(refused.index),
            code: refused.code.to_owned(),
            message: refused.message,
            step: refused.step,
            field: refused.field,
            raw: Bytes::new(),
        })
        .collect();
    let records =
        records.filter(&BooleanArray::from(mask)).expect("the mask has one entry per record");
    Some(Quarantined {
        header: Some(header.clone()),
        records: Some(records),
        reasons,
        stage: "transformer".to_owned(),
        target: String::new(),
    })
}
