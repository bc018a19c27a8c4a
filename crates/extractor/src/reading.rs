use std::sync::Arc;

use connect::{Chunk, Limits, Reader, Source};
use model::Remedy;
use stage::{
    Failure,
    retry::{Backoff, Policy},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What is needed to read one part.
pub(crate) struct Reading {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) part: String,
    pub(crate) cursor: String,
    pub(crate) extraction_base: i64,
    pub(crate) limits: Limits,
    pub(crate) retry: Policy,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

/// A chunk with the cursor before it.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) before: String,
    pub(crate) chunk: Chunk,
}

/// Why the reader stopped before the end.
enum Interruption {
    Source(connect::Error),
    Shutdown,
}

impl From<connect::Error> for Interruption {
    fn from(error: connect::Error) -> Self {
        Self::Source(error)
    }
}

impl Reading {
    /// Reads to the end and returns the cursor there. The part is opened again behind the last
    /// chunk where the source says that this helps.
    pub(crate) async fn run(mut self, chunks: mpsc::Sender<Read>) -> Result<String, Failure> {
        let mut backoff = Backoff::new(self.retry);
        let shutdown = self.shutdown.clone();
        loop {
            let error = match self.read(&chunks, &mut backoff).await {
                Ok(()) => return Ok(self.cursor),
                Err(Interruption::Shutdown) => return Err(Failure::Shutdown),
                Err(Interruption::Source(error)) => error,
            };
            let delay = match error.remedy {
                Remedy::Retry { after } => backoff.fail(after),
                // A source sets single records aside by itself, so it has failed as a whole.
                Remedy::Quarantine | Remedy::Stop => return Err(stopped(&error)),
            };
            if backoff.is_spent() {
                return Err(Failure::Later { reason: error.chain(), delay });
            }
            self.metrics.retried();
            let delay_ms = delay.as_millis();
            tracing::warn!(part = self.part, error = error.chain(), delay_ms, "reading again");
            tokio::select! {
                () = shutdown.cancelled() => return Err(Failure::Shutdown),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn read(
        &mut self,
        chunks: &mpsc::Sender<Read>,
        backoff: &mut Backoff,
    ) -> Result<(), Interruption> {
        let shutdown = self.shutdown.clone();
        let open = self.source.open(&self.part, &self.cursor, self.extraction_base, self.limits);
        let mut reader = until(&shutdown, open).await??;
        while let Some(chunk) = until(&shutdown, next(&mut reader)).await?? {
            runtime::fault::point("extractor.read");
            backoff.reset();
            let before = std::mem::replace(&mut self.cursor, chunk.cursor.clone());
            // Nobody takes chunks any more when what comes after the reader has failed.
            chunks.send(Read { before, chunk }).await.map_err(|_| Interruption::Shutdown)?;
        }
        Ok(())
    }
}

async fn next(reader: &mut Box<dyn Reader>) -> Result<Option<Chunk>, connect::Error> {
    reader.next().await
}

async fn until<T>(
    shutdown: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, Interruption> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(Interruption::Shutdown),
        done = work => Ok(done),
    }
}

/// Makes a failure of an error that stops the run.
pub(crate) fn stopped(error: &connect::Error) -> Failure {
    Failure::Stop { reason: error.chain(), hint: error.hint.clone() }
}
