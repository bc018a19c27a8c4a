#![doc = include_str!("../README.md")]

mod column;
mod decode;
mod encode;
mod error;
mod header;
mod protobuf;
mod quarantine;
#[cfg(test)]
mod tests;

pub use decode::{decode, decode_header};
pub use encode::{EncodedRecords, encode, encode_records};
pub use error::DecodeError;
pub use header::push_run;
pub use prost::Message;
pub use quarantine::{Quarantined, Reason, decode_quarantined, encode_quarantined};

/// All contracts as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! contract {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            unreachable_pub,
            unused_qualifications,
            clippy::all,
            clippy::allow_attributes_without_reason,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::large_futures,
            clippy::let_underscore_must_use,
            clippy::unused_async,
            clippy::unwrap_used,
            reason = "generated from proto/, where every item has its comment"
        )]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        }
    };
}

contract!(
    /// `tributary.record.v1`: batches and quarantined records.
    record,
    "tributary.record.v1"
);
contract!(
    /// `tributary.task.v1`: work that the scheduler hands to the stages.
    task,
    "tributary.task.v1"
);
contract!(
    /// `tributary.ledger.v1`: what every stage did.
    ledger,
    "tributary.ledger.v1"
);
contract!(
    /// `tributary.control.v1`: what people and other services ask of Tributary.
    control,
    "tributary.control.v1"
);
contract!(
    /// `tributary.ingest.v1`: records that other programs push.
    ingest,
    "tributary.ingest.v1"
);
contract!(
    /// `externalscaler`: how KEDA asks how much work waits.
    scaler,
    "externalscaler"
);
