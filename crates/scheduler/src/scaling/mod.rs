//! How much work waits, by stage: what an autoscaler goes by.

mod demand;
mod grpc;
mod survey;

pub(crate) use grpc::Scaler;
pub(crate) use survey::{Survey, Waiting, run};
