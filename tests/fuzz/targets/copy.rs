//! Any bytes of PostgreSQL's binary COPY are rows, the same however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| connectors::fuzz::read_copy(content));
