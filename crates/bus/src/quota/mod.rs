//! Call budgets that all replicas of all services share.

mod clock;
mod desk;
mod document;
mod follow;
mod local;
mod peer;
#[cfg(test)]
mod simulation;
mod throttle;
mod usage;
mod window;

pub use throttle::Quotas;
pub use usage::{LimitUse, QuotaUse};
