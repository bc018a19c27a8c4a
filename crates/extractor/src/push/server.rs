//! The webhook server: `POST /hooks/<pipeline>`.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Rejection, answer},
    body,
    inlet::Refused,
    intake::{Closed, Intake},
};

/// Unit in which memory for bodies is lent.
const KIB: usize = 1024;

/// How long to wait when the system has no more files for connections.
const PAUSE: Duration = Duration::from_millis(100);

/// Head of a request, in bytes.
const HEAD: usize = 64 * KIB;

struct Server {
    intake: Arc<Intake>,
    memory: Semaphore,
}

/// Serves webhooks until `shutdown`, then answers what is in hand.
pub(crate) async fn serve(
    listener: TcpListener,
    intake: Arc<Intake>,
    grace: Duration,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let config = Arc::clone(&intake.outlet.config);
    let places = Arc::clone(&intake.outlet.places);
    let server = Arc::new(Server { intake, memory: Semaphore::new(config.memory / KIB) });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout).max_buf_size(HEAD);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            server.intake.tasks.spawn(turn_away(stream, config.retry_after));
            continue;
        };
        // An answer is one small write.
        stream.set_nodelay(true).ok();
        let service = {
            let server = Arc::clone(&server);
            service_fn(move |request| {
                let server = Arc::clone(&server);
                async move { Ok::<_, Infallible>(server.answer(request, peer).await) }
            })
        };
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        server.intake.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection has ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("webhook connections are cut off");
    }
    Ok(())
}

/// Tells somebody for whom there is no place to come again.
async fn turn_away(mut stream: TcpStream, retry_after: Duration) {
    let seconds = retry_after.as_secs().max(1);
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: {seconds}\r\nconnection: close\r\n\
         content-length: 0\r\n\r\n"
    );
    let told = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    };
    if tokio::time::timeout(Duration::from_secs(1), told).await.is_err() {
        tracing::debug!("a connection too many was cut off");
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let received_at = Instant::now();
        let outlet = &self.intake.outlet;
        let (outcome, response) = match self.take(request, peer).await {
            Ok(text) => ("taken", answer(StatusCode::OK, text)),
            Err(rejection) => {
                (rejection.code(), rejection.into_response(outlet.config.retry_after))
            }
        };
        outlet.metrics.answered(outcome, received_at.elapsed());
        response
    }

    /// Returns the text of the answer once everything is safe.
    async fn take(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<String, Rejection> {
        let (head, body) = request.into_parts();
        let pipeline = head.uri.path().strip_prefix("/hooks/").ok_or(Rejection::NotFound)?;
        let open = self.intake.hook(pipeline).map_err(|closed| match closed {
            Closed::NotFound => Rejection::NotFound,
            Closed::Misconfigured => Rejection::Unavailable("the webhook is not configured"),
        })?;
        let hook = open.how;
        if head.method != Method::POST {
            return Err(Rejection::Method);
        }
        let unauthorized = || Rejection::Unauthorized(hook.verifier.challenge());
        if !hook.allows(self.address_of(&head.headers, peer.ip())) {
            return Err(unauthorized());
        }
        let coding = body::coding(&head.headers)?;
        let config = &self.intake.outlet.config;
        let limit = hook.body_limit();
        // A compressed body is held twice.
        let held = match coding {
            body::Coding::Identity => body::announced(&body, limit)?,
            body::Coding::Gzip => body::announced(&body, limit)? + limit,
        };
        let permits = u32::try_from(held.div_ceil(KIB)).expect("a body has at most 64 MiB");
        let busy = Rejection::Unavailable("too much is on its way in");
        let _memory = self.memory.try_acquire_many(permits).map_err(|_| busy.clone())?;
        let received = body::read(body, coding, limit, config.body_timeout).await?;

        let now_s = self.intake.outlet.clock.now_ns() / 1_000_000_000;
        // Some senders sign what they then compress.
        let believed = hook.verifier.verify(&head.headers, &received.raw, now_s)
            || (coding != body::Coding::Identity
                && hook.verifier.verify(&head.headers, &received.text, now_s));
        if !believed {
            return Err(unauthorized());
        }
        if let Some(challenge) = hook.challenge(&received.text) {
            return Ok(challenge);
        }
        let items = hook.read(&head.headers, &received.text)?;
        runtime::fault::point("intake.received");
        if items.iter().all(|item| item.pushed.is_empty()) {
            return Ok(String::new());
        }
        let sender = head.headers.get("traceparent").and_then(|value| value.to_str().ok());
        let sender = sender.and_then(bus::span_of);
        open.inlet.push(hook.revision, items, sender).await.map_err(|refused| match refused {
            Refused::Full => busy,
            Refused::Unavailable => Rejection::Unavailable("nothing can be stored at the moment"),
        })?;
        Ok(String::new())
    }

    /// The address that a request comes from, seen through the proxies that are believed.
    fn address_of(&self, headers: &hyper::HeaderMap, peer: IpAddr) -> IpAddr {
        let trusted = &self.intake.outlet.config.trusted_proxies;
        let is_trusted = |address: &IpAddr| {
            trusted.iter().any(|network| network.contains(&address.to_canonical()))
        };
        let mut address = peer;
        let forwarded = headers.get_all("x-forwarded-for").iter().rev();
        let hops = forwarded
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.rsplit(','))
            .map(|hop| hop.trim().parse::<IpAddr>());
        for hop in hops {
            if !is_trusted(&address) {
                break;
            }
            // What a believed proxy writes and nobody can read hides who is behind it.
            let Ok(hop) = hop else { break };
            address = hop;
        }
        address
    }
}
