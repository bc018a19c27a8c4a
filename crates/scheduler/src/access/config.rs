use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spec::SecretText;

/// Who may call the gRPC API.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Whether callers have to send a token. Default: `none` on a loopback address; elsewhere it has
    /// to be set.
    pub mode: Option<Mode>,
    /// A reference such as `${file:/run/secrets/admin-token}`: whoever sends this token may do
    /// everything, first of all make other tokens. Read for every call, so that it can be changed.
    #[serde(with = "reference")]
    pub admin_token: Option<SecretText>,
    /// TLS of the API. Default: none.
    pub tls: Option<TlsConfig>,
}

/// Whether callers have to send a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everybody may do everything, and is `anonymous` in the audit.
    None,
    /// Callers send a token.
    Tokens,
}

/// TLS of the gRPC API, 1.2 or newer. The files are PEM. A file that is replaced
/// is read within seconds; new connections go by it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of client certificates. If set, callers need one, besides their token.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// A secret is given by reference, never in clear.
mod reference {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use spec::SecretText;

    pub(super) fn serialize<S: Serializer>(
        text: &Option<SecretText>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        text.as_ref().map(SecretText::as_written).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SecretText>, D::Error> {
        let Some(written) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        if written.starts_with("${") && written.ends_with('}') {
            return Ok(Some(SecretText::new(written)));
        }
        Err(D::Error::custom(
            "a secret stands here in clear; write `${env:NAME}` or `${file:/path}`",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_clear_is_refused_and_not_told() {
        let error = serde_json::from_str::<AccessConfig>(r#"{"admin_token": "hunter2"}"#);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("${env:NAME}") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_mode_that_does_not_exist_is_refused() {
        assert!(serde_json::from_str::<AccessConfig>(r#"{"mode": "open"}"#).is_err());
        let config: AccessConfig =
            serde_json::from_str(r#"{"mode": "tokens", "admin_token": "${env:T}"}"#).unwrap();
        assert_eq!(config.mode, Some(Mode::Tokens));
    }
}
