//! Any file is read as JSON, the same however it is cut, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| fuzz::read("json", "json: {path: \"FILE\"}", content));
