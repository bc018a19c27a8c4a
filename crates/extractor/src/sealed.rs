//! Cursors of a source whose records hold personal data: they may hold values of a key, and are kept
//! by the scheduler.

use std::sync::Arc;

use async_trait::async_trait;
use bus::{OpenError, SealKeys};
use connect::{Chunk, Error, Limits, Part, PartCursor, Parts, Reader, Source, Stream, Usage};
use model::{PipelineName, Schema};

/// A source whose cursors leave it sealed.
pub(crate) struct SealedCursors {
    source: Arc<dyn Source>,
    seal: Seal,
}

/// Seals the cursors of one pipeline. The same cursor is always sealed to the same text.
#[derive(Clone)]
struct Seal {
    keys: SealKeys,
    place: String,
}

impl Seal {
    fn seal(&self, cursor: &str) -> String {
        // The beginning has to be recognised.
        if cursor.is_empty() { String::new() } else { self.keys.seal_text(&self.place, cursor) }
    }

    fn open(&self, sealed: &str) -> Result<String, Error> {
        let opened = self.keys.open_text(&self.place, sealed);
        opened.map_err(|error| match &error {
            OpenError::NoKey { .. } => {
                Error::retry("the cursor cannot be opened", "add the key to `seal_keys`")
                    .because(error)
            }
            OpenError::Damaged | _ => Error::stop(
                "the cursor cannot be opened",
                "read the source from its beginning: run the pipeline with --full",
            )
            .because(error),
        })
    }
}

impl SealedCursors {
    pub(crate) fn new(source: Arc<dyn Source>, keys: &SealKeys, pipeline: &PipelineName) -> Self {
        Self { source, seal: Seal { keys: keys.clone(), place: format!("cursor/{pipeline}") } }
    }
}

#[async_trait]
impl Source for SealedCursors {
    async fn check(&self) -> Result<String, Error> {
        self.source.check().await
    }

    async fn discover(&self) -> Result<Vec<Stream>, Error> {
        self.source.discover().await
    }

    async fn infer(&self) -> Result<Schema, Error> {
        self.source.infer().await
    }

    async fn parts(&self, cursors: &[PartCursor], full: bool) -> Result<Parts, Error> {
        let opened = cursors.iter().map(|PartCursor { part, cursor }| {
            Ok(PartCursor { part: part.clone(), cursor: self.seal.open(cursor)? })
        });
        let opened = opened.collect::<Result<Vec<_>, Error>>()?;
        let Parts { with_news, gone, notes } = self.source.parts(&opened, full).await?;
        let with_news = with_news
            .into_iter()
            .map(|part| Part { cursor: self.seal.seal(&part.cursor), ..part })
            .collect();
        Ok(Parts { with_news, gone, notes })
    }

    async fn open(
        &self,
        part: &str,
        cursor: &str,
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Box<dyn Reader>, Error> {
        let cursor = self.seal.open(cursor)?;
        let reader = self.source.open(part, &cursor, extraction_base, limits).await?;
        Ok(Box::new(SealedReader { reader, seal: self.seal.clone() }))
    }

    async fn fetch(
        &self,
        ids: &[String],
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Vec<Chunk>, Error> {
        self.source.fetch(ids, extraction_base, limits).await
    }
}

struct SealedReader {
    reader: Box<dyn Reader>,
    seal: Seal,
}

#[async_trait]
impl Reader for SealedReader {
    async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        let chunk = self.reader.next().await?;
        Ok(chunk.map(|chunk| Chunk { cursor: self.seal.seal(&chunk.cursor), ..chunk }))
    }

    fn usage(&self) -> Usage {
        self.reader.usage()
    }
}
