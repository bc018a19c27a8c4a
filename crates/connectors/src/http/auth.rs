//! How calls prove who makes them.

use std::{
    collections::HashMap,
    hash::Hasher,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::Utc;
use connect::{Error, Memory};
use ring::{aead, digest, rand::SecureRandom};
use secrecy::{ExposeSecret, SecretString};
use spec::{Auth, Grant, KeyPlace, OAuth2, SecretText};
use twox_hash::XxHash3_64;
use url::Url;

use super::{
    client::setting,
    sign::{Signer, insert},
};

/// A token without a stated end is taken for good so long.
const UNKNOWN_LIFE: Duration = Duration::from_secs(60 * 60);

/// Tokens that are still good, by what they were got for. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Tokens {
    known: Arc<Mutex<HashMap<u64, Arc<Slot>>>>,
}

type Slot = tokio::sync::Mutex<Option<Token>>;

#[derive(Clone)]
struct Token {
    value: SecretString,
    /// Time to get another one.
    renew_at: Instant,
    /// What the next one is got for.
    refresh: Option<SecretString>,
}

/// Attaches to a call what proves who makes it.
pub(super) enum Authenticator {
    None,
    Header { name: String, value: SecretString },
    Query { name: String, value: SecretString },
    Cookie { name: String, value: SecretString },
    OAuth2(Box<OAuth>),
    Signed(Box<Signer>),
}

/// A client of a token endpoint.
pub(super) struct OAuth {
    url: Url,
    basic: Option<SecretString>,
    form: Vec<(String, SecretString)>,
    refresh_token: Option<SecretString>,
    slot: Arc<Slot>,
    /// Where a token that replaced the given one is remembered, sealed.
    memory: Arc<dyn Memory>,
    memory_key: String,
}

impl Authenticator {
    pub(super) fn new(auth: &Auth, context: &crate::Context) -> Result<Self, Error> {
        let secret = |text: &SecretText| text.resolve(&*context.variables).map_err(setting);
        let bearer =
            |value: &SecretString| SecretString::from(format!("Bearer {}", value.expose_secret()));
        let authorization = |value| Self::Header { name: "authorization".to_owned(), value };
        Ok(match auth {
            Auth::None => Self::None,
            Auth::ApiKey { place, name, value } => {
                let (name, value) = (name.clone(), secret(value)?);
                match place {
                    KeyPlace::Header => Self::Header { name, value },
                    KeyPlace::Query => Self::Query { name, value },
                    KeyPlace::Cookie => Self::Cookie { name, value },
                }
            }
            Auth::Basic { user, password } => {
                authorization(basic(&secret(user)?, &secret(password)?))
            }
            Auth::Bearer(token) => authorization(bearer(&secret(token)?)),
            Auth::OAuth2(config) => Self::OAuth2(Box::new(OAuth::new(config, context)?)),
            Auth::Hmac(config) => {
                let key = secret(&config.secret)?;
                Self::Signed(Box::new(Signer::new(config, &key, &*context.variables)?))
            }
        })
    }

    /// Attaches what is asked for. The request is otherwise complete.
    pub(super) async fn attach(
        &self,
        request: &mut reqwest::Request,
        http: &reqwest::Client,
    ) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            Self::Header { name, value } => insert(request, name, value.expose_secret(), true),
            Self::Query { name, value } => {
                request.url_mut().query_pairs_mut().append_pair(name, value.expose_secret());
                Ok(())
            }
            Self::Cookie { name, value } => {
                insert(request, "cookie", &format!("{name}={}", value.expose_secret()), true)
            }
            Self::OAuth2(oauth) => {
                let token = oauth.token(http).await?;
                let value = format!("Bearer {}", token.expose_secret());
                insert(request, "authorization", &value, true)
            }
            Self::Signed(signer) => signer.sign(request, Utc::now()),
        }
    }

    /// Returns the name of the parameter that holds the key, if it is in the query.
    pub(super) fn query_name(&self) -> Option<&str> {
        match self {
            Self::Query { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Forgets what was refused, if another one can be got.
    pub(super) async fn renew(&self, refused: &reqwest::Request) -> bool {
        let Self::OAuth2(oauth) = self else { return false };
        let used = refused.headers().get("authorization").and_then(|value| value.to_str().ok());
        let mut slot = oauth.slot.lock().await;
        // Another call may have got a new one meanwhile.
        if let Some(token) = &mut *slot
            && used.is_none_or(|used| used == format!("Bearer {}", token.value.expose_secret()))
        {
            token.renew_at = Instant::now();
        }
        true
    }
}

fn basic(user: &SecretString, password: &SecretString) -> SecretString {
    let pair = format!("{}:{}", user.expose_secret(), password.expose_secret());
    SecretString::from(format!("Basic {}", STANDARD.encode(pair)))
}

impl OAuth {
    fn new(config: &OAuth2, context: &crate::Context) -> Result<Self, Error> {
        let secret = |text: &SecretText| text.resolve(&*context.variables).map_err(setting);
        let url = secret(&config.token_url)?;
        let url = Url::parse(url.expose_secret()).map_err(|cause| {
            Error::stop("`token_url` is not a URL", "write the URL of the token endpoint")
                .because(cause)
        })?;
        let client_id = secret(&config.client_id)?;
        let client_secret = config.client_secret.as_ref().map(&secret).transpose()?;
        let refresh_token = match &config.grant {
            Grant::ClientCredentials => None,
            Grant::RefreshToken(token) => Some(secret(token)?),
        };
        let mut form = Vec::new();
        let mut basic_header = None;
        match (config.client_in_body, &client_secret) {
            (false, Some(client_secret)) => basic_header = Some(basic(&client_id, client_secret)),
            (_, client_secret) => {
                form.push(("client_id".to_owned(), client_id.clone()));
                if let Some(client_secret) = client_secret {
                    form.push(("client_secret".to_owned(), client_secret.clone()));
                }
            }
        }
        if let Some(scope) = &config.scope {
            form.push(("scope".to_owned(), SecretString::from(scope.clone())));
        }
        for (name, value) in &config.parameters {
            form.push((name.clone(), secret(value)?));
        }
        let mut hash = XxHash3_64::new();
        for text in [url.as_str(), client_id.expose_secret()]
            .into_iter()
            .chain(client_secret.as_ref().map(|secret| secret.expose_secret()))
            .chain(refresh_token.as_ref().map(|token| token.expose_secret()))
            .chain(form.iter().map(|(_, value)| value.expose_secret()))
        {
            hash.write(text.as_bytes());
            hash.write_u8(0);
        }
        let key = hash.finish();
        let mut known = context.tokens.known.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = Arc::clone(known.entry(key).or_default());
        Ok(Self {
            url,
            basic: basic_header,
            form,
            refresh_token,
            slot,
            memory: Arc::clone(&context.memory),
            memory_key: format!("oauth.{key:016x}"),
        })
    }

    /// Returns a token that is good for a while.
    async fn token(&self, http: &reqwest::Client) -> Result<SecretString, Error> {
        let mut slot = self.slot.lock().await;
        if let Some(token) = &*slot
            && Instant::now() < token.renew_at
        {
            return Ok(token.value.clone());
        }
        let refresh = match slot.as_ref().and_then(|token| token.refresh.clone()) {
            Some(refresh) => Some(refresh),
            None => self.remembered().await?,
        };
        let token = self.fetch(http, refresh.as_ref()).await?;
        let value = token.value.clone();
        *slot = Some(token);
        Ok(value)
    }

    async fn fetch(
        &self,
        http: &reqwest::Client,
        refresh: Option<&SecretString>,
    ) -> Result<Token, Error> {
        let place = format!("the token endpoint `{}`", self.url.host_str().unwrap_or_default());
        // It is done with before the first wait.
        let form = {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            match refresh {
                None => form.append_pair("grant_type", "client_credentials"),
                Some(token) => form
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("refresh_token", token.expose_secret()),
            };
            for (name, value) in &self.form {
                form.append_pair(name, value.expose_secret());
            }
            form.finish()
        };
        let mut request = http
            .post(self.url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form)
            .build()
            .map_err(|cause| setting(cause.without_url()))?;
        if let Some(basic) = &self.basic {
            insert(&mut request, "authorization", basic.expose_secret(), true)?;
        }
        let asked_at = Instant::now();
        let away = |cause: reqwest::Error| {
            Error::retry(format!("{place} cannot be reached"), "see whether it is up")
                .because(cause.without_url())
        };
        let answer = http.execute(request).await.map_err(away)?;
        let status = answer.status();
        if status.is_server_error() || status.as_u16() == 429 {
            let what = format!("{place} answered {status}");
            return Err(Error::retry(what, "see whether it is up"));
        }
        let text = answer.text().await.map_err(away)?;
        let refused = |what: String| {
            Error::stop(what, "check `client_id`, `client_secret`, `refresh_token` and `scope`")
        };
        let body: serde_json::Value = serde_json::from_str(&text)
            .map_err(|_| refused(format!("{place} answered {status} without JSON")))?;
        let Some(value) = body.get("access_token").and_then(|token| token.as_str()) else {
            // The standard has fixed words here, so no value of anybody can stand in it.
            let code = body.get("error").and_then(|code| code.as_str()).unwrap_or("no token");
            let code: String = code.chars().filter(char::is_ascii_graphic).take(40).collect();
            return Err(refused(format!("{place} answered {status}: {code}")));
        };
        let life = body
            .get("expires_in")
            .and_then(|life| life.to_string().trim_matches('"').parse::<u64>().ok())
            .map_or(UNKNOWN_LIFE, |seconds| Duration::from_secs(seconds.min(365 * 24 * 3600)));
        let early = (life / 10).min(Duration::from_secs(60));
        let rotated = body.get("refresh_token").and_then(|token| token.as_str());
        let next = match (rotated, refresh) {
            (Some(new), Some(old)) if new != old.expose_secret() => {
                let new = SecretString::from(new.to_owned());
                self.remember(&new).await;
                Some(new)
            }
            (_, refresh) => refresh.cloned(),
        };
        Ok(Token {
            value: SecretString::from(value.to_owned()),
            renew_at: asked_at + life.saturating_sub(early),
            refresh: next,
        })
    }

    /// Returns the last token that replaced the given one, or the given one.
    async fn remembered(&self) -> Result<Option<SecretString>, Error> {
        let Some(given) = &self.refresh_token else { return Ok(None) };
        let Some(found) = self.memory.get(&self.memory_key).await? else {
            return Ok(Some(given.clone()));
        };
        Ok(Some(open(given, found.value).unwrap_or_else(|| given.clone())))
    }

    async fn remember(&self, token: &SecretString) {
        let Some(given) = &self.refresh_token else { return };
        let Some(sealed) = seal(given, token) else { return };
        for _ in 0..3 {
            let stored = async {
                let known = self.memory.get(&self.memory_key).await?;
                let revision = known.map(|known| known.revision);
                self.memory.put(&self.memory_key, sealed.clone(), revision).await
            };
            match stored.await {
                Ok(connect::Put::Stored(_)) => return,
                Ok(connect::Put::Conflict) => {}
                Err(error) => {
                    tracing::warn!(error = error.chain(), "a new refresh token is not remembered");
                    return;
                }
            }
        }
    }
}

/// The key is made of the token that the user gave, so only who has that can read what follows it.
fn sealing_key(given: &SecretString) -> Option<aead::LessSafeKey> {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"tributary refresh token\0");
    context.update(given.expose_secret().as_bytes());
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, context.finish().as_ref()).ok()?;
    Some(aead::LessSafeKey::new(key))
}

fn seal(given: &SecretString, token: &SecretString) -> Option<Vec<u8>> {
    let mut nonce = [0; aead::NONCE_LEN];
    ring::rand::SystemRandom::new().fill(&mut nonce).ok()?;
    let mut sealed = token.expose_secret().as_bytes().to_vec();
    sealing_key(given)?
        .seal_in_place_append_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::empty(),
            &mut sealed,
        )
        .ok()?;
    Some([&nonce[..], &sealed].concat())
}

fn open(given: &SecretString, sealed: Vec<u8>) -> Option<SecretString> {
    let (nonce, text) = sealed.split_at_checked(aead::NONCE_LEN)?;
    let nonce = aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = text.to_vec();
    let token = sealing_key(given)?.open_in_place(nonce, aead::Aad::empty(), &mut text).ok()?;
    Some(SecretString::from(std::str::from_utf8(token).ok()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_token_is_read_only_with_the_one_it_followed() {
        let (given, other) = (SecretString::from("given"), SecretString::from("other"));
        let sealed = seal(&given, &SecretString::from("next")).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("next"));
        assert!(open(&other, sealed.clone()).is_none());
        assert!(open(&given, Vec::new()).is_none());
        assert_eq!(open(&given, sealed).unwrap().expose_secret(), "next");
    }
}
