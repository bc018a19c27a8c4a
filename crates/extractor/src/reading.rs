use std::sync::Arc;

use connect::{Chunk, Limits, Reader, Source, Usage};
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
    /// Ends the reading behind the chunk that was given last.
    pub(crate) pause: CancellationToken,
    pub(crate) shutdown: CancellationToken,
}

/// A chunk with the cursor before it.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) before: String,
    pub(crate) chunk: Chunk,
}

/// How the reading of a part ended.
#[derive(Debug)]
pub(crate) struct End {
    /// Where the part stands now.
    pub(crate) cursor: String,
    /// What the reading has cost.
    pub(crate) usage: Usage,
    /// The rest is left to another attempt.
    pub(crate) paused: bool,
}

/// How far the reading of a part has come.
struct Place {
    /// Cursor after the last chunk that had records.
    published: String,
    usage: Usage,
}

/// Why the reader stopped before the end.
enum Interruption {
    Source(connect::Error),
    Paused,
    Shutdown,
}

impl From<connect::Error> for Interruption {
    fn from(error: connect::Error) -> Self {
        Self::Source(error)
    }
}

impl Reading {
    /// Reads to the end, or to a pause. The part is opened again behind the last chunk where the source
    /// says that this helps.
    pub(crate) async fn run(mut self, chunks: mpsc::Sender<Read>) -> Result<End, Failure> {
        let mut backoff = Backoff::new(self.retry);
        let mut place = Place { published: self.cursor.clone(), usage: Usage::default() };
        let (shutdown, pause) = (self.shutdown.clone(), self.pause.clone());
        loop {
            let end = |reading: Self, place: &Place, paused| End {
                cursor: reading.cursor,
                usage: place.usage,
                paused,
            };
            let error = match self.read(&chunks, &mut backoff, &mut place).await {
                Ok(()) => return Ok(end(self, &place, false)),
                Err(Interruption::Paused) => return Ok(end(self, &place, true)),
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
                () = pause.cancelled() => return Ok(end(self, &place, true)),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn read(
        &mut self,
        chunks: &mpsc::Sender<Read>,
        backoff: &mut Backoff,
        place: &mut Place,
    ) -> Result<(), Interruption> {
        let stops = (self.shutdown.clone(), self.pause.clone());
        let open = self.source.open(&self.part, &self.cursor, self.extraction_base, self.limits);
        let mut reader = until(&stops, open).await??;
        let read = self.read_on(&mut reader, chunks, backoff, place).await;
        place.usage += reader.usage();
        read
    }

    async fn read_on(
        &mut self,
        reader: &mut Box<dyn Reader>,
        chunks: &mpsc::Sender<Read>,
        backoff: &mut Backoff,
        place: &mut Place,
    ) -> Result<(), Interruption> {
        let stops = (self.shutdown.clone(), self.pause.clone());
        while let Some(chunk) = until(&stops, next(reader)).await?? {
            runtime::fault::point("extractor.read");
            backoff.reset();
            self.cursor.clone_from(&chunk.cursor);
            // A chunk without records only moves the cursor: the batches around it stay neighbours.
            if chunk.records.is_empty() && chunk.refused.is_empty() {
                continue;
            }
            let before = std::mem::replace(&mut place.published, chunk.cursor.clone());
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
    (shutdown, pause): &(CancellationToken, CancellationToken),
    work: impl Future<Output = T>,
) -> Result<T, Interruption> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(Interruption::Shutdown),
        () = pause.cancelled() => Err(Interruption::Paused),
        done = work => Ok(done),
    }
}

/// Makes a failure of an error that stops the run.
pub(crate) fn stopped(error: &connect::Error) -> Failure {
    Failure::Stop { reason: error.chain(), hint: error.hint.clone() }
}
