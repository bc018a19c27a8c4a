use std::time::Instant;

use futures::future::try_join3;
use model::{BatchHeader, BatchId};
use stage::Failure;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{Instrument, Span};
use wire::{
    ledger::{PartExtracted, PartPaused, Usage, ledger_entry::Event},
    task::ExtractPart,
};

use crate::{
    cut::{Piece, cut, room},
    metrics::Metrics,
    progress::{self, Progress},
    publishing::{Draft, Publishing},
    reading::{End, Read, Reading},
    service::{Service, Work},
};

/// Chunks that wait between the steps, besides the one that each step has in hand.
const AHEAD: usize = 1;

/// The first batches of a part belong to the trace of the run; each of the others has its own.
const OF_THE_RUN: u32 = 16;

/// Reads one part to its end, from where the task or an earlier delivery of it stood.
pub(crate) async fn extract(
    service: &Service,
    work: &Work,
    part: &ExtractPart,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    if progress::is_paused(&service.progress, work.run, work.attempt).await {
        tracing::info!(part = part.part, "the run pauses, the part is read in its next attempt");
        return Ok(());
    }
    let source = service.source(work, &part.accepted_fields, shutdown).await?;
    let metrics = Metrics::new(work.pipeline.as_str());
    let progress_key = progress::part_key(work.run, work.attempt, part.index);
    let start: Progress =
        progress::load(&service.progress, &progress_key).await?.unwrap_or_else(|| Progress {
            cursor: part.cursor.clone(),
            sequence: part.sequence,
            position: 0,
        });
    let pause = CancellationToken::new();
    let reading = Reading {
        source,
        part: part.part.clone(),
        cursor: start.cursor,
        extraction_base: part.extraction_base,
        limits: service.config.limits(),
        retry: service.config.retry,
        metrics: metrics.clone(),
        pause: pause.clone(),
        shutdown: shutdown.clone(),
    };
    let (chunks, read) = mpsc::channel(AHEAD);
    let (drafts, encoded) = mpsc::channel(AHEAD);
    let (published, acknowledged) = mpsc::channel(service.config.in_flight_messages);
    // Parsing takes a core of its own.
    let reading = tokio::spawn(reading.run(chunks).instrument(Span::current()));
    let reading = AbortOnDropHandle::new(reading);
    let mut batches = Batches { work: work.clone(), part: part.index, sequence: start.sequence };
    let publishing = Publishing {
        bus: &service.bus,
        ledger: &service.ledger,
        progress: &service.progress,
        progress_key,
        window: service.config.window(),
        metrics: &metrics,
    };
    let drained = try_join3(
        batches.encode(read, drafts),
        publishing.publish(encoded, published),
        publishing.commit(acknowledged),
    );
    let grace = service.config.shutdown_grace;
    let drained = async {
        tokio::pin!(drained);
        tokio::select! {
            drained = &mut drained => return drained,
            () = progress::paused(&service.progress, work.run, work.attempt) => pause.cancel(),
        }
        // What was read already goes its way.
        drained.await
    };
    tokio::select! {
        drained = drained => drained.map(drop)?,
        () = progress::ended(&service.progress, work.run) => {
            tracing::info!(part = part.part, "the run has ended, the rest of the part is not read");
            return Ok(());
        }
        () = async {
            shutdown.cancelled().await;
            tokio::time::sleep(grace).await;
        } => return Err(Failure::Shutdown),
    }
    let End { cursor, usage, paused } = reading.await.map_err(|error| {
        let reason = format!("reading part `{}` ended: {error}", part.part);
        Failure::Later { reason, delay: service.config.retry.max_delay }
    })??;
    let usage = Some(Usage {
        calls: usage.calls,
        received_bytes: usage.received_bytes,
        waited_quota_ms: usage.waited_quota_ms,
        slowed_ms: usage.slowed_ms,
        not_modified: usage.not_modified,
    });
    if paused {
        tracing::info!(part = part.part, batches = batches.sequence, "the part pauses");
        let paused = PartPaused { part: part.index, usage };
        return service.record(work, vec![Event::PartPaused(paused)]).await;
    }
    let ended = PartExtracted { part: part.index, batches: batches.sequence, cursor, usage };
    service.record(work, vec![Event::PartExtracted(ended)]).await?;
    runtime::fault::point("extractor.part_ended");
    Ok(())
}

/// Makes batches of chunks, numbering them.
struct Batches {
    work: Work,
    part: u32,
    /// Index of the next batch.
    sequence: u32,
}

impl Batches {
    /// Encodes chunks until there are no more.
    async fn encode(
        &mut self,
        mut chunks: mpsc::Receiver<Read>,
        drafts: mpsc::Sender<Draft>,
    ) -> Result<(), Failure> {
        while let Some(Read { before, chunk }) = chunks.recv().await {
            let read_at = Instant::now();
            chunk.records.validate().map_err(|error| Failure::Stop {
                reason: format!("the connector gave records that do not fit each other: {error}"),
                hint: "report this as a fault of the connector".to_owned(),
            })?;
            let after = chunk.cursor.clone();
            let room = room(&before, &after);
            let pieces = tokio::task::spawn_blocking(move || cut(chunk, room))
                .await
                .map_err(|_| Failure::Shutdown)?;
            let last = pieces.len().saturating_sub(1);
            for (index, piece) in pieces.into_iter().enumerate() {
                // Only the end of the chunk has a cursor of its own.
                let end = if index == last { &after } else { &before };
                let mut draft = self.draft(piece, &before, end, read_at);
                if index < last {
                    draft.progress = None;
                }
                drafts.send(draft).await.map_err(|_| Failure::Shutdown)?;
            }
        }
        Ok(())
    }

    fn draft(&mut self, piece: Piece, before: &str, after: &str, read_at: Instant) -> Draft {
        let Work { run, attempt, pipeline, revision, options: _ } = &self.work;
        let hash = piece.content_hash();
        let refused = u32::try_from(piece.refused.len()).expect("a chunk has fewer records");
        let header = BatchHeader {
            pipeline: pipeline.clone(),
            revision: *revision,
            run: *run,
            attempt: *attempt,
            batch: BatchId::new(*run, self.part, piece.first, piece.last, hash),
            part: self.part,
            sequence: self.sequence,
            cursor_before: before.to_owned(),
            cursor_after: after.to_owned(),
            extracted: piece.count + refused,
            push: None,
        };
        // It goes on in the other stages. A long run has more batches than a trace may have spans.
        let parent = (self.sequence < OF_THE_RUN).then(|| Span::current().id()).flatten();
        let span = tracing::info_span!(
            parent: parent,
            "batch",
            stage = "extractor",
            pipeline = %pipeline,
            run.id = %run,
            batch.id = %header.batch,
            records = header.extracted,
        );
        span.follows_from(Span::current());
        self.sequence += 1;
        let progress =
            Progress { cursor: after.to_owned(), sequence: self.sequence, position: piece.last };
        let message = piece.encoded.map(|encoded| encoded.into_message(&header));
        Draft { header, message, refused: piece.refused, progress: Some(progress), read_at, span }
    }
}
