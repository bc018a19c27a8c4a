//! Reads the body of a request within its limits.

use std::{io::Read, time::Duration};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    body::{Body, Incoming},
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap},
};

use super::answer::Rejection;

/// A body as it was sent, and what is in it.
pub(crate) struct Received {
    /// As it was sent.
    pub(crate) raw: Bytes,
    /// Without compression.
    pub(crate) text: Bytes,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
}

/// Tells how the body of a request is written, if that can be read.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Coding, Rejection> {
    let kind = match headers.get(CONTENT_TYPE) {
        None => "application/json",
        Some(value) => value.to_str().map_err(|_| Rejection::MediaType)?,
    };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = matches!(kind.as_str(), "application/json" | "text/json" | "text/plain")
        || kind.ends_with("+json");
    if !is_json {
        return Err(Rejection::MediaType);
    }
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = match codings.next().map(|value| value.to_str()) {
        None => Coding::Identity,
        Some(Ok(text)) if text.eq_ignore_ascii_case("identity") => Coding::Identity,
        Some(Ok(text)) if text.eq_ignore_ascii_case("gzip") => Coding::Gzip,
        Some(_) => return Err(Rejection::MediaType),
    };
    match codings.next() {
        None => Ok(coding),
        Some(_) => Err(Rejection::MediaType),
    }
}

/// Returns how large a body says that it is, or may be.
pub(crate) fn announced(body: &Incoming, limit: usize) -> Result<usize, Rejection> {
    match body.size_hint().exact() {
        None => Ok(limit),
        Some(size) => match usize::try_from(size) {
            Ok(size) if size <= limit => Ok(size),
            _ => Err(Rejection::TooLarge(limit)),
        },
    }
}

/// Reads a body.
pub(crate) async fn read(
    body: Incoming,
    coding: Coding,
    limit: usize,
    patience: Duration,
) -> Result<Received, Rejection> {
    let collected = tokio::time::timeout(patience, Limited::new(body, limit).collect()).await;
    let raw = match collected {
        Err(_) => return Err(Rejection::TimedOut),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Rejection::TooLarge(limit)),
        Ok(Err(_)) => return Err(Rejection::Malformed("the body ends too early".to_owned())),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    let text = decoded(&raw, coding, limit)?;
    Ok(Received { raw, text })
}

/// Returns a body of at most `limit` bytes without compression.
pub(crate) fn decoded(raw: &Bytes, coding: Coding, limit: usize) -> Result<Bytes, Rejection> {
    match coding {
        Coding::Identity => Ok(raw.clone()),
        Coding::Gzip => inflate(raw, limit),
    }
}

fn inflate(raw: &[u8], limit: usize) -> Result<Bytes, Rejection> {
    let mut text = Vec::new();
    let read = MultiGzDecoder::new(raw).take(limit as u64 + 1).read_to_end(&mut text);
    match read {
        Err(_) => Err(Rejection::Malformed("the body is no gzip".to_owned())),
        Ok(size) if size > limit => Err(Rejection::TooLarge(limit)),
        Ok(_) => Ok(Bytes::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use hyper::header::HeaderValue;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_body_that_grows_beyond_its_limit_is_refused_on_the_way() {
        let bomb = gzip(&vec![b' '; 10_000_000]);
        assert!(bomb.len() < 20_000);
        assert_eq!(inflate(&bomb, 20_000), Err(Rejection::TooLarge(20_000)));
        assert_eq!(inflate(&gzip(b"1234"), 4).unwrap(), Bytes::from_static(b"1234"));
        assert!(matches!(inflate(b"1234", 4), Err(Rejection::Malformed(_))));
        let cut = &gzip(b"12345678")[..12];
        assert!(matches!(inflate(cut, 100), Err(Rejection::Malformed(_))));
    }

    #[test]
    fn what_is_no_json_is_refused_by_its_type() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            headers
        };
        for wrong in [
            headers(&[("content-type", "application/xml")]),
            headers(&[("content-type", "application/x-www-form-urlencoded")]),
            headers(&[("content-encoding", "br")]),
            headers(&[("content-encoding", "gzip"), ("content-encoding", "gzip")]),
        ] {
            assert_eq!(coding(&wrong), Err(Rejection::MediaType), "{wrong:?}");
        }
        for right in [
            headers(&[]),
            headers(&[("content-type", "Application/JSON; charset=utf-8")]),
            headers(&[("content-type", "application/cloudevents+json")]),
        ] {
            assert_eq!(coding(&right), Ok(Coding::Identity));
        }
        assert_eq!(coding(&headers(&[("content-encoding", "GZIP")])), Ok(Coding::Gzip));
    }
}
