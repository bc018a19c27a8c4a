//! How an HTTP API is reached: what sources and targets share.

use std::time::Duration;

use model::PipelineName;

use super::{optional, secrets};
use crate::{
    Auth, Grant, HmacAlgorithm, HmacEncoding, HmacSigning, HttpClient, JsonTemplate, KeyPlace,
    OAuth2, SecretText, Template, TimestampForm, Tls, quoted,
    reader::{At, Keys, Shape},
};

/// Keys that say how an API is reached.
pub(super) const CLIENT_KEYS: [&str; 7] =
    ["base_url", "auth", "timeout", "allow_private", "quota", "tls", "max_answer"];

const AUTHS: [&str; 6] = ["none", "api_key", "basic", "bearer", "oauth2", "hmac"];
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 * 1024 * 1024;
const TEMPLATE_REMEDY: &str = "write places as `{{ name }}`";

/// Reads the client's keys out of the map that they stand in. `headers` are left empty.
pub(super) fn client(keys: &Keys<'_>) -> Option<HttpClient> {
    let base_url = keys
        .require("base_url", "add `base_url: \"https://api.example.com\"`")
        .and_then(|at| url(&at));
    // The rest is looked at in any case, for its own problems.
    let client = client_at(keys, base_url.clone().unwrap_or_else(|| SecretText::new("")));
    base_url.and(client)
}

/// Reads the client's keys but for its URL, as [`client`] does.
pub(super) fn client_at(keys: &Keys<'_>, base_url: SecretText) -> Option<HttpClient> {
    let auth = match keys.get("auth") {
        Some(at) => auth(&at),
        None => Some(Auth::None),
    };
    let timeout = match keys.get("timeout") {
        Some(at) => positive(&at),
        None => Some(TIMEOUT),
    };
    let allow_private = optional(keys, "allow_private", At::boolean);
    let quota = optional(keys, "quota", |at| match PipelineName::try_from(at.text()?) {
        Ok(name) => Some(Some(name)),
        Err(error) => {
            at.problem(error.to_string(), "write the name of a quota: `quota: shop`");
            None
        }
    });
    let tls = optional(keys, "tls", tls);
    let max_answer = match keys.get("max_answer") {
        Some(at) => size(&at),
        None => Some(MAX_ANSWER),
    };
    Some(HttpClient {
        base_url,
        auth: auth?,
        headers: Vec::new(),
        timeout: timeout?,
        allow_private: allow_private?,
        quota: quota?,
        tls: tls?,
        max_answer: max_answer?,
    })
}

/// Reads headers whose values hold no places.
pub(super) fn headers(at: &At<'_>) -> Option<Vec<(String, SecretText)>> {
    let entries = at.entries("write headers as `Name: value`")?;
    let headers = entries.iter().map(|(name, at)| {
        let name = header_name(name, at);
        Some((name?, SecretText::new(at.text()?)))
    });
    headers.collect::<Vec<_>>().into_iter().collect()
}

/// Checks the name of a header, and returns it in lower case.
pub(super) fn header_name(name: &str, at: &At<'_>) -> Option<String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        at.problem(format!("`{name}` is not the name of a header"), "write a name such as `X-Key`");
        return None;
    }
    if name.eq_ignore_ascii_case("authorization") && at.text().is_some_and(|t| !t.contains("${")) {
        at.problem("a secret stands here in clear", "use `auth`, or write `${env:NAME}`");
        return None;
    }
    Some(name.to_ascii_lowercase())
}

/// Reads a template. `allowed` are the first parts of the names that can be filled here.
pub(super) fn template(at: &At<'_>, allowed: &[&str]) -> Option<Template> {
    let text = at.text()?;
    template_of(at, &text, allowed)
}

fn template_of(at: &At<'_>, text: &str, allowed: &[&str]) -> Option<Template> {
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(what) => {
            at.problem(what, TEMPLATE_REMEDY);
            return None;
        }
    };
    for name in template.names() {
        let first = name.split('.').next().unwrap_or_default();
        if !allowed.is_empty() && !allowed.contains(&first) {
            at.problem(
                format!("nothing here is called `{name}`"),
                format!("names begin with {}", allowed.join(", ")),
            );
            return None;
        }
    }
    Some(template)
}

/// Reads named templates: a query, a form, headers.
pub(super) fn templates(at: &At<'_>, allowed: &[&str]) -> Option<Vec<(String, Template)>> {
    let entries = at.entries("write `name: value`")?;
    let all = entries.iter().map(|(name, at)| Some((name.clone(), template(at, allowed)?)));
    all.collect::<Vec<_>>().into_iter().collect()
}

/// Reads JSON with places, written as YAML.
pub(super) fn json_template(at: &At<'_>, allowed: &[&str]) -> Option<JsonTemplate> {
    Some(match at.shape() {
        Shape::Null => JsonTemplate::Literal("null".to_owned()),
        Shape::Scalar { text, plain } => {
            let bare = plain
                && (matches!(text, "true" | "false")
                    || serde_json::from_str::<serde_json::Number>(text).is_ok());
            if bare {
                JsonTemplate::Literal(text.to_owned())
            } else if text.contains("{{") || text.contains("${") {
                JsonTemplate::Text(template_of(at, text, allowed)?)
            } else {
                JsonTemplate::Literal(quoted(text))
            }
        }
        Shape::List(items) => {
            let items = items.iter().map(|item| json_template(item, allowed));
            JsonTemplate::List(items.collect::<Vec<_>>().into_iter().collect::<Option<_>>()?)
        }
        Shape::Map(members) => {
            let members = members
                .iter()
                .map(|(name, value)| Some(((*name).to_owned(), json_template(value, allowed)?)));
            JsonTemplate::Object(members.collect::<Vec<_>>().into_iter().collect::<Option<_>>()?)
        }
    })
}

pub(super) fn url(at: &At<'_>) -> Option<SecretText> {
    let text = at.text()?;
    if text.starts_with("${") {
        return Some(SecretText::new(text));
    }
    let remedy = "write `https://host/path`, without user, query and fragment";
    let shown = text.replace("${", "").replace('}', "");
    let sound = url::Url::parse(&shown).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if !sound {
        at.problem("the text is not the URL of an HTTP API", remedy);
        return None;
    }
    Some(SecretText::new(text))
}

fn positive(at: &At<'_>) -> Option<Duration> {
    let duration = at.duration()?;
    if duration.is_zero() {
        at.problem("the duration is zero", "write at least `1ms`");
        return None;
    }
    Some(duration)
}

fn size(at: &At<'_>) -> Option<usize> {
    let text = at.text()?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    match number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(size) if (1024..=1 << 30).contains(&size) => Some(size),
        _ => {
            at.problem(
                format!("`{text}` is not a size that an answer may have"),
                "write a whole number with its unit, from `1KiB` to `1GiB`",
            );
            None
        }
    }
}

fn tls(at: &At<'_>) -> Option<Tls> {
    let keys = at.keys(&["ca", "certificate", "key"])?;
    let ca = optional(&keys, "ca", |at| at.text().map(SecretText::new).map(Some));
    let certificate = optional(&keys, "certificate", |at| at.text().map(SecretText::new).map(Some));
    let key = optional(&keys, "key", |at| secrets::secret(at).map(Some));
    let tls = Tls { ca: ca?, certificate: certificate?, key: key? };
    if tls.certificate.is_some() != tls.key.is_some() {
        at.problem(
            "a certificate needs its key, and a key its certificate",
            "add `certificate: \"${file:/path.pem}\"` and `key: \"${file:/path.pem}\"`",
        );
        return None;
    }
    Some(tls)
}

fn auth(at: &At<'_>) -> Option<Auth> {
    if !at.is_map() {
        return at.word(&[("none", ())]).map(|()| Auth::None);
    }
    let keys = at.keys(&AUTHS)?;
    let (kind, at) = keys.only(&AUTHS, "kind of authentication")?;
    match kind {
        "api_key" => api_key(&at),
        "basic" => {
            let keys = at.keys(&["user", "password"])?;
            let user = keys.require("user", "name the user").and_then(|at| at.text());
            let password = keys.require("password", SECRET).and_then(|at| secrets::secret(&at));
            Some(Auth::Basic { user: SecretText::new(user?), password: password? })
        }
        "bearer" => secrets::secret(&at).map(Auth::Bearer),
        "oauth2" => oauth2(&at).map(Auth::OAuth2),
        "hmac" => hmac(&at).map(Auth::Hmac),
        _ => {
            at.boolean()?;
            Some(Auth::None)
        }
    }
}

const SECRET: &str = "write `${env:NAME}` or `${file:/path}`";

fn api_key(at: &At<'_>) -> Option<Auth> {
    const PLACES: [&str; 3] = ["header", "query", "cookie"];
    let keys = at.keys(&["header", "query", "cookie", "value"])?;
    let value = keys.require("value", SECRET).and_then(|at| secrets::secret(&at));
    let (place, at) = keys.only(&PLACES, "place of the key")?;
    let name = at.name()?;
    let (place, name) = match place {
        "header" => (KeyPlace::Header, header_name_of(&name, &at)?),
        "query" => (KeyPlace::Query, name),
        _ => (KeyPlace::Cookie, name),
    };
    Some(Auth::ApiKey { place, name, value: value? })
}

fn header_name_of(name: &str, at: &At<'_>) -> Option<String> {
    if name.eq_ignore_ascii_case("authorization") {
        return Some(name.to_ascii_lowercase());
    }
    header_name(name, at)
}

fn oauth2(at: &At<'_>) -> Option<OAuth2> {
    let keys = at.keys(&[
        "token_url",
        "client_id",
        "client_secret",
        "refresh_token",
        "scope",
        "client_in",
        "parameters",
    ])?;
    let token_url = keys.require("token_url", "name the token endpoint").and_then(|at| url(&at));
    let client_id = keys.require("client_id", "add the id of the client").and_then(|at| at.text());
    let client_secret = optional(&keys, "client_secret", |at| secrets::secret(at).map(Some));
    let refresh_token = optional(&keys, "refresh_token", |at| secrets::secret(at).map(Some));
    let scope = optional(&keys, "scope", |at| at.text().map(Some));
    let client_in_body = match keys.get("client_in") {
        Some(at) => at.word(&[("header", false), ("body", true)]),
        None => Some(false),
    };
    let parameters = optional(&keys, "parameters", |at| {
        let entries = at.entries("write `name: value`")?;
        entries.iter().map(|(name, at)| Some((name.clone(), SecretText::new(at.text()?)))).collect()
    });
    let (client_secret, refresh_token) = (client_secret?, refresh_token?);
    if client_secret.is_none() && refresh_token.is_none() {
        at.problem(
            "nothing is given that a token could be got for",
            "add `client_secret` for client credentials, or `refresh_token`",
        );
        return None;
    }
    Some(OAuth2 {
        token_url: token_url?,
        grant: refresh_token.map_or(Grant::ClientCredentials, Grant::RefreshToken),
        client_id: SecretText::new(client_id?),
        client_in_body: client_in_body? || client_secret.is_none(),
        client_secret,
        scope: scope?,
        parameters: parameters?,
    })
}

fn hmac(at: &At<'_>) -> Option<HmacSigning> {
    let keys = at.keys(&[
        "secret",
        "algorithm",
        "encoding",
        "header",
        "prefix",
        "message",
        "timestamp_header",
        "timestamp",
    ])?;
    let secret = keys.require("secret", SECRET).and_then(|at| secrets::secret(&at));
    let algorithm = match keys.get("algorithm") {
        Some(at) => {
            at.word(&[("sha256", HmacAlgorithm::Sha256), ("sha512", HmacAlgorithm::Sha512)])
        }
        None => Some(HmacAlgorithm::Sha256),
    };
    let encoding = match keys.get("encoding") {
        Some(at) => at.word(&[("hex", HmacEncoding::Hex), ("base64", HmacEncoding::Base64)]),
        None => Some(HmacEncoding::Hex),
    };
    let header = keys
        .require("header", "name the header for the signature")
        .and_then(|at| header_name_of(&at.name()?, &at));
    let prefix = optional(&keys, "prefix", At::text);
    let names = ["method", "host", "path", "query", "body", "timestamp"];
    let message = keys
        .require("message", "write what is signed: `message: \"{{ timestamp }}.{{ body }}\"`")
        .and_then(|at| template(&at, &names));
    let timestamp_header =
        optional(&keys, "timestamp_header", |at| header_name(&at.name()?, at).map(Some));
    let timestamp = match keys.get("timestamp") {
        Some(at) => at.word(&[
            ("seconds", TimestampForm::Seconds),
            ("milliseconds", TimestampForm::Milliseconds),
            ("rfc3339", TimestampForm::Rfc3339),
        ]),
        None => Some(TimestampForm::Seconds),
    };
    Some(HmacSigning {
        secret: secret?,
        algorithm: algorithm?,
        encoding: encoding?,
        header: header?,
        prefix: prefix?,
        message: message?,
        timestamp_header: timestamp_header?,
        timestamp: timestamp?,
    })
}
