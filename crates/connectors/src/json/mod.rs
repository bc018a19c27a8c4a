//! JSON documents with an array of records, and files with one JSON object per line (NDJSON).
//!
//! - Every member of a record becomes a column of JSON text, as it is written: numbers keep their
//!   digits. JSON null is null, a missing member is absent.
//! - The shape is tolerant: records may have any members. Names that appear twice in one object, at
//!   any depth, refuse the record.
//! - The position of a record is its line in NDJSON, and its ordinal in an array, both from 1.

mod array;
mod elements;
mod gathered;
mod lines;
mod object;
pub mod pushed;
mod table;
#[cfg(test)]
mod tests;
mod value_end;

use async_trait::async_trait;
use connect::{Error, Limits, PartCursor, Parts, Reader, Stream};
use model::{Contract, Schema};
use spec::JsonLayout;

pub(crate) use self::elements::cuts;
use self::{array::ArrayText, lines::LinesText};
use crate::{
    files::{Files, Format, Input, Text, blocking},
    infer,
};

/// The files of a JSON source.
pub(crate) struct Source {
    files: Files<Json>,
}

/// How records lie in a JSON text.
struct Json {
    layout: JsonLayout,
}

impl Format for Json {
    fn encoding(&self) -> spec::Encoding {
        spec::Encoding::Utf8
    }

    fn begin(&self, input: Input, limits: Limits) -> Result<Box<dyn Text>, Error> {
        Ok(match &self.layout {
            JsonLayout::Array(path) => Box::new(ArrayText::begin(input, path, limits)?),
            JsonLayout::Lines => Box::new(LinesText::new(input, limits)),
        })
    }
}

impl Source {
    /// Takes the settings; no file is touched. The contract and the schema are the transformer's
    /// business, for the shape is tolerant.
    pub(crate) fn new(
        config: &spec::JsonSource,
        _contract: Contract,
        _schema: Option<&Schema>,
        _accepted_fields: &[String],
    ) -> Self {
        Self { files: Files::new(&config.path, Json { layout: config.layout.clone() }) }
    }
}

#[async_trait]
impl connect::Source for Source {
    async fn check(&self) -> Result<String, Error> {
        let files = self.files.clone();
        blocking(move || {
            let paths = files.list()?;
            for path in &paths {
                files.begin(path, Limits::default())?;
            }
            Ok(infer::count(&paths))
        })
        .await
    }

    async fn discover(&self) -> Result<Vec<Stream>, Error> {
        infer::discover(&self.files).await
    }

    async fn infer(&self) -> Result<Schema, Error> {
        infer::schema(&self.files).await
    }

    async fn parts(&self, cursors: &[PartCursor], full: bool) -> Result<Parts, Error> {
        self.files.parts(cursors, full).await
    }

    async fn open(
        &self,
        part: &str,
        cursor: &str,
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Box<dyn Reader>, Error> {
        self.files.open(part, cursor, extraction_base, limits).await
    }
}

/// White space between JSON values.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
