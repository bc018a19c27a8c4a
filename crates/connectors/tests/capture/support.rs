use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, Weak},
};

use arrow_array::Array;
use connect::{Chunk, Error, Limits, PartCursor, Source};
use connectors::Context;
use model::{Operation, Records};
use testkit::postgres::Postgres;

static SERVER: LazyLock<Mutex<Weak<Postgres>>> = LazyLock::new(|| Mutex::new(Weak::new()));

/// One server for all tests that run at the moment.
pub(crate) fn server() -> Arc<Postgres> {
    let mut shared = SERVER.lock().unwrap();
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(logical());
        *shared = Arc::downgrade(&server);
        server
    })
}

pub(crate) fn logical() -> Postgres {
    Postgres::start_with(&[
        ("fsync", "off"),
        ("wal_level", "logical"),
        ("max_connections", "100"),
        ("max_replication_slots", "50"),
        ("max_wal_senders", "50"),
    ])
}

/// A captured table of a database of the test's own.
pub(crate) struct Captured {
    pub(crate) server: Arc<Postgres>,
    pub(crate) url: String,
    slot: String,
    settings: String,
    key: &'static str,
    /// Where extraction times begin, as the scheduler keeps it.
    clock: i64,
    pub(crate) cursors: Vec<PartCursor>,
    pub(crate) model: Model,
}

impl Captured {
    /// Creates the table `t` by this SQL.
    pub(crate) fn new(sql: &str) -> Self {
        Self::on(server(), sql)
    }

    pub(crate) fn on(server: Arc<Postgres>, sql: &str) -> Self {
        let url = server.create_database();
        server.execute(&url, sql);
        // Slots belong to the whole server.
        let slot = format!("slot_{}", url.rsplit('/').next().unwrap());
        Self {
            server,
            url,
            slot,
            settings: "window: 0s".to_owned(),
            key: "",
            clock: 1_000_000_000,
            cursors: Vec::new(),
            model: Model::default(),
        }
    }

    pub(crate) fn slot(&self) -> &str {
        &self.slot
    }

    pub(crate) fn with(mut self, settings: &str) -> Self {
        settings.clone_into(&mut self.settings);
        self
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.server.execute(&self.url, sql).trim().to_owned()
    }

    /// Names the key in the source.
    pub(crate) fn with_key(&mut self) {
        self.key = ", key: [id]";
    }

    fn build(&self, keys: &str) -> Arc<dyn Source> {
        let yaml = format!(
            "pipeline: p\nsource:\n  postgres: {{url: \"{}\", table: t{}{keys}}}\nkey: [id]\n\
             targets:\n  out: {{sqlite: {{path: x, table: y}}}}\n",
            self.url, self.key
        );
        let pipeline = spec::parse("p", &yaml).unwrap_or_else(|problems| panic!("{problems:?}"));
        let context = Context::alone(Arc::new(|_| None));
        connectors::source(&pipeline, None, &[], &context).unwrap()
    }

    pub(crate) fn source(&self) -> Arc<dyn Source> {
        let Self { slot, settings, .. } = self;
        self.build(&format!(", capture: {{slot: {slot}, {settings}}}"))
    }

    /// Does a run to its end and takes over what it gives.
    pub(crate) async fn run(&mut self) -> Vec<Chunk> {
        self.try_run(false).await.unwrap_or_else(|error| panic!("{}", error.chain()))
    }

    pub(crate) async fn try_run(&mut self, full: bool) -> Result<Vec<Chunk>, Error> {
        let (chunks, ended) = self.run_some(full, usize::MAX, Limits::default()).await?;
        assert!(ended);
        Ok(chunks)
    }

    /// Does a run that is cut off after some chunks, and takes over what it has given. Returns
    /// whether the run has ended by itself. Where it was cut off, cursors stay as they were.
    pub(crate) async fn run_some(
        &mut self,
        full: bool,
        most: usize,
        limits: Limits,
    ) -> Result<(Vec<Chunk>, bool), Error> {
        let source = self.source();
        let parts = source.parts(&self.cursors, full).await?;
        let [part] = &parts.with_news[..] else { panic!("one part is always there") };
        let base = self.clock;
        let mut reader = source.open(&part.name, &part.cursor, base, limits).await?;
        let mut chunks = Vec::new();
        let mut ended = false;
        while chunks.len() < most {
            let Some(chunk) = reader.next().await? else {
                ended = true;
                break;
            };
            chunk.records.validate().unwrap();
            self.model.take(&chunk.records);
            chunks.push(chunk);
        }
        self.clock += i64::try_from(part.span).unwrap() + 1;
        if ended {
            let last = chunks.last().map(|chunk| chunk.cursor.clone());
            self.loaded(last.unwrap_or_else(|| part.cursor.clone()));
        }
        Ok((chunks, ended))
    }

    /// Moves the loaded cursor.
    pub(crate) fn loaded(&mut self, cursor: String) {
        self.cursors = vec![PartCursor { part: String::new(), cursor }];
    }

    /// Returns the table as reading it without capture gives it.
    pub(crate) async fn table(&self) -> BTreeMap<String, Row> {
        let source = self.build("");
        let mut model = Model::default();
        let mut reader = source.open("", "", 1, Limits::default()).await.unwrap();
        while let Some(chunk) = reader.next().await.unwrap() {
            model.take(&chunk.records);
        }
        model.rows()
    }

    /// Fails unless what was captured is what the table holds.
    pub(crate) async fn assert_equal(&self) {
        let (expected, found) = (self.table().await, self.model.rows());
        for (key, row) in &expected {
            assert_eq!(found.get(key), Some(row), "{key}");
        }
        assert_eq!(found.len(), expected.len());
    }
}

/// Values by field, written with their types.
pub(crate) type Row = BTreeMap<String, String>;

/// A target in memory: upserts, patches and deletes by version.
#[derive(Debug, Default)]
pub(crate) struct Model {
    rows: BTreeMap<String, ((i64, i64), Option<Row>)>,
    /// Records that changed something.
    pub(crate) changes: usize,
}

impl Model {
    pub(crate) fn take(&mut self, records: &Records) {
        let schema = records.columns.schema();
        for index in 0..records.len() {
            let values = schema.fields().iter().enumerate().filter_map(|(column, field)| {
                let value = records.columns.column(column).slice(index, 1);
                let text = format!("{:?}", value.as_ref() as &dyn Array);
                records.is_present(column, index).then(|| (field.name().clone(), text))
            });
            let values: Row = values.collect();
            let key = values["id"].clone();
            let version = records.version(index);
            let entry = self.rows.entry(key).or_insert(((i64::MIN, 0), None));
            if entry.0 >= version {
                continue;
            }
            self.changes += 1;
            entry.0 = version;
            match records.operation(index) {
                Operation::Upsert => entry.1 = Some(values),
                Operation::Patch => entry.1.get_or_insert_with(Row::new).extend(values),
                Operation::Delete => entry.1 = None,
            }
        }
    }

    pub(crate) fn rows(&self) -> BTreeMap<String, Row> {
        let rows = self.rows.iter();
        rows.filter_map(|(key, (_, row))| Some((key.clone(), row.clone()?))).collect()
    }
}

pub(crate) fn count(chunks: &[Chunk]) -> usize {
    chunks.iter().map(|chunk| chunk.records.len()).sum()
}

/// Operations and ids of all records.
pub(crate) fn told(chunks: &[Chunk]) -> Vec<(Operation, String)> {
    let records = chunks.iter().map(|chunk| &chunk.records);
    records
        .flat_map(|records| (0..records.len()).map(|i| (records.operation(i), records.id(i))))
        .collect()
}
