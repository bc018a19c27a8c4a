//! No bytes open that were not sealed for their place.
#![no_main]

use std::{path::PathBuf, sync::LazyLock};

use bus::{OpenError, SealKeys};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<SealKeys> = LazyLock::new(|| {
    let name = format!("tributary-fuzz-{}.keys", std::process::id());
    let folder: PathBuf = std::env::temp_dir().join(name);
    SealKeys::create(&folder).expect("a temporary folder");
    SealKeys::read(&folder).expect("a key was made")
});

fuzz_target!(|content: &[u8]| {
    let bytes = Bytes::copy_from_slice(content);
    match KEYS.open("fuzz", bytes.clone()) {
        Ok(opened) => assert_eq!(opened, bytes, "it was not sealed"),
        Err(OpenError::NoKey { id }) => assert_eq!(bus::sealed_with(content), Some(id)),
        Err(_) => {}
    }
    if let Ok(text) = std::str::from_utf8(content)
        && let Ok(opened) = KEYS.open_text("fuzz", text)
    {
        assert_eq!(opened, text, "it was not sealed");
    }
    let sealed = KEYS.seal("fuzz", content);
    assert_eq!(KEYS.open("fuzz", sealed.clone()), Ok(bytes));
    if let Some((at, flip)) = content.first().zip(content.last()).filter(|(_, flip)| **flip != 0) {
        let mut changed = sealed.to_vec();
        let at = usize::from(*at) % changed.len();
        changed[at] ^= flip;
        assert_ne!(KEYS.open("fuzz", changed.into()), Ok(Bytes::copy_from_slice(content)));
    }
});
