use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{Array, StringArray};
use connect::{
    Error, Limits, LocalMemory, PartCursor, RefusedRaw, RunOptions, Source, Unlimited, Usage,
};
use connectors::Context;
use testkit::http::{Reply, Request, Server};

pub(crate) fn context() -> Context {
    Context::new(
        Arc::new(|name| Some(format!("secret-{}", name.to_lowercase()))),
        Arc::new(Unlimited),
        Arc::new(LocalMemory::default()),
    )
}

/// Makes a source of the server at `url`. `settings` are its keys besides, as YAML.
pub(crate) fn source(url: &str, settings: &str) -> Arc<dyn Source> {
    source_in(&context(), url, settings)
}

pub(crate) fn source_with(url: &str, settings: &str, options: RunOptions) -> Arc<dyn Source> {
    source_in(&context().for_run(options), url, settings)
}

pub(crate) fn source_in(context: &Context, url: &str, settings: &str) -> Arc<dyn Source> {
    try_source(context, url, settings).unwrap_or_else(|error| panic!("{}", error.chain()))
}

pub(crate) fn try_source(
    context: &Context,
    url: &str,
    settings: &str,
) -> Result<Arc<dyn Source>, Error> {
    let settings: String = settings.lines().map(|line| format!("    {}\n", line)).collect();
    let yaml = format!(
        "pipeline: shop\nsource:\n  http:\n    base_url: {url}\n    allow_private: true\n    \
         retry: {{first: 1ms, most: 5ms}}\n{settings}key: [id]\n\
         targets: {{store: {{sqlite: {{path: x, table: t}}}}}}\n"
    );
    let pipeline = spec::parse("test", &yaml).unwrap_or_else(|problems| {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}\n{yaml}", list.join("\n"))
    });
    connectors::source(&pipeline, None, &[], context)
}

/// What a run has read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Values of `id`, and of `n` behind a colon if the record has one.
    pub(crate) rows: Vec<String>,
    pub(crate) ids: Vec<String>,
    pub(crate) positions: Vec<u64>,
    pub(crate) refused: Vec<RefusedRaw>,
    /// For each chunk the cursor behind it, and the number of rows up to there.
    pub(crate) cursors: Vec<(String, usize)>,
    pub(crate) usage: Usage,
}

impl Reading {
    pub(crate) fn end(&self) -> &str {
        &self.cursors.last().unwrap().0
    }
}

/// Reads a run that begins behind `cursor`.
pub(crate) async fn run(source: &dyn Source, cursor: &str) -> Reading {
    let cursors = [PartCursor { part: String::new(), cursor: cursor.to_owned() }];
    let parts = source.parts(&cursors, false).await.unwrap().with_news;
    match &parts[..] {
        [] => Reading::default(),
        [part] => {
            let (reading, error) = open(source, &part.cursor, Limits::default()).await;
            assert!(error.is_none(), "{}", error.unwrap().chain());
            reading
        }
        _ => panic!("an HTTP source has one part"),
    }
}

/// Reads on from a cursor within a run. What came before an error comes with it.
pub(crate) async fn open(
    source: &dyn Source,
    cursor: &str,
    limits: Limits,
) -> (Reading, Option<Error>) {
    let mut reading = Reading::default();
    let mut reader = source.open("", cursor, 1_000, limits).await.unwrap();
    loop {
        let next = reader.next().await;
        reading.usage = reader.usage();
        let chunk = match next {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return (reading, None),
            Err(error) => return (reading, Some(error)),
        };
        let records = chunk.records;
        records.validate().unwrap();
        assert!(chunk.cursor.len() < 16 * 1024);
        let schema = records.columns.schema();
        let text = |name: &str, row: usize| {
            let (index, _) = schema.column_with_name(name)?;
            let texts = records.columns.column(index);
            let texts = texts.as_any().downcast_ref::<StringArray>().unwrap();
            texts.is_valid(row).then(|| texts.value(row).to_owned())
        };
        for row in 0..records.len() {
            let mut shown = text("id", row).unwrap_or_default();
            if let Some(n) = text("n", row) {
                shown.push(':');
                shown.push_str(&n);
            }
            reading.rows.push(shown);
            reading.ids.push(records.id(row));
            reading.positions.push(records.positions[row]);
        }
        reading.refused.extend(chunk.refused);
        reading.cursors.push((chunk.cursor, reading.rows.len()));
    }
}

/// Reads a run that fails.
pub(crate) async fn failure(source: &dyn Source) -> Error {
    let parts = source.parts(&[], false).await.unwrap().with_news;
    open(source, &parts[0].cursor, Limits::default()).await.1.expect("the run fails")
}

pub(crate) fn query(request: &Request) -> BTreeMap<String, String> {
    let url = url::Url::parse(&format!("http://h{}", request.path)).unwrap();
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

pub(crate) fn path(request: &Request) -> &str {
    request.path.split('?').next().unwrap_or_default()
}

pub(crate) fn json(body: impl Into<Vec<u8>>) -> Reply {
    Reply::new(200, body).with("Content-Type", "application/json")
}

/// Returns the records with these ids as a JSON list.
pub(crate) fn list(ids: impl IntoIterator<Item = u64>) -> String {
    let ids: Vec<String> = ids.into_iter().map(|id| format!("{{\"id\":{id}}}")).collect();
    format!("[{}]", ids.join(","))
}

pub(crate) fn texts(ids: impl IntoIterator<Item = u64>) -> Vec<String> {
    ids.into_iter().map(|id| id.to_string()).collect()
}

/// A server that gives records 0 to `total` in pages by `offset` and `limit`.
pub(crate) async fn offsets(total: u64) -> Server {
    Server::start(move |request, _| {
        let query = query(request);
        let number = |name: &str| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let (offset, limit): (u64, u64) = (number("offset"), number("limit"));
        json(list(offset.min(total)..(offset + limit).min(total)))
    })
    .await
}
