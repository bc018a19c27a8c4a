//! Cursors of a source whose records hold personal data: they may hold values of a key, and are kept
//! by the scheduler. A pipeline that has no `pii` any more starts with a sealed one.

use std::sync::Arc;

use async_trait::async_trait;
use bus::{Bus, OpenError, cursor_place};
use connect::{Chunk, Error, Limits, Part, PartCursor, Parts, Reader, Source, Stream, Usage};
use model::Schema;
use spec::Pipeline;

/// A source that takes sealed cursors, and whose cursors leave it sealed if its records hold personal
/// data.
pub(crate) struct SealedCursors {
    source: Arc<dyn Source>,
    seal: Seal,
}

/// Seals the cursors of one pipeline. The same cursor is always sealed to the same text.
#[derive(Clone)]
struct Seal {
    bus: Bus,
    place: String,
    seals: bool,
}

impl Seal {
    fn seal(&self, cursor: String) -> String {
        match self.bus.seal_keys() {
            // The beginning has to be recognised.
            Some(keys) if self.seals && !cursor.is_empty() => keys.seal_text(&self.place, &cursor),
            Some(_) | None => cursor,
        }
    }

    fn open(&self, sealed: &str) -> Result<String, Error> {
        let opened = self.bus.open_text(&self.place, sealed);
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
    pub(crate) fn new(source: Arc<dyn Source>, bus: &Bus, pipeline: &Pipeline) -> Self {
        let place = cursor_place(&pipeline.name);
        Self { source, seal: Seal { bus: bus.clone(), place, seals: !pipeline.pii.is_empty() } }
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
            .map(|part| Part { cursor: self.seal.seal(part.cursor), ..part })
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
        Ok(chunk.map(|chunk| Chunk { cursor: self.seal.seal(chunk.cursor), ..chunk }))
    }

    fn usage(&self) -> Usage {
        self.reader.usage()
    }
}
