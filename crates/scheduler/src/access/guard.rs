//! What stands before every call: who calls, whether they may, and the audit of what they did.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use store::AuditEntry;
use tonic::{Code, Status, body::Body, codegen::http};
use tower::{Layer, Service};

use super::{Access, Caller, Permission, declared, subject::Subject};

/// Calls of unknown callers that are written to the audit in a second; the others are only counted,
/// so that nobody fills the database by guessing.
const UNKNOWN_PER_SECOND: u32 = 10;

/// Lets a service be called only as its callers may.
#[derive(Debug, Clone)]
pub(crate) struct GuardLayer {
    access: Access,
    unknown: Arc<Mutex<Unknown>>,
}

/// Calls of unknown callers in the present second.
#[derive(Debug)]
struct Unknown {
    since: Instant,
    calls: u32,
}

impl GuardLayer {
    pub(crate) fn new(access: Access) -> Self {
        let unknown = Unknown { since: Instant::now(), calls: 0 };
        Self { access, unknown: Arc::new(Mutex::new(unknown)) }
    }

    /// Tells whether one more unknown caller is worth an entry.
    fn is_rare(&self) -> bool {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.since.elapsed() >= Duration::from_secs(1) {
            let untold = unknown.calls.saturating_sub(UNKNOWN_PER_SECOND);
            if untold > 0 {
                tracing::warn!(calls = untold, "calls without a good token are not in the audit");
            }
            *unknown = Unknown { since: Instant::now(), calls: 0 };
        }
        unknown.calls += 1;
        unknown.calls <= UNKNOWN_PER_SECOND
    }

    async fn admit(
        &self,
        path: &str,
        authorization: Option<&str>,
    ) -> Result<Option<Admitted>, Status> {
        let permission =
            declared(path).ok_or_else(|| Status::unimplemented("there is no such method"))?;
        if permission == Permission::Anybody {
            return Ok(None);
        }
        let caller = match self.access.caller(authorization).await {
            Ok(caller) => caller,
            Err(status) => {
                if status.code() == Code::Unauthenticated && self.is_rare() {
                    self.record("unknown", path, "", status.code()).await?;
                }
                return Err(status);
            }
        };
        if !caller.may(permission) {
            self.record(&caller.name, path, "", Code::PermissionDenied).await?;
            let roles: Vec<&str> = caller.roles.iter().map(|role| role.name()).collect();
            let text = match roles.as_slice() {
                [] => format!("`{}` has no role here", caller.name),
                roles => {
                    let roles = roles.join("`, `");
                    format!("`{}` has the role `{roles}`, which may not do this", caller.name)
                }
            };
            return Err(Status::permission_denied(text));
        }
        Ok(Some(Admitted { caller, permission }))
    }

    async fn record(
        &self,
        actor: &str,
        path: &str,
        subject: &str,
        code: Code,
    ) -> Result<(), Status> {
        let method = path.rsplit_once('.').map_or(path, |(_, method)| method);
        let scheduler = &self.access.inner.scheduler;
        let entry = AuditEntry {
            id: 0,
            at: scheduler.now(),
            actor: actor.to_owned(),
            action: method.replace('/', "."),
            subject: subject.to_owned(),
            outcome: name_of(code).to_owned(),
            digest: Vec::new(),
        };
        match scheduler.store().add_to_audit(entry).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(error = crate::error::chain(&error), "the audit cannot be written");
                Err(Status::unavailable("the audit cannot be written, so the result is not told"))
            }
        }
    }
}

/// A caller that may do what the method needs.
#[derive(Debug)]
struct Admitted {
    caller: Caller,
    permission: Permission,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { guard: self.clone(), inner }
    }
}

/// A service behind a guard.
#[derive(Debug, Clone)]
pub(crate) struct Guard<S> {
    guard: GuardLayer,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guard<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The one that was asked whether it is ready is the one to call.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let guard = self.guard.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let authorization = request.headers().get(http::header::AUTHORIZATION);
            let authorization = authorization.and_then(|value| value.to_str().ok());
            let admitted = match guard.admit(&path, authorization).await {
                Ok(Some(admitted)) => admitted,
                Ok(None) => return inner.call(request).await,
                Err(status) => return Ok(status.into_http()),
            };
            if admitted.permission == Permission::View {
                return inner.call(request).await;
            }
            let subject = Subject::default();
            request.extensions_mut().insert(subject.clone());
            request.extensions_mut().insert(admitted.caller.clone());
            // A client that goes away ends neither the call nor its entry in the audit.
            let recorded = tokio::spawn(async move {
                let response = inner.call(request).await?;
                let status = Status::from_header_map(response.headers());
                let code = status.map_or(Code::Ok, |status| status.code());
                let caller = &admitted.caller.name;
                let recorded = guard.record(caller, &path, &subject.text(), code).await;
                Ok(recorded.map_or_else(|status| status.into_http(), |()| response))
            });
            recorded.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a call has failed without an answer");
                Ok(Status::internal("the call has failed").into_http())
            })
        })
    }
}

fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
