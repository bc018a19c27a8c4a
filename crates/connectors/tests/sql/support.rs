use std::sync::{Arc, LazyLock, Mutex, Weak};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_buffer::BooleanBuffer;
use connectors::Context;
use model::{
    Batch, BatchHeader, BatchId, Contract, Field, FieldType, Ids, Operation, Records, RunId, Schema,
};
use spec::{Deletes, Mode, SecretText, TableRead, TargetSystem};
use sqlx::{Column, Connection, Row, SqliteConnection, TypeInfo, ValueRef};
use testkit::postgres::Postgres;

static SERVER: LazyLock<Mutex<Weak<Postgres>>> = LazyLock::new(|| Mutex::new(Weak::new()));

/// One server for all tests that run at the moment.
fn server() -> Arc<Postgres> {
    let mut shared = SERVER.lock().unwrap();
    shared.upgrade().unwrap_or_else(|| {
        let server =
            Arc::new(Postgres::start_with(&[("fsync", "off"), ("max_connections", "300")]));
        *shared = Arc::downgrade(&server);
        server
    })
}

/// An empty database of the test's own.
pub(crate) enum Db {
    Postgres { server: Arc<Postgres>, url: String },
    Sqlite { directory: tempfile::TempDir },
}

impl Db {
    pub(crate) fn postgres() -> Self {
        let server = server();
        let url = server.create_database();
        Self::Postgres { server, url }
    }

    pub(crate) fn sqlite() -> Self {
        Self::Sqlite { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    pub(crate) fn path(&self) -> String {
        match self {
            Self::Postgres { .. } => unreachable!("a server has no path"),
            Self::Sqlite { directory } => directory.path().join("data.db").display().to_string(),
        }
    }

    /// Runs statements and returns the rows of the last one: fields joined by `|`, null is empty.
    pub(crate) async fn sql(&self, sql: &str) -> Vec<String> {
        match self {
            Self::Postgres { server, url } => {
                let (server, url, sql) = (Arc::clone(server), url.clone(), sql.to_owned());
                let text =
                    tokio::task::spawn_blocking(move || server.execute(&url, &sql)).await.unwrap();
                text.lines().map(str::to_owned).collect()
            }
            Self::Sqlite { .. } => {
                let options = sqlx::sqlite::SqliteConnectOptions::new()
                    .filename(self.path())
                    .create_if_missing(true);
                let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
                #[expect(clippy::disallowed_methods, reason = "the test writes the text")]
                let sql = sqlx::AssertSqlSafe(sql.to_owned());
                let rows = sqlx::raw_sql(sql).fetch_all(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                rows.iter()
                    .map(|row| {
                        let fields = row.columns().iter().map(|column| {
                            let raw = row.try_get_raw(column.ordinal()).unwrap();
                            match raw.type_info().name() {
                                _ if raw.is_null() => String::new(),
                                "REAL" => row.get_unchecked::<f64, _>(column.ordinal()).to_string(),
                                "INTEGER" => {
                                    row.get_unchecked::<i64, _>(column.ordinal()).to_string()
                                }
                                _ => String::from_utf8_lossy(row.get_unchecked(column.ordinal()))
                                    .into_owned(),
                            }
                        });
                        fields.collect::<Vec<_>>().join("|")
                    })
                    .collect()
            }
        }
    }

    fn system(&self) -> TargetSystem {
        match self {
            Self::Postgres { url, .. } => TargetSystem::Postgres { url: SecretText::new(url) },
            Self::Sqlite { .. } => TargetSystem::Sqlite { path: self.path() },
        }
    }

    pub(crate) fn target(&self, wanted: &Wanted) -> Arc<dyn connect::Target> {
        let pipeline = wanted.pipeline(self.system(), self.source_of(&wanted.read));
        connectors::target(&pipeline, &pipeline.targets[0], &context()).unwrap()
    }

    /// A target in the PostgreSQL database of that URL.
    pub(crate) fn target_at(url: &str, wanted: &Wanted) -> Arc<dyn connect::Target> {
        let system = TargetSystem::Postgres { url: SecretText::new(url) };
        let source = spec::Source::Sqlite(spec::SqliteSource {
            path: "unused".to_owned(),
            read: wanted.read.clone(),
        });
        let pipeline = wanted.pipeline(system, source);
        connectors::target(&pipeline, &pipeline.targets[0], &context()).unwrap()
    }

    fn source_of(&self, read: &TableRead) -> spec::Source {
        match self {
            Self::Postgres { url, .. } => spec::Source::Postgres(spec::PostgresSource {
                url: SecretText::new(url),
                read: read.clone(),
                capture: None,
            }),
            Self::Sqlite { .. } => {
                spec::Source::Sqlite(spec::SqliteSource { path: self.path(), read: read.clone() })
            }
        }
    }

    pub(crate) fn source(
        &self,
        wanted: &Wanted,
        schema: Option<&Schema>,
    ) -> Arc<dyn connect::Source> {
        let pipeline = wanted.pipeline(self.system(), self.source_of(&wanted.read));
        connectors::source(&pipeline, schema, &[], &context()).unwrap()
    }

    /// A source for a run that was started so.
    pub(crate) fn source_for(
        &self,
        wanted: &Wanted,
        options: connect::RunOptions,
    ) -> Arc<dyn connect::Source> {
        let pipeline = wanted.pipeline(self.system(), self.source_of(&wanted.read));
        connectors::source(&pipeline, None, &[], &context().for_run(options)).unwrap()
    }
}

fn context() -> Context {
    Context::alone(Arc::new(|_| None))
}

/// Settings of a pipeline under test.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) table: String,
    pub(crate) key: Vec<String>,
    pub(crate) newest_by: Option<String>,
    pub(crate) mode: Mode,
    pub(crate) deletes: Deletes,
    pub(crate) audit: bool,
    pub(crate) contract: Contract,
    pub(crate) read: TableRead,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            table: "t".to_owned(),
            key: vec!["id".to_owned()],
            newest_by: None,
            mode: Mode::Upsert,
            deletes: Deletes::Hard,
            audit: false,
            contract: Contract::default(),
            read: TableRead {
                rows: spec::Rows::Table("t".to_owned()),
                key: Vec::new(),
                cursor: None,
                lag: std::time::Duration::ZERO,
            },
        }
    }
}

impl Wanted {
    fn pipeline(&self, system: TargetSystem, source: spec::Source) -> spec::Pipeline {
        spec::Pipeline {
            name: "p".parse().unwrap(),
            description: String::new(),
            source,
            connection: None,
            triggers: spec::Triggers::default(),
            schema: None,
            contract: self.contract,
            pii: Vec::new(),
            steps: Vec::new(),
            key: self.key.clone(),
            newest_by: self.newest_by.clone(),
            targets: vec![spec::Target {
                name: "store".parse().unwrap(),
                system,
                table: self.table.clone(),
                mode: self.mode,
                deletes: self.deletes,
                audit: self.audit,
            }],
            places: spec::Places::default(),
        }
    }
}

pub(crate) fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(values.into_iter().map(Some).collect::<Int64Array>())
}

pub(crate) fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(values.into_iter().map(Some).collect::<StringArray>())
}

/// A batch in the making.
pub(crate) struct Make {
    pub(crate) run: RunId,
    columns: Vec<(arrow_schema::Field, ArrayRef)>,
    presence: Vec<Option<BooleanBuffer>>,
    versions: Option<Vec<i64>>,
    operations: Option<Vec<Operation>>,
    base: i64,
}

/// Begins a batch that was extracted at that time.
pub(crate) fn at(base: i64) -> Make {
    Make {
        run: RunId::generate(),
        columns: Vec::new(),
        presence: Vec::new(),
        versions: None,
        operations: None,
        base,
    }
}

impl Make {
    pub(crate) fn run(mut self, run: RunId) -> Self {
        self.run = run;
        self
    }

    pub(crate) fn column(mut self, name: &str, field_type: FieldType, values: ArrayRef) -> Self {
        self.columns.push((field_type.arrow_field(name), values));
        self.presence.push(None);
        self
    }

    pub(crate) fn ids(self, values: impl IntoIterator<Item = i64>) -> Self {
        self.column("id", FieldType::Integer, ints(values))
    }

    pub(crate) fn text<'a>(self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        self.column(name, FieldType::Text, texts(values))
    }

    /// Says which records carry the last column.
    pub(crate) fn present(mut self, present: &[bool]) -> Self {
        *self.presence.last_mut().unwrap() = Some(BooleanBuffer::from(present));
        self
    }

    pub(crate) fn versions(mut self, versions: &[i64]) -> Self {
        self.versions = Some(versions.to_vec());
        self
    }

    pub(crate) fn operations(mut self, operations: &[Operation]) -> Self {
        self.operations = Some(operations.to_vec());
        self
    }

    pub(crate) fn batch(self) -> Batch {
        let (fields, arrays): (Vec<_>, Vec<_>) = self.columns.into_iter().unzip();
        let schema = Arc::new(arrow_schema::Schema::new(fields));
        let columns = RecordBatch::try_new(schema, arrays).unwrap();
        let count = columns.num_rows();
        let records = Records {
            columns,
            presence: self.presence,
            ids: Ids::Positions { prefix: format!("b{}:", self.base) },
            positions: (0..count as u64).collect(),
            extraction_base: self.base,
            versions: self.versions,
            operations: self.operations,
        };
        records.validate().unwrap();
        Batch {
            header: BatchHeader {
                pipeline: "p".parse().unwrap(),
                revision: 1,
                run: self.run,
                attempt: 1,
                batch: BatchId::from_wire(format!("batch-{}", self.base)),
                part: 0,
                sequence: 0,
                cursor_before: String::new(),
                cursor_after: String::new(),
                extracted: u32::try_from(count).unwrap(),
                push: None,
            },
            records,
        }
    }
}

/// Writes one batch and returns loaded, unchanged and the refused ones as `index code`.
pub(crate) async fn write(target: &dyn connect::Target, make: Make) -> (u32, u32, Vec<String>) {
    let batch = make.batch();
    let count = batch.records.len();
    let written = target.write(&[batch]).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(written.len(), 1);
    let written = &written[0];
    assert_eq!(written.loaded as usize + written.unchanged as usize + written.refused.len(), count);
    let refused =
        written.refused.iter().map(|refused| format!("{} {}", refused.index, refused.code));
    (written.loaded, written.unchanged, refused.collect())
}

pub(crate) fn field(name: &str, field_type: &str) -> Field {
    Field::new(name, field_type.parse().unwrap())
}

/// Runs each test against every database.
macro_rules! for_each_database {
    ($($name:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let database = tokio::task::spawn_blocking($crate::support::Db::postgres).await.unwrap();
                super::$name(database).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::support::Db::sqlite()).await;
            })*
        }
    };
}
pub(crate) use for_each_database;
