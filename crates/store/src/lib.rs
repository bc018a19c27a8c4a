#![doc = include_str!("../README.md")]

mod attempts;
mod audit;
mod chain;
mod cursors;
mod database;
mod deliveries;
mod ending;
mod error;
mod inspect;
mod ledger;
mod notes;
mod pausing;
mod pipelines;
mod places;
mod pushes;
mod quarantine;
mod replay;
mod run;
mod runs;
mod schedules;
mod sealed;
mod settle;
mod shared;
mod store;
mod sweeps;
mod tokens;
mod value;

pub use attempts::HandedOut;
pub use audit::{AuditEntry, Verified};
pub use cursors::LoadedCursor;
pub use deliveries::Receiver;
pub use error::Error;
pub use inspect::{Inspection, Protection, inspect, protection};
pub use ledger::Recorded;
pub use pipelines::{NewRevision, StoredPipeline};
pub use pushes::NewPushRun;
pub use quarantine::{NewQuarantined, Quarantined, Selection};
pub use replay::{ReplayBatch, Replayable};
pub use run::{
    Books, NewRun, NewRunTarget, Range, Run, RunState, SweepState, TargetBooks, Trigger, Usage,
};
pub use schedules::{Schedule, Skip, Taken};
pub use sealed::{KeptRecord, SealedCursor};
pub use store::Store;
pub use tokens::Token;
