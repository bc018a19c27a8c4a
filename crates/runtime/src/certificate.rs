//! When a certificate ends.

use std::time::SystemTime;

use opentelemetry::{KeyValue, global, metrics::Gauge};
use rustls::pki_types::{CertificateDer, pem::PemObject};

/// Tells when certificates end, as a metric.
#[derive(Debug, Clone)]
pub struct Ends {
    gauge: Gauge<u64>,
}

impl Ends {
    /// Returns the metric.
    #[must_use]
    pub fn new() -> Self {
        let gauge = global::meter("certificates")
            .u64_gauge("tributary_certificate_end_timestamp")
            .with_unit("s")
            .with_description(
                "When the first of the certificates in a file ends, in seconds since 1970.",
            )
            .build();
        Self { gauge }
    }

    /// Tells the first end of the certificates in a file. A file without one tells nothing.
    pub fn tell(&self, certificate: String, pem: &[u8]) {
        let ends = CertificateDer::pem_slice_iter(pem).filter_map(|one| not_after(&one.ok()?));
        let Some(end) = ends.min() else { return };
        let since_1970 = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.gauge.record(since_1970.as_secs(), &[KeyValue::new("certificate", certificate)]);
    }
}

impl Default for Ends {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the end of a certificate in DER: RFC 5280, section 4.1, `tbsCertificate.validity.notAfter`.
/// `None` for what is no certificate.
#[must_use]
pub fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    const INTEGER: u8 = 0x02;
    const UTC_TIME: u8 = 0x17;
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, algorithm, issuer.
    for wanted in [INTEGER, SEQUENCE, SEQUENCE] {
        let (tag, _, rest) = element(fields)?;
        fields = (tag == wanted).then_some(rest)?;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        // Two digits of the year, up to 2049.
        UTC_TIME if text < "5" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        _ => text.to_owned(),
    };
    let end = chrono::NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok()?;
    Some(end.and_utc().into())
}

/// Splits the first element of DER into its tag, its contents, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for bytes in [&b""[..], b"0", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x02"] {
            assert_eq!(not_after(bytes), None);
        }
    }
}
