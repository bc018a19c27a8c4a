//! Any bytes of PostgreSQL's replication log are a message or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| connectors::fuzz::read_log(message));
