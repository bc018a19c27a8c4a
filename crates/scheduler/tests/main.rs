//! The scheduler with a real broker; the other stages are played by the tests.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod access;
mod house;
mod losses;
mod oidc;
mod pipelines;
mod quarantine;
mod quotas;
mod replicas;
mod runs;
mod scaling;
mod schedules;
mod sweeps;
