use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use model::{PipelineName, RunId};
use sqlx::Connection;
use store::{NewRevision, NewRun, NewRunTarget, Run, Store, Trigger};
use testkit::postgres::Postgres;
use wire::ledger::{
    BatchExtracted, BatchLoaded, BatchTransformed, LedgerEntry, PartExtracted, PartsPlanned,
    ledger_entry::Event,
};

static POSTGRES: LazyLock<Mutex<Postgres>> = LazyLock::new(|| Mutex::new(Postgres::start()));

/// A database of its own, which ends with the test.
pub(crate) struct Database {
    pub(crate) address: String,
    _folder: Option<tempfile::TempDir>,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("sqlite://{}", folder.path().join("a/store.db").display());
        Self { address, _folder: Some(folder) }
    }

    pub(crate) async fn postgres() -> Self {
        let address = tokio::task::spawn_blocking(|| {
            POSTGRES.lock().unwrap_or_else(PoisonError::into_inner).create_database()
        })
        .await
        .unwrap();
        Self { address, _folder: None }
    }

    /// Runs SQL past the store.
    pub(crate) async fn execute(&self, sql: &'static str) -> sqlx::Result<()> {
        if self.address.starts_with("sqlite") {
            let mut connection = sqlx::SqliteConnection::connect(&self.address).await?;
            sqlx::raw_sql(sql).execute(&mut connection).await?;
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.address).await?;
            sqlx::raw_sql(sql).execute(&mut connection).await?;
        }
        Ok(())
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.address.clone().into(), 4).await.unwrap()
    }
}

/// Runs a test on both databases.
macro_rules! on_both {
    ($($test:ident;)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(crate::support::Database::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(crate::support::Database::postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_both;

pub(crate) fn at(second: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_000_000 + second)
}

pub(crate) fn name(text: &str) -> PipelineName {
    text.parse().unwrap()
}

pub(crate) fn revision(pipeline: &str, replaces: Option<u32>) -> NewRevision {
    NewRevision {
        name: name(pipeline),
        replaces,
        yaml: format!("name: {pipeline}"),
        schema: None,
        forget_cursors: false,
    }
}

pub(crate) fn new_run(pipeline: &str) -> NewRun {
    NewRun {
        pipeline: name(pipeline),
        revision: 1,
        trigger: Trigger::Manual,
        due_key: None,
        due_at: None,
        connection: None,
        places: None,
        priority: 5,
        parameters: BTreeMap::new(),
        range: None,
        full: false,
        confirm_loss: false,
        accepted_fields: vec!["extra".to_owned()],
        targets: vec![
            NewRunTarget { name: "store".to_owned(), sweep: false },
            NewRunTarget { name: "copy".to_owned(), sweep: false },
        ],
    }
}

/// A store with the pipeline `shop`, and a run of it with the targets `store` and `copy`.
pub(crate) async fn started(database: &Database) -> (Store, Run) {
    let store = database.open().await;
    store.apply(vec![revision("shop", None)], at(0)).await.unwrap();
    let run = store.create_run(&new_run("shop"), at(1)).await.unwrap();
    (store, run)
}

/// Makes ledger entries of one attempt of a run.
#[derive(Clone, Copy)]
pub(crate) struct Stages {
    pub(crate) run: RunId,
    pub(crate) attempt: u32,
}

impl Stages {
    pub(crate) fn entry(self, event: Event) -> LedgerEntry {
        LedgerEntry {
            run: self.run.to_string(),
            attempt: self.attempt,
            event: Some(event),
            push: None,
        }
    }

    pub(crate) fn planned(self, parts: &[&str], end: i64) -> LedgerEntry {
        self.entry(Event::PartsPlanned(PartsPlanned {
            parts: parts.iter().map(|part| (*part).to_owned()).collect(),
            extraction_end: end,
            gone: Vec::new(),
        }))
    }

    /// Ten records with cursors that name the sequence.
    pub(crate) fn extracted(self, part: u32, sequence: u32) -> LedgerEntry {
        let (before, after) = (format!("c{sequence}"), format!("c{}", sequence + 1));
        self.extracted_as(&format!("b{part}-{sequence}"), part, sequence, &before, &after)
    }

    pub(crate) fn extracted_as(
        self,
        batch: &str,
        part: u32,
        sequence: u32,
        before: &str,
        after: &str,
    ) -> LedgerEntry {
        self.entry(Event::BatchExtracted(BatchExtracted {
            batch: batch.to_owned(),
            part,
            sequence,
            cursor_before: before.to_owned(),
            cursor_after: after.to_owned(),
            records: 10,
            size_bytes: 1_000,
            quarantined: 1,
        }))
    }

    pub(crate) fn part_ended(self, part: u32, batches: u32) -> LedgerEntry {
        let cursor = "end".to_owned();
        self.entry(Event::PartExtracted(PartExtracted {
            part,
            batches,
            cursor,
            ..PartExtracted::default()
        }))
    }

    /// Of nine records two are filtered and one is quarantined.
    pub(crate) fn transformed(self, batch: &str) -> LedgerEntry {
        let batch = batch.to_owned();
        self.entry(Event::BatchTransformed(BatchTransformed {
            batch,
            filtered: 2,
            quarantined: 1,
            extracted: 0,
        }))
    }

    /// Of six records three are new, two known, one refused.
    pub(crate) fn loaded(self, batch: &str, target: &str) -> LedgerEntry {
        self.entry(Event::BatchLoaded(BatchLoaded {
            batch: batch.to_owned(),
            target: target.to_owned(),
            loaded: 3,
            unchanged: 2,
            quarantined: 1,
            ages: HashMap::from([(40, 3)]),
        }))
    }

    /// All that becomes of a batch.
    pub(crate) fn batch(self, part: u32, sequence: u32) -> Vec<LedgerEntry> {
        let batch = format!("b{part}-{sequence}");
        vec![
            self.extracted(part, sequence),
            self.transformed(&batch),
            self.loaded(&batch, "store"),
            self.loaded(&batch, "copy"),
        ]
    }
}
