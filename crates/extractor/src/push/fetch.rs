use bus::Outgoing;
use bytes::Bytes;
use connect::{Chunk, Source};
use model::{BatchHeader, BatchId, PushWindow, Remedy};
use runtime::clock::Clock;
use stage::Failure;
use tokio_util::sync::CancellationToken;
use wire::{Quarantined, Reason, task::FetchRecords};

use super::inlet::extracted;
use crate::{
    cut::{Piece, cut, room},
    service::{Service, Work},
};

/// Reads the objects of hints and publishes them as if they had been pushed.
pub(crate) async fn fetch(
    service: &Service,
    work: &Work,
    asked: &FetchRecords,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let fetched = async {
        let source = service.source(work, &[], shutdown).await?;
        let fetching = Fetching { service, work, asked, source: source.as_ref() };
        fetching.together(&asked.ids).await
    };
    let fetched = tokio::select! {
        fetched = fetched => fetched,
        () = shutdown.cancelled() => Err(Failure::Shutdown),
    };
    fetched.map_err(|failure| match failure {
        // What was pushed is safe and stays so, until somebody has acted.
        Failure::Stop { reason, hint } => {
            tracing::error!(reason, hint, "pushed hints cannot be followed");
            Failure::Later { reason, delay: service.config.retry.max_delay }
        }
        failure => failure,
    })
}

struct Fetching<'a> {
    service: &'a Service,
    work: &'a Work,
    asked: &'a FetchRecords,
    source: &'a dyn Source,
}

impl Fetching<'_> {
    /// Fetches some objects. One that the source refuses does not hold up the others.
    async fn together(&self, ids: &[String]) -> Result<(), Failure> {
        let error = match self.read(ids).await {
            Ok(chunks) => return self.publish_all(ids, chunks).await,
            Err(error) => error,
        };
        match error.remedy {
            Remedy::Retry { after } => {
                let delay = after.unwrap_or(self.service.config.retry.max_delay);
                Err(Failure::Later { reason: error.chain(), delay })
            }
            Remedy::Quarantine | Remedy::Stop if ids.len() > 1 => {
                for id in ids {
                    Box::pin(self.together(std::slice::from_ref(id))).await?;
                }
                Ok(())
            }
            Remedy::Quarantine | Remedy::Stop => self.refuse(ids, &error).await,
        }
    }

    async fn read(&self, ids: &[String]) -> Result<Vec<Chunk>, connect::Error> {
        let base = Clock::system().now_ns();
        self.source.fetch(ids, base, self.service.config.limits()).await
    }

    async fn publish_all(&self, ids: &[String], chunks: Vec<Chunk>) -> Result<(), Failure> {
        // Objects that were fetched alone make batches of their own.
        let first = self.asked.ids.iter().position(|id| Some(id) == ids.first()).unwrap_or(0);
        let mut number = 0;
        for chunk in chunks {
            for piece in cut(chunk, room("", "")) {
                let name = format!("{first}.{number}");
                self.publish(piece, &name).await?;
                number += 1;
            }
        }
        Ok(())
    }

    async fn publish(&self, piece: Piece, name: &str) -> Result<(), Failure> {
        let refused = u32::try_from(piece.refused.len()).expect("a chunk has fewer records");
        let header = self.header(name, piece.content_hash(), piece.count + refused);
        let bus = &self.service.bus;
        let mut size = 0;
        if let Some(encoded) = piece.encoded {
            let message = encoded.into_message(&header);
            size = message.len() as u64;
            let subject = bus.names().raw(&header.pipeline);
            bus.publish(Outgoing::new(subject, message).with_id(format!("{}#1", header.batch)))
                .await?;
        }
        runtime::fault::point("intake.fetched");
        self.settle(header, size, piece.refused).await
    }

    async fn settle(
        &self,
        header: BatchHeader,
        size: u64,
        refused: Vec<Reason>,
    ) -> Result<(), Failure> {
        let quarantined = u32::try_from(refused.len()).expect("a chunk has fewer records");
        if !refused.is_empty() {
            let refused = Quarantined {
                header: Some(header.clone()),
                records: None,
                reasons: refused,
                stage: "extractor".to_owned(),
                target: String::new(),
            };
            stage::quarantine(&self.service.bus, &header.pipeline, refused).await?;
        }
        let entry = extracted(&header, size, quarantined);
        Ok(self.service.ledger.record(&header.pipeline, vec![entry]).await?)
    }

    /// Sets a hint aside that the source does not want to hear of.
    async fn refuse(&self, ids: &[String], error: &connect::Error) -> Result<(), Failure> {
        let reason = |id: &String| Reason {
            record: format!("hint {id}"),
            code: "fetch".to_owned(),
            message: format!("{}; {}", error.chain(), error.hint),
            raw: Bytes::from(id.clone()),
            ..Reason::default()
        };
        let refused: Vec<Reason> = ids.iter().map(reason).collect();
        let number = u32::try_from(refused.len()).expect("hints are few");
        let name = format!("refused {}", ids.first().map_or("", String::as_str));
        let header = self.header(&name, 0, number);
        self.settle(header, 0, refused).await
    }

    fn header(&self, name: &str, hash: u64, extracted: u32) -> BatchHeader {
        let Work { run, attempt, pipeline, revision, .. } = self.work;
        let asked = self.asked;
        let window = PushWindow { start_ms: asked.window_start_ms, end_ms: asked.window_end_ms };
        BatchHeader {
            pipeline: pipeline.clone(),
            revision: *revision,
            run: *run,
            attempt: *attempt,
            batch: BatchId::from_wire(format!("{run}/fetch/{}/{name}/{hash:016x}", asked.name)),
            part: 0,
            sequence: 0,
            cursor_before: String::new(),
            cursor_after: String::new(),
            extracted,
            push: Some(window),
        }
    }
}
