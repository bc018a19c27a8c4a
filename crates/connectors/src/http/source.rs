use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use connect::{Chunk, Error, Limits, Part, PartCursor, Parts, Reader as _, Stream};
use model::{FieldType, Ids, Operation, Records, Schema};
use spec::{HttpSource, Mode, NewsBy, Pipeline, quoted};

use super::{
    answer,
    client::{Client, place},
    cursor::Cursor,
    news::Scale,
    reader::Reader,
    request::ReadyRequest,
    rules::Rules,
    shared::Shared,
};
use crate::{Context, infer, json};

/// An HTTP API that is asked for records.
pub(crate) struct Source {
    shared: Arc<Shared>,
    schema: Option<Schema>,
}

/// So many records of the first answers are looked at for a schema.
const SAMPLE: usize = 2_000;
/// And so many answers at most.
const SAMPLED_ANSWERS: usize = 5;

impl Source {
    /// Takes the settings. Nothing is dialled yet, but secrets are resolved.
    pub(crate) fn new(
        config: &HttpSource,
        pipeline: &Pipeline,
        schema: Option<&Schema>,
        context: &Context,
    ) -> Result<Self, Error> {
        let variable = &*context.variables;
        let mirrored =
            pipeline.targets.iter().any(|target| matches!(target.mode, Mode::Snapshot { .. }));
        let scale = config.incremental.as_ref().and_then(|news| match &news.by {
            NewsBy::Field { kind, .. } => Some(Scale::new(kind)),
            NewsBy::Token(_) => None,
        });
        let ready = |request| ReadyRequest::new(request, variable);
        Ok(Self {
            shared: Arc::new(Shared {
                client: Client::new(&config.client, pipeline.name.as_str(), context)?,
                request: ready(&config.request)?,
                parent: config.parent.as_ref().map(|parent| ready(&parent.request)).transpose()?,
                fetch: config.fetch.as_ref().map(|fetch| ready(&fetch.request)).transpose()?,
                rules: Rules::new(&config.errors)?,
                scale,
                options: Arc::clone(&context.options),
                conditional: config.conditional && !mirrored,
                configured: config.config.iter().cloned().collect(),
                config: config.clone(),
            }),
            schema: schema.cloned(),
        })
    }

    fn reader(&self, cursor: Cursor, extraction_base: i64, limits: Limits) -> Reader {
        Reader::new(Arc::clone(&self.shared), cursor, extraction_base, limits)
    }

    /// Reads some records as the first run would.
    async fn sample(&self, records: usize) -> Result<Vec<Chunk>, Error> {
        let Some(cursor) = self.shared.begin(&Cursor::default(), Utc::now().timestamp_micros())?
        else {
            return Ok(Vec::new());
        };
        let mut reader = self.reader(cursor, 0, Limits::default());
        let mut chunks = Vec::new();
        let mut seen = 0;
        while seen < records && reader.answers() < SAMPLED_ANSWERS {
            let Some(chunk) = reader.next().await? else { break };
            seen += chunk.records.len() + chunk.refused.len();
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    fn schema_of(&self, chunks: &[Chunk]) -> Result<Schema, Error> {
        infer::of_records(chunks.iter().map(|chunk| &chunk.records.columns)).ok_or_else(|| {
            Error::stop(
                "the first answers have no readable record",
                "declare the fields in `schema`, or wait until there are records",
            )
        })
    }
}

#[async_trait]
impl connect::Source for Source {
    async fn check(&self) -> Result<String, Error> {
        let chunks = self.sample(1).await?;
        let records: usize = chunks.iter().map(|chunk| chunk.records.len()).sum();
        let refused: usize = chunks.iter().map(|chunk| chunk.refused.len()).sum();
        Ok(match refused {
            0 => format!("it answers, with {records} records in the first answer"),
            _ => format!("it answers, with {records} records and {refused} that cannot be read"),
        })
    }

    async fn discover(&self) -> Result<Vec<Stream>, Error> {
        let chunks = self.sample(SAMPLE).await?;
        let schema = self.schema_of(&chunks)?;
        let config = &self.shared.config;
        let name = config.request.path.as_written().to_owned();
        Ok(vec![Stream { name, schema, key: config.key.clone() }])
    }

    async fn infer(&self) -> Result<Schema, Error> {
        self.schema_of(&self.sample(SAMPLE).await?)
    }

    async fn parts(&self, cursors: &[PartCursor], full: bool) -> Result<Parts, Error> {
        let former = cursors.iter().find(|cursor| cursor.part.is_empty() && !full);
        let former = Cursor::parse(former.map_or("", |cursor| cursor.cursor.as_str()))?;
        let begun = self.shared.begin(&former, Utc::now().timestamp_micros())?;
        let with_news =
            begun.map(|cursor| Part { name: String::new(), cursor: cursor.to_text(), span: 0 });
        Ok(Parts { with_news: with_news.into_iter().collect(), ..Parts::default() })
    }

    async fn open(
        &self,
        _part: &str,
        cursor: &str,
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Box<dyn connect::Reader>, Error> {
        let mut cursor = Cursor::parse(cursor)?;
        // A part whose end was reached stands at its end.
        if cursor.run.is_none() && cursor == Cursor::default() {
            let now = Utc::now().timestamp_micros();
            cursor = self.shared.begin(&cursor, now)?.unwrap_or(cursor);
        }
        Ok(Box::new(self.reader(cursor, extraction_base, limits)))
    }

    async fn fetch(
        &self,
        ids: &[String],
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Vec<Chunk>, Error> {
        let (Some(request), Some(config)) = (&self.shared.fetch, &self.shared.config.fetch) else {
            return Err(Error::stop(
                "this source cannot read single objects by their ids",
                "add `fetch: {path: \"/orders/{{ id }}\"}` to the source",
            ));
        };
        let id_field = config.id_field.clone().or_else(|| match &self.shared.config.key[..] {
            [only] => Some(only.clone()),
            _ => None,
        });
        let answer =
            spec::Answer { format: spec::AnswerFormat::Json, records: config.records.clone() };
        let mut texts: Vec<(Vec<u8>, Operation)> = Vec::new();
        for id in ids {
            let outgoing = self.shared.ask_for(request, id)?;
            match self.shared.fetch_one(&outgoing).await? {
                Some(response) => {
                    let place = place(&outgoing);
                    for element in answer::elements(&answer, &place, &response.body)? {
                        texts.push((element.as_ref().to_vec(), Operation::Upsert));
                    }
                }
                None => {
                    if let Some(field) = &id_field {
                        let record = format!("{{{}:{}}}", quoted(field), self.typed(field, id));
                        texts.push((record.into_bytes(), Operation::Delete));
                    }
                }
            }
        }
        let elements: Vec<&[u8]> = texts.iter().map(|(text, _)| text.as_slice()).collect();
        let label = self.shared.label();
        Ok(json::cuts(&elements, &[], limits)
            .into_iter()
            .map(|cut| {
                let operations =
                    cut.positions.iter().map(|p| texts[index(*p)].1).collect::<Vec<_>>();
                let ids = super::records::ids(&cut, label, &self.shared.config.key, 0);
                let refused = super::records::refused(cut.refused, label, 0, 0);
                Chunk {
                    records: Records {
                        columns: cut.columns,
                        presence: cut.presence,
                        ids: Ids::Explicit(ids),
                        positions: cut.positions.iter().map(|position| position - 1).collect(),
                        extraction_base,
                        versions: None,
                        operations: Some(operations),
                    },
                    refused,
                    cursor: String::new(),
                }
            })
            .collect())
    }
}

fn index(position: u64) -> usize {
    usize::try_from(position - 1).expect("positions count what is in memory")
}

impl Source {
    /// Writes an id as the schema has it.
    fn typed(&self, field: &str, id: &str) -> String {
        let field = self.schema.as_ref().and_then(|schema| schema.field(field));
        let number = field.is_some_and(|field| {
            matches!(field.field_type, FieldType::Integer | FieldType::Decimal { .. })
        });
        match number && serde_json::from_str::<serde_json::Number>(id).is_ok() {
            true => id.to_owned(),
            false => quoted(id),
        }
    }
}
