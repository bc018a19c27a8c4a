//! CSV and TSV files, RFC 4180 with strict shape.
//!
//! - A record has as many fields as the header, or is refused: nothing is padded or cut.
//! - An unquoted empty field is null, a quoted one is empty text. Empty lines are skipped.
//! - A quote that is never closed stops the run; what it swallowed is not a record.
//! - The position of a record is the line it starts on, from 1, counted as an editor counts.

mod header;
mod scanner;
mod table;
#[cfg(test)]
mod tests;
mod text;

use async_trait::async_trait;
use connect::{Error, Limits, PartCursor, Parts, Reader, Stream};
use model::{Contract, Schema};

use self::{
    header::{Header, Shape},
    scanner::Dialect,
    table::Table,
    text::CsvText,
};
use crate::{
    files::{Files, Format, Input, Text, blocking},
    infer,
};

/// The files of a CSV source.
pub(crate) struct Source {
    files: Files<Csv>,
    /// The same without a declared shape.
    shapeless: Files<Csv>,
}

/// How records lie in a CSV text.
#[derive(Clone)]
struct Csv {
    dialect: Dialect,
    encoding: spec::Encoding,
    null_values: Vec<String>,
    shape: Shape,
}

impl Csv {
    fn header(&self, input: &mut Input, limits: Limits) -> Result<Header, Error> {
        let header = Header::read(input, self.dialect, limits)?;
        self.shape.check(input.path(), &header)?;
        Ok(header)
    }
}

impl Format for Csv {
    fn encoding(&self) -> spec::Encoding {
        self.encoding
    }

    fn begin(&self, mut input: Input, limits: Limits) -> Result<Box<dyn Text>, Error> {
        let header = self.header(&mut input, limits)?;
        let table = Table::new(&header.names, self.dialect.quote, &self.null_values);
        Ok(Box::new(CsvText::new(input, self.dialect, table, limits, header.next_line)))
    }
}

/// Opens a CSV text that is in memory, with any columns. `name` stands for it in messages.
///
/// # Errors
///
/// Stops where the text has no header.
pub(crate) fn text(
    name: &str,
    bytes: bytes::Bytes,
    config: &spec::CsvSource,
    limits: Limits,
) -> Result<Box<dyn Text>, Error> {
    let csv = Csv {
        dialect: Dialect { delimiter: config.delimiter, quote: config.quote },
        encoding: config.encoding,
        null_values: config.null_values.clone(),
        shape: Shape::default(),
    };
    csv.begin(Input::of_bytes(name, bytes, config.encoding)?, limits)
}

impl Source {
    /// Takes the settings; no file is touched.
    pub(crate) fn new(
        config: &spec::CsvSource,
        contract: Contract,
        schema: Option<&Schema>,
        accepted_fields: &[String],
    ) -> Self {
        let shapeless = Csv {
            dialect: Dialect { delimiter: config.delimiter, quote: config.quote },
            encoding: config.encoding,
            null_values: config.null_values.clone(),
            shape: Shape::default(),
        };
        let strict =
            Csv { shape: Shape::new(contract, schema, accepted_fields), ..shapeless.clone() };
        Self {
            files: Files::new(&config.path, strict),
            shapeless: Files::new(&config.path, shapeless),
        }
    }
}

#[async_trait]
impl connect::Source for Source {
    async fn check(&self) -> Result<String, Error> {
        let files = self.files.clone();
        blocking(move || {
            let paths = files.list()?;
            let mut columns = 0;
            for path in &paths {
                let mut input = files.input(path)?;
                let header = files.format().header(&mut input, Limits::default())?;
                columns = header.names.len();
            }
            Ok(format!("{}, {columns} columns", infer::count(&paths)))
        })
        .await
    }

    async fn discover(&self) -> Result<Vec<Stream>, Error> {
        infer::discover(&self.shapeless).await
    }

    async fn infer(&self) -> Result<Schema, Error> {
        infer::schema(&self.shapeless).await
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
