use std::fmt::Write;

use anyhow::anyhow;
use ring::{
    digest::{SHA256, digest as hash},
    rand::{SecureRandom, SystemRandom},
};

/// How tokens begin, so that scanners for leaked secrets recognise them.
const PREFIX: &str = "trb_";

/// Returns a new random token: 256 bits.
///
/// # Errors
///
/// When the system gives no random bytes.
pub(crate) fn new_secret() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    let random = SystemRandom::new();
    random.fill(&mut bytes).map_err(|_| anyhow!("the system gives no random bytes"))?;
    let mut text = PREFIX.to_owned();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a text can be written to");
    }
    Ok(text)
}

/// Returns what is kept of a token: it is too random to be guessed from its SHA-256.
pub(crate) fn digest(secret: &str) -> [u8; 32] {
    let digest = hash(&SHA256, secret.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
