//! Takes encoded batches to the broker: publish, quarantine, ledger, read cursor, in that order.

use std::time::Instant;

use bus::{Bus, KeyValue, LedgerWriter, Outgoing, PublishWindow, WindowLimits};
use bytes::Bytes;
use model::BatchHeader;
use stage::Failure;
use tokio::sync::mpsc;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::{
    Quarantined, Reason,
    ledger::{BatchExtracted, LedgerEntry, ledger_entry::Event},
};

use crate::{
    metrics::Metrics,
    progress::{self, Progress},
};

/// Batches whose ledger entries may share a message.
const GROUP: usize = 64;

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) header: BatchHeader,
    /// What goes to the transformers; `None` where all records were refused.
    pub(crate) message: Option<Bytes>,
    pub(crate) refused: Vec<Reason>,
    /// Where the part stands when the batch is safe; `None` within a chunk, which can only be read
    /// again from its beginning.
    pub(crate) progress: Option<Progress>,
    pub(crate) read_at: Instant,
    pub(crate) span: Span,
}

impl Draft {
    fn refused_records(&self) -> u32 {
        u32::try_from(self.refused.len()).expect("the header counts them in the same type")
    }

    fn entry(&self, size: u64) -> LedgerEntry {
        let header = &self.header;
        LedgerEntry {
            run: header.run.to_string(),
            attempt: header.attempt,
            push: wire::push_run(header),
            event: Some(Event::BatchExtracted(BatchExtracted {
                batch: header.batch.to_string(),
                part: header.part,
                sequence: header.sequence,
                cursor_before: header.cursor_before.clone(),
                cursor_after: header.cursor_after.clone(),
                records: header.extracted,
                size_bytes: size,
                quarantined: self.refused_records(),
            })),
        }
    }
}

/// The way to the broker for the batches of one part.
pub(crate) struct Publishing<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) ledger: &'a LedgerWriter,
    pub(crate) progress: &'a KeyValue,
    pub(crate) progress_key: String,
    pub(crate) window: WindowLimits,
    pub(crate) metrics: &'a Metrics,
}

impl Publishing<'_> {
    /// Publishes drafts and hands them on in their order, each after JetStream has acknowledged it.
    pub(crate) async fn publish(
        &self,
        mut drafts: mpsc::Receiver<Draft>,
        published: mpsc::Sender<(Draft, u64)>,
    ) -> Result<(), Failure> {
        let mut window = PublishWindow::new(self.bus, self.window);
        let mut open = true;
        // A draft that waits for room. One without a message waits for all before it.
        let mut waiting: Option<Draft> = None;
        while open || waiting.is_some() || !window.is_empty() {
            if let Some(draft) = waiting.take() {
                match &draft.message {
                    Some(message) if window.has_room(message.len()) => {
                        let message = message.clone();
                        window.push(self.outgoing(&draft, message), draft);
                        continue;
                    }
                    None if window.is_empty() => {
                        hand_on(&published, draft, 0).await?;
                        continue;
                    }
                    _ => waiting = Some(draft),
                }
            }
            let full = waiting.is_some();
            tokio::select! {
                biased;
                Some((draft, result)) = window.next() => {
                    result?;
                    runtime::fault::point("extractor.published");
                    let size = draft.message.as_ref().map_or(0, Bytes::len) as u64;
                    hand_on(&published, Draft { message: None, ..draft }, size).await?;
                }
                draft = drafts.recv(), if open && !full => match draft {
                    Some(draft) => waiting = Some(draft),
                    None => open = false,
                },
            }
        }
        Ok(())
    }

    fn outgoing(&self, draft: &Draft, message: Bytes) -> Outgoing {
        let header = &draft.header;
        // The attempt is part of the id because the broker may have lost the batch but not its id.
        Outgoing::new(self.bus.names().raw(&header.pipeline), message)
            .with_id(format!("{}#{}", header.batch, header.attempt))
            .with_context(draft.span.context())
    }

    /// Enters published batches in the ledger, then moves the read cursor.
    pub(crate) async fn commit(
        &self,
        mut published: mpsc::Receiver<(Draft, u64)>,
    ) -> Result<(), Failure> {
        let mut drafts = Vec::new();
        while published.recv_many(&mut drafts, GROUP).await > 0 {
            let mut entries = Vec::with_capacity(drafts.len());
            for (draft, size) in &drafts {
                self.set_aside(draft).await?;
                entries.push(draft.entry(*size));
            }
            let Some((draft, _)) = drafts.first() else { continue };
            self.ledger.record(&draft.header.pipeline, entries).await?;
            runtime::fault::point("extractor.ledgered");
            if let Some(progress) =
                drafts.iter().rev().find_map(|(draft, _)| draft.progress.as_ref())
            {
                progress::store(self.progress, &self.progress_key, progress).await?;
                runtime::fault::point("extractor.progressed");
            }
            for (draft, size) in drafts.drain(..) {
                let refused = u64::from(draft.refused_records());
                let published = u64::from(draft.header.extracted) - refused;
                self.metrics.extracted(published, refused, size, draft.read_at.elapsed());
            }
        }
        Ok(())
    }

    /// Publishes what was refused of a batch.
    async fn set_aside(&self, draft: &Draft) -> Result<(), Failure> {
        if draft.refused.is_empty() {
            return Ok(());
        }
        for reason in &draft.refused {
            self.metrics.refused(&reason.code);
        }
        let refused = Quarantined {
            header: Some(draft.header.clone()),
            records: None,
            reasons: draft.refused.clone(),
            stage: "extractor".to_owned(),
            target: String::new(),
        };
        stage::quarantine(self.bus, &draft.header.pipeline, refused)
            .instrument(draft.span.clone())
            .await?;
        Ok(())
    }
}

async fn hand_on(
    published: &mpsc::Sender<(Draft, u64)>,
    draft: Draft,
    size: u64,
) -> Result<(), Failure> {
    // The receiver ends early only with an error of its own, which is the one that counts.
    published.send((draft, size)).await.map_err(|_| Failure::Shutdown)
}
