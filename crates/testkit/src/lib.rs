//! What tests of several crates share: real servers that end with the test, and fakes of sources and
//! targets whose faults are scripted.

pub mod certificates;
pub mod gate;
pub mod http;
pub mod nats;
pub mod ports;
pub mod postgres;
pub mod provider;
pub mod records;
pub mod source;
pub mod target;
