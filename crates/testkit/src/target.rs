//! A target in memory whose faults are scripted.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use connect::{Error, Refused, Sweep, Written};
use model::{Batch, Field, Remedy, RunId};
use tokio::sync::watch;

use crate::{gate::Gate, records::text};

/// What happens at a write.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The write waits at the gate before it does anything.
    Hold(Gate),
    /// The write happens, but its answer is lost.
    LoseAnswer,
}

/// A row of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Column `value`.
    pub value: String,
    /// Version of the record that wrote it.
    pub version: (i64, i64),
    /// Run that saw it last.
    pub run: RunId,
}

/// What the target holds and what was done to it.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The rows by key.
    pub rows: BTreeMap<String, Row>,
    /// Number of batches of every call of `write`, in the order of the calls.
    pub writes: Vec<usize>,
    /// Number of calls of `check`.
    pub checks: usize,
    /// Number of calls of `write` that go on.
    pub writing: usize,
    away: bool,
    refused: BTreeSet<String>,
    poisoned: BTreeMap<String, Remedy>,
    faults: VecDeque<Fault>,
}

/// A target in memory. Cloning gives a second handle to the same rows.
#[derive(Debug, Clone)]
pub struct Target {
    state: Arc<watch::Sender<State>>,
}

impl Default for Target {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }
}

impl Target {
    /// Takes the target away, or brings it back.
    pub fn set_away(&self, away: bool) {
        self.state.send_modify(|state| state.away = away);
    }

    /// Lets the target refuse rows with this key.
    pub fn refuse(&self, key: &str) {
        self.state.send_modify(|state| {
            state.refused.insert(key.to_owned());
        });
    }

    /// Lets every write fail as a whole that has a row with this key.
    pub fn poison(&self, key: &str, remedy: Remedy) {
        self.state.send_modify(|state| {
            state.poisoned.insert(key.to_owned(), remedy);
        });
    }

    /// Takes back what [`Target::poison`] and [`Target::refuse`] did for a key.
    pub fn heal(&self, key: &str) {
        self.state.send_modify(|state| {
            state.poisoned.remove(key);
            state.refused.remove(key);
        });
    }

    /// Lets something happen at the next write for which nothing is armed yet.
    pub fn arm(&self, fault: Fault) {
        self.state.send_modify(|state| state.faults.push_back(fault));
    }

    /// Returns what the target holds at this moment.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until `condition` holds and returns the state in which it did.
    ///
    /// # Panics
    ///
    /// Never: the target outlives the wait.
    pub async fn wait_for(&self, condition: impl FnMut(&State) -> bool) -> State {
        let mut state = self.state.subscribe();
        state.wait_for(condition).await.expect("the target outlives the wait").clone()
    }

    /// Counts a call of `write` and takes what is armed for it.
    fn begin(&self, batches: usize) -> Option<Fault> {
        let mut fault = None;
        self.state.send_modify(|state| {
            state.writes.push(batches);
            state.writing += 1;
            fault = state.faults.pop_front();
        });
        fault
    }

    fn change(&self, batches: &[Batch]) -> Result<Vec<Written>, Error> {
        let mut outcome = Ok(Vec::new());
        self.state.send_modify(|state| outcome = state.write(batches));
        outcome
    }
}

impl State {
    fn write(&mut self, batches: &[Batch]) -> Result<Vec<Written>, Error> {
        if self.away {
            return Err(away());
        }
        let keys = || {
            batches.iter().flat_map(|batch| {
                (0..batch.records.len()).map(|index| text(&batch.records, "key", index))
            })
        };
        if let Some(remedy) = keys().find_map(|key| self.poisoned.get(&key)) {
            let mut error = Error::stop("the table is locked away", "give it back");
            error.remedy = *remedy;
            return Err(error);
        }
        Ok(batches.iter().map(|batch| self.write_batch(batch)).collect())
    }

    fn write_batch(&mut self, batch: &Batch) -> Written {
        let records = &batch.records;
        let mut written = Written::default();
        for index in 0..records.len() {
            let key = text(records, "key", index);
            if self.refused.contains(&key) {
                written.refused.push(Refused {
                    index,
                    code: "constraint",
                    message: "the constraint `key_check` does not hold".to_owned(),
                    field: "key".to_owned(),
                });
                continue;
            }
            let (version, run) = (records.version(index), batch.header.run);
            match self.rows.get_mut(&key) {
                Some(row) if row.version >= version => {
                    row.run = run;
                    written.unchanged += 1;
                }
                _ => {
                    let value = text(records, "value", index);
                    self.rows.insert(key, Row { value, version, run });
                    written.loaded += 1;
                }
            }
        }
        written
    }
}

fn away() -> Error {
    Error::retry("the target cannot be reached", "start it")
}

#[async_trait]
impl connect::Target for Target {
    async fn check(&self) -> Result<String, Error> {
        self.state.send_modify(|state| state.checks += 1);
        if self.state.borrow().away { Err(away()) } else { Ok("there".to_owned()) }
    }

    async fn plan(&self, fields: &[Field]) -> Result<Vec<String>, Error> {
        Ok(vec![format!("create a table with {} columns", fields.len())])
    }

    async fn write(&self, batches: &[Batch]) -> Result<Vec<Written>, Error> {
        let fault = self.begin(batches.len());
        if let Some(Fault::Hold(gate)) = &fault {
            gate.pass().await;
        }
        let written = self.change(batches);
        self.state.send_modify(|state| state.writing -= 1);
        match fault {
            Some(Fault::LoseAnswer) => Err(Error::retry("the connection was cut", "wait")),
            _ => written,
        }
    }

    async fn sweep(&self, sweep: &Sweep) -> Result<u64, Error> {
        let mut removed = 0;
        let total = self.state.borrow().rows.len();
        let stays = |row: &Row| row.run == sweep.run || row.version.1 >= sweep.extraction_base;
        let gone = self.state.borrow().rows.values().filter(|row| !stays(row)).count();
        if gone as f64 > total as f64 * sweep.max_loss_percent / 100.0 {
            let what = format!("{gone} of {total} rows would be removed");
            return Err(Error::stop(what, "confirm the loss"));
        }
        self.state.send_modify(|state| {
            let before = state.rows.len();
            state.rows.retain(|_, row| stays(row));
            removed = before - state.rows.len();
        });
        Ok(removed as u64)
    }
}
