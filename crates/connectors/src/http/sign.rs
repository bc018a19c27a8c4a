//! Signed calls.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use connect::Error;
use reqwest::header::{HeaderName, HeaderValue};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use spec::{HmacAlgorithm, HmacEncoding, HmacSigning, ReadyTemplate, TimestampForm, quoted};

use super::client::setting;

/// Signs calls.
pub(super) struct Signer {
    config: HmacSigning,
    message: ReadyTemplate,
    key: hmac::Key,
}

impl Signer {
    pub(super) fn new(
        config: &HmacSigning,
        secret: &SecretString,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let algorithm = match config.algorithm {
            HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
            HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
        };
        Ok(Self {
            config: config.clone(),
            message: config.message.resolve(variable).map_err(setting)?,
            key: hmac::Key::new(algorithm, secret.expose_secret().as_bytes()),
        })
    }

    /// Signs a request that is otherwise complete.
    pub(super) fn sign(
        &self,
        request: &mut reqwest::Request,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let timestamp = match self.config.timestamp {
            TimestampForm::Seconds => now.timestamp().to_string(),
            TimestampForm::Milliseconds => now.timestamp_millis().to_string(),
            TimestampForm::Rfc3339 => now.to_rfc3339_opts(SecondsFormat::Secs, true),
        };
        let url = request.url();
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let body = request.body().and_then(|body| body.as_bytes()).unwrap_or_default();
        let values = |name: &str| {
            Some(quoted(&match name {
                "method" => request.method().to_string(),
                "host" => host.clone(),
                "path" => url.path().to_owned(),
                "query" => url.query().unwrap_or_default().to_owned(),
                "body" => String::from_utf8_lossy(body).into_owned(),
                "timestamp" => timestamp.clone(),
                _ => return None,
            }))
        };
        let message = self.message.fill(&values, str::to_owned).map_err(|unfilled| {
            Error::stop(unfilled.to_string(), "correct `message` of the signature in the pipeline")
        })?;
        let tag = hmac::sign(&self.key, message.as_bytes());
        let written = match self.config.encoding {
            HmacEncoding::Hex => hex(tag.as_ref()),
            HmacEncoding::Base64 => STANDARD.encode(tag.as_ref()),
        };
        let signature = format!("{}{written}", self.config.prefix);
        insert(request, &self.config.header, &signature, true)?;
        if let Some(header) = &self.config.timestamp_header {
            insert(request, header, &timestamp, false)?;
        }
        Ok(())
    }
}

/// Writes bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
        text
    })
}

/// Sets a header.
pub(super) fn insert(
    request: &mut reqwest::Request,
    name: &str,
    value: &str,
    secret: bool,
) -> Result<(), Error> {
    let bad = |_| {
        Error::stop(
            format!("the value for the header `{name}` has characters that no header can have"),
            "correct the setting or the secret that it comes from",
        )
    };
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(()))?;
    let mut value = HeaderValue::from_str(value).map_err(|_| bad(()))?;
    value.set_sensitive(secret);
    request.headers_mut().insert(header, value);
    Ok(())
}
