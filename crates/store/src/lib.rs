#![doc = include_str!("../README.md")]

mod attempts;
mod chain;
mod cursors;
mod database;
mod ending;
mod error;
mod ledger;
mod notes;
mod pipelines;
mod quarantine;
mod replay;
mod run;
mod runs;
mod settle;
mod store;
mod sweeps;
mod value;

pub use attempts::HandedOut;
pub use cursors::LoadedCursor;
pub use error::Error;
pub use ledger::Recorded;
pub use pipelines::{NewRevision, StoredPipeline};
pub use quarantine::{NewQuarantined, Quarantined, Selection};
pub use replay::{ReplayBatch, Replayable};
pub use run::{Books, NewRun, NewRunTarget, Run, RunState, SweepState, TargetBooks, Trigger};
pub use store::Store;
