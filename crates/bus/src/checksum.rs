//! The checksum that travels with every payload.

use async_nats::HeaderMap;
use model::Remedy;

use crate::OpenError;

const HEADER: &str = "Tributary-Checksum";

/// A payload is not what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damaged {
    /// It carries no checksum that can be read.
    #[error("the message carries no checksum")]
    Unmarked,
    /// Its checksum is another one.
    #[error("the checksum of the message does not fit its content")]
    Differs,
    /// It is sealed and does not open.
    #[error(transparent)]
    Sealed(#[from] OpenError),
}

impl Damaged {
    /// Returns what to do: the message does not heal, so it is quarantined as it is.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        Remedy::Quarantine
    }
}

pub(crate) fn write(payload: &[u8], headers: &mut HeaderMap) {
    headers.insert(HEADER, format!("{:016x}", twox_hash::XxHash3_64::oneshot(payload)));
}

pub(crate) fn verify(payload: &[u8], headers: Option<&HeaderMap>) -> Result<(), Damaged> {
    let expected = headers
        .and_then(|headers| headers.get(HEADER))
        .and_then(|value| u64::from_str_radix(value.as_str(), 16).ok())
        .ok_or(Damaged::Unmarked)?;
    if expected == twox_hash::XxHash3_64::oneshot(payload) { Ok(()) } else { Err(Damaged::Differs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found() {
        let mut headers = HeaderMap::new();
        assert_eq!(verify(b"abc", None), Err(Damaged::Unmarked));
        headers.insert(HEADER, "not hex");
        assert_eq!(verify(b"abc", Some(&headers)), Err(Damaged::Unmarked));
        write(b"abc", &mut headers);
        assert_eq!(verify(b"abd", Some(&headers)), Err(Damaged::Differs));
        assert_eq!(verify(b"abc", Some(&headers)), Ok(()));
    }
}
