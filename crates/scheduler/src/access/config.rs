use std::{collections::BTreeMap, path::PathBuf};

use runtime::tls::TlsConfig;
use serde::{Deserialize, Serialize};
use spec::SecretText;

use super::Role;

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
    /// Callers may also send tokens of an identity provider. Default: none.
    pub oidc: Option<OidcConfig>,
    /// TLS of the API. Default: none.
    pub tls: Option<TlsConfig>,
}

/// An identity provider whose tokens are believed (OpenID Connect). Its keys are fetched from the
/// issuer's discovery document, and again when they change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// Who issues the tokens, as their `iss` says it: a URL without a slash at its end, unless the
    /// provider writes one.
    pub issuer: String,
    /// Whom the tokens are for: one of their `aud`.
    pub audience: String,
    /// How the tokens may be signed. Default: `RS256` and `ES256`.
    #[serde(default = "usual_algorithms")]
    pub algorithms: Vec<TokenAlgorithm>,
    /// The claim that tells what somebody may do: a text or a list of texts; dots lead into objects.
    /// Default: `roles`.
    #[serde(default = "usual_claim")]
    pub roles_claim: String,
    /// What each text of that claim stands for: `viewer`, `operator`, `editor`, `privacy` or `admin`.
    /// Who has none of them may do nothing.
    pub roles: BTreeMap<String, Role>,
    /// File with the authorities of the issuer's certificate, in PEM. Default: those of the system.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The issuer may have a private address. Default: no.
    #[serde(default)]
    pub allow_private: bool,
}

/// How tokens may be signed: only with keys of which the verifier knows the public half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenAlgorithm {
    /// RSA, PKCS 1, SHA-256.
    RS256,
    /// RSA, PKCS 1, SHA-384.
    RS384,
    /// RSA, PKCS 1, SHA-512.
    RS512,
    /// RSA, PSS, SHA-256.
    PS256,
    /// RSA, PSS, SHA-384.
    PS384,
    /// RSA, PSS, SHA-512.
    PS512,
    /// ECDSA, P-256, SHA-256.
    ES256,
    /// ECDSA, P-384, SHA-384.
    ES384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

fn usual_algorithms() -> Vec<TokenAlgorithm> {
    vec![TokenAlgorithm::RS256, TokenAlgorithm::ES256]
}

fn usual_claim() -> String {
    "roles".to_owned()
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
    fn algorithms_whose_keys_verifiers_share_are_refused() {
        let with = |algorithms: &str| {
            let text = format!(
                r#"{{"oidc": {{"issuer": "https://i", "audience": "a", "roles": {{"x": "admin"}}
                    {algorithms}}}}}"#
            );
            serde_json::from_str::<AccessConfig>(&text)
        };
        let usual = with("").unwrap().oidc.unwrap();
        assert_eq!(usual.algorithms, [TokenAlgorithm::RS256, TokenAlgorithm::ES256]);
        for wrong in ["none", "HS256", "hs512"] {
            let error = with(&format!(r#", "algorithms": ["{wrong}"]"#)).unwrap_err().to_string();
            assert!(error.contains("RS256"), "{error}");
        }
    }

    #[test]
    fn a_mode_that_does_not_exist_is_refused() {
        assert!(serde_json::from_str::<AccessConfig>(r#"{"mode": "open"}"#).is_err());
        let config: AccessConfig =
            serde_json::from_str(r#"{"mode": "tokens", "admin_token": "${env:T}"}"#).unwrap();
        assert_eq!(config.mode, Some(Mode::Tokens));
    }
}
