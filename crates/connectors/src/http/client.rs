//! Calls: the only place that dials an HTTP API.

use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::Utc;
use connect::{Call, Error, Feedback, Permit, Throttle, Usage};
use flate2::read::MultiGzDecoder;
use reqwest::{
    Certificate, Identity, Method, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use spec::HttpClient;

use super::{address, auth::Authenticator, delay, metrics, sign::insert};
use crate::Context;

/// Makes calls to one API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    base: Url,
    auth: Authenticator,
    headers: Vec<(String, SecretString)>,
    timeout: Duration,
    max_answer: usize,
    allow_private: bool,
    quota: Option<String>,
    pipeline: String,
    throttle: Arc<dyn Throttle>,
    usage: Mutex<Usage>,
}

/// A call to make.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) content: Option<Content>,
}

/// Body of a call.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Bytes,
}

/// An answer, decompressed.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// From handing the call to the socket to the end of the answer.
    pub(crate) took: Duration,
    /// The call counted under a quota, which has heard of the answer.
    pub(crate) counted: bool,
}

/// There was no answer.
#[derive(Debug)]
pub(crate) struct CallFailed {
    pub(crate) error: Error,
    /// Any of the call may have reached the peer.
    pub(crate) sent: bool,
}

impl From<Error> for CallFailed {
    fn from(error: Error) -> Self {
        Self { error, sent: false }
    }
}

/// Makes an error of a setting that cannot work.
pub(super) fn setting(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::stop(
        "a setting of the HTTP connection cannot be used",
        "correct it, or set the secret where this service runs",
    )
    .because(cause)
}

impl Client {
    /// Prepares a client. Nothing is dialled yet, but secrets are resolved.
    ///
    /// # Errors
    ///
    /// When a secret cannot be resolved or a certificate cannot be read.
    pub(crate) fn new(
        config: &HttpClient,
        pipeline: &str,
        context: &Context,
    ) -> Result<Self, Error> {
        // The first one to install a provider wins; it is the same one everywhere.
        rustls::crypto::ring::default_provider().install_default().ok();
        let secret = |text: &spec::SecretText| text.resolve(&*context.variables).map_err(setting);
        let base = secret(&config.base_url)?;
        let base = Url::parse(base.expose_secret()).map_err(setting)?;
        #[expect(clippy::disallowed_methods, reason = "this is the one HTTP client")]
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .user_agent(concat!("tributary/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.timeout.min(Duration::from_secs(10)))
            .timeout(config.timeout);
        if !config.allow_private {
            builder = builder.dns_resolver(address::resolver());
        }
        if let Some(ca) = &config.tls.ca {
            let pem = secret(ca)?;
            let certificates = Certificate::from_pem_bundle(pem.expose_secret().as_bytes());
            builder = builder.tls_certs_only(certificates.map_err(setting)?);
        }
        if let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) {
            let (certificate, key) = (secret(certificate)?, secret(key)?);
            let pem = format!("{}\n{}", key.expose_secret(), certificate.expose_secret());
            builder = builder.identity(Identity::from_pem(pem.as_bytes()).map_err(setting)?);
        }
        let headers = config
            .headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), secret(value)?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            inner: Arc::new(Inner {
                http: builder.build().map_err(setting)?,
                base,
                auth: Authenticator::new(&config.auth, context)?,
                headers,
                timeout: config.timeout,
                max_answer: config.max_answer,
                allow_private: config.allow_private,
                quota: config.quota.as_ref().map(|name| name.as_str().to_owned()),
                pipeline: pipeline.to_owned(),
                throttle: Arc::clone(&context.throttle),
                usage: Mutex::default(),
            }),
        })
    }

    /// Returns the base URL as it is.
    pub(crate) fn base(&self) -> Url {
        self.inner.base.clone()
    }

    /// Returns the URL of a path behind the base URL.
    ///
    /// # Errors
    ///
    /// When the path makes no URL.
    pub(crate) fn url(&self, path: &str) -> Result<Url, Error> {
        let base = self.inner.base.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/{}", path.trim_start_matches('/'))).map_err(|cause| {
            Error::stop("the path makes no URL", "correct `path` in the pipeline").because(cause)
        })
    }

    /// Returns the URL that an answer to a call of `from` names.
    ///
    /// # Errors
    ///
    /// When it leads to another server, which has no business with our credentials.
    pub(crate) fn linked(&self, from: &Url, link: &str) -> Result<Url, Error> {
        let url = from.join(link).map_err(|cause| {
            Error::stop("the link to the next page is not a URL", "correct `paginate`")
                .because(cause)
        })?;
        if url.origin() != self.inner.base.origin() {
            let host = url.host_str().unwrap_or_default();
            return Err(Error::stop(
                format!("the link to the next page leads to another server, `{host}`"),
                "set `base_url` to the server that the links name",
            ));
        }
        Ok(url)
    }

    /// Returns a URL as text without the key that calls carry in their query: some APIs repeat it in
    /// their links.
    pub(crate) fn without_key(&self, mut url: Url) -> String {
        if let Some(key) = self.inner.auth.query_name() {
            let rest: Vec<(String, String)> = url
                .query_pairs()
                .filter(|(name, _)| name != key)
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect();
            let clean = url.query_pairs().any(|(name, _)| name == key);
            if clean && rest.is_empty() {
                url.set_query(None);
            } else if clean {
                url.query_pairs_mut().clear().extend_pairs(rest);
            }
        }
        url.into()
    }

    /// Tells what the calls have cost so far.
    pub(crate) fn usage(&self) -> Usage {
        *self.inner.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what the calls have cost.
    pub(crate) fn spend(&self, more: Usage) {
        *self.inner.usage.lock().unwrap_or_else(PoisonError::into_inner) += more;
    }

    /// Forgets the token that calls are made with, so that the next one gets a new one. False where
    /// there is none.
    pub(crate) async fn forget_login(&self) -> bool {
        let request = reqwest::Request::new(Method::GET, self.inner.base.clone());
        self.inner.auth.renew(&request).await
    }

    /// Makes a call when its quota allows. An answer 401 gets a second call with a new token, if
    /// there are tokens; everything else is left to the caller.
    ///
    /// # Errors
    ///
    /// Where there is no answer, and where it is too large or its compression is damaged.
    pub(crate) async fn send(&self, outgoing: &Outgoing) -> Result<Response, CallFailed> {
        let inner = &*self.inner;
        let mut renewed = false;
        loop {
            let mut request = self.build(outgoing)?;
            inner.auth.attach(&mut request, &inner.http).await?;
            let attached = request.try_clone();
            let response = self.call(request, outgoing).await?;
            if response.status == 401
                && !renewed
                && let Some(attached) = attached
                && inner.auth.renew(&attached).await
            {
                renewed = true;
                continue;
            }
            return Ok(response);
        }
    }

    fn build(&self, outgoing: &Outgoing) -> Result<reqwest::Request, Error> {
        let url = outgoing.url.clone();
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::stop("only http and https are called", "correct `base_url`"));
        }
        if !self.inner.allow_private && address::is_refused(&url) {
            return Err(Error::stop(
                format!("`{}` is an address inside of a network", url.host_str().unwrap_or("")),
                "set `allow_private: true` if this API may be called there",
            ));
        }
        let mut request = reqwest::Request::new(outgoing.method.clone(), url);
        request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
        for (name, value) in &self.inner.headers {
            insert(&mut request, name, value.expose_secret(), true)?;
        }
        for (name, value) in &outgoing.headers {
            insert(&mut request, name, value, false)?;
        }
        if let Some(content) = &outgoing.content {
            if !request.headers().contains_key("content-type") {
                insert(&mut request, "content-type", content.media_type, false)?;
            }
            *request.body_mut() = Some(content.bytes.clone().into());
        }
        Ok(request)
    }

    async fn call(
        &self,
        request: reqwest::Request,
        outgoing: &Outgoing,
    ) -> Result<Response, CallFailed> {
        let inner = &*self.inner;
        let asked = Instant::now();
        let permit = match &inner.quota {
            None => None,
            Some(quota) => loop {
                let call = Call {
                    quota,
                    pipeline: &inner.pipeline,
                    method: outgoing.method.as_str(),
                    path: outgoing.url.path(),
                };
                let permit = inner.throttle.acquire(call).await?;
                if Instant::now() < permit.start_by() {
                    break Some(permit);
                }
                permit.give_back();
            },
        };
        self.spend(Usage {
            calls: 1,
            waited_quota_ms: millis(asked.elapsed()),
            ..Usage::default()
        });
        let started = Instant::now();
        let answered = inner.http.execute(request).await;
        let status = answered.as_ref().map(|answer| answer.status().as_u16());
        let call = (&outgoing.method, &outgoing.url);
        metrics::called(&inner.pipeline, call, status, started.elapsed());
        let feedback = match &answered {
            Ok(answer) => {
                let now = Utc::now();
                Feedback {
                    status: Some(answer.status().as_u16()),
                    retry_after: delay::retry_after(answer.headers(), now),
                    remaining: delay::remaining(answer.headers()),
                    reset: delay::reset(answer.headers(), now),
                    sent: true,
                }
            }
            Err(error) => Feedback { sent: !error.is_connect(), ..Feedback::default() },
        };
        let counted = permit.as_ref().is_some_and(Permit::is_counted);
        // The peer has counted the call by the time that it answers.
        if let Some(permit) = permit {
            permit.finish(feedback.clone());
        }
        let lost = |cause: reqwest::Error, sent| CallFailed {
            error: self.away(outgoing, &cause).because(cause.without_url()),
            sent,
        };
        let mut answer = answered.map_err(|cause| lost(cause, feedback.sent))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|cause| lost(cause, true))? {
            self.spend(Usage { received_bytes: chunk.len() as u64, ..Usage::default() });
            if body.len() + chunk.len() > inner.max_answer {
                return Err(CallFailed { error: self.too_large(outgoing), sent: true });
            }
            body.extend_from_slice(&chunk);
        }
        let took = started.elapsed();
        if status == 304 {
            self.spend(Usage { not_modified: 1, ..Usage::default() });
        }
        let body =
            self.decompressed(body, outgoing).map_err(|error| CallFailed { error, sent: true })?;
        Ok(Response { status, headers, body, took, counted })
    }

    /// Gzip is recognised by content, as files are: a gzip file may be served without saying so.
    fn decompressed(&self, body: Vec<u8>, outgoing: &Outgoing) -> Result<Bytes, Error> {
        if !body.starts_with(&[0x1F, 0x8B]) {
            return Ok(body.into());
        }
        let limit = self.inner.max_answer;
        let mut text = Vec::new();
        MultiGzDecoder::new(&body[..]).take(limit as u64 + 1).read_to_end(&mut text).map_err(
            |cause| {
                let what = format!("{}: the gzip of the answer is damaged", place(outgoing));
                Error::retry(what, "see what the API sends").because(cause)
            },
        )?;
        if text.len() > limit {
            return Err(self.too_large(outgoing));
        }
        Ok(text.into())
    }

    fn too_large(&self, outgoing: &Outgoing) -> Error {
        Error::stop(
            format!(
                "{}: the answer has more than {} bytes",
                place(outgoing),
                self.inner.max_answer
            ),
            "ask for smaller pages, or raise `max_answer`",
        )
    }

    fn away(&self, outgoing: &Outgoing, cause: &reqwest::Error) -> Error {
        let place = place(outgoing);
        let mut inner: Option<&dyn std::error::Error> = Some(cause);
        while let Some(error) = inner {
            if error.is::<address::NoPublicAddress>() {
                return Error::stop(
                    format!("{place}: its name leads to an address inside of a network"),
                    "set `allow_private: true` if this API may be called there",
                );
            }
            inner = error.source();
        }
        if cause.is_timeout() {
            let limit = self.inner.timeout;
            Error::retry(
                format!("{place}: no answer within {limit:?}"),
                "see whether the API is up, or raise `timeout`",
            )
        } else {
            Error::retry(format!("{place} cannot be reached"), "see whether the API is up")
        }
    }
}

/// Names a call without values: method, host and path pattern are given by the pipeline, the rest of
/// the path may hold ids.
pub(super) fn place(outgoing: &Outgoing) -> String {
    format!("{} `{}`", outgoing.method, outgoing.url.host_str().unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a header as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    headers.get(name)?.to_str().ok()
}
