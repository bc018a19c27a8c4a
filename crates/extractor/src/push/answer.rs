//! What a sender is answered.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};

/// Why a request is not taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// There is no such hook.
    NotFound,
    /// Only POST is served.
    Method,
    /// The sender is not believed. Nothing says why.
    Unauthorized(Option<&'static str>),
    /// The body is too large, compressed or not.
    TooLarge(usize),
    /// The body is no JSON.
    MediaType,
    /// The body did not arrive in time.
    TimedOut,
    /// The body is not as declared.
    Malformed(String),
    /// Nothing can be stored at the moment.
    Unavailable(&'static str),
}

impl Rejection {
    /// A short name, for counting.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Method => "method",
            Self::Unauthorized(_) => "unauthorized",
            Self::TooLarge(_) => "too_large",
            Self::MediaType => "media_type",
            Self::TimedOut => "timed_out",
            Self::Malformed(_) => "malformed",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// Makes the answer. `retry_after` is for those who may come again.
    pub(crate) fn into_response(self, retry_after: Duration) -> Response<Full<Bytes>> {
        let (status, text) = match &self {
            Self::NotFound => (StatusCode::NOT_FOUND, "no pipeline takes webhooks here".to_owned()),
            Self::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "webhooks are sent by POST".to_owned())
            }
            Self::Unauthorized(_) => {
                (StatusCode::UNAUTHORIZED, "the request is not authorized".to_owned())
            }
            Self::TooLarge(limit) => {
                (StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {limit} bytes"))
            }
            Self::MediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send JSON, as it is or compressed by gzip".to_owned(),
            ),
            Self::TimedOut => {
                (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".to_owned())
            }
            Self::Malformed(reason) => (StatusCode::BAD_REQUEST, reason.clone()),
            Self::Unavailable(reason) => (StatusCode::SERVICE_UNAVAILABLE, (*reason).to_owned()),
        };
        let mut response = answer(status, text);
        let headers = response.headers_mut();
        match self {
            Self::Method => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            Self::Unauthorized(Some(challenge)) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            Self::Unavailable(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
            }
            // What is left of the body is not read, so the connection cannot be used again.
            Self::TooLarge(_) | Self::TimedOut => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::NotFound | Self::Unauthorized(None) | Self::MediaType | Self::Malformed(_) => {}
        }
        response
    }
}

/// Makes an answer of text.
pub(crate) fn answer(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
