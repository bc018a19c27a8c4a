//! Any bytes are a batch or are refused, and a batch comes back.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let message = Bytes::copy_from_slice(bytes);
    let _ = wire::decode_header(&message);
    if let Ok(batch) = wire::decode(message.clone()) {
        batch.records.validate().expect("its parts fit each other");
        let again = wire::decode(wire::encode(&batch)).expect("what we write we read");
        assert_eq!(again.header, batch.header);
        assert_eq!(wire::encode(&again), wire::encode(&batch));
    }
    if let Ok(quarantined) = wire::decode_quarantined(message) {
        wire::decode_quarantined(wire::encode_quarantined(&quarantined))
            .expect("what we write we read");
    }
});
