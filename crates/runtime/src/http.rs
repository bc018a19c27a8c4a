//! What a process tells about itself over HTTP: `/metrics`, `/health/live`, `/health/ready`.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{Readiness, telemetry::Metrics};

/// Connections at the same time; more wait in the listener.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take, and how long a connection may rest.
const HEAD: Duration = Duration::from_secs(10);
/// Pause when the system has no more files for connections.
const PAUSE: Duration = Duration::from_millis(100);
/// How long answers in hand may take to end after a shutdown.
const GRACE: Duration = Duration::from_secs(2);

/// Settings of the HTTP server of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on, such as `0.0.0.0:9464`. Default `127.0.0.1:0`: a free port, which the
    /// log tells.
    pub listen: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
    }
}

/// A server that is bound and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// Binds the address.
///
/// # Errors
///
/// When the address is taken or not ours.
pub async fn bind(config: &Config) -> io::Result<Server> {
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    Ok(Server { listener, address })
}

impl Server {
    /// Returns the address, with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`: at most 64 connections at the same time, each of which has ten seconds
    /// for the head of a request.
    pub async fn serve(
        self,
        metrics: Metrics,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) -> Result<(), Infallible> {
        tracing::info!(address = %self.address, "serving metrics and health");
        let router = TowerToHyperService::new(routes(metrics, readiness));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = shutdown.run_until_cancelled(async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            });
            let Some((Ok(place), accepted)) = accepted.await else { break };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let connection = http.serve_connection(TokioIo::new(stream), router.clone());
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection has ended early");
                }
                drop(place);
            });
        }
        tokio::time::timeout(GRACE, graceful.shutdown()).await.ok();
        Ok(())
    }
}

fn routes(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text).with_state(metrics))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready).with_state(readiness))
}

async fn metrics_text(State(metrics): State<Metrics>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    match metrics.text() {
        Ok(text) => (StatusCode::OK, kind, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, kind, format!("{error}\n")),
    }
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    if readiness.is_ready() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let waiting = readiness.waiting_for().join(", ");
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {waiting}\n"))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::telemetry;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_process_tells_health_and_metrics() {
        let (metrics, provider) = telemetry::metrics(&telemetry::resource("test"), None).unwrap();
        let meter = opentelemetry::metrics::MeterProvider::meter(&provider, "test");
        let duration = meter.f64_histogram("tributary_batch_duration").with_unit("s").build();
        duration.record(0.004, &[]);
        meter.u64_counter("tributary_records").build().add(3, &[]);

        let readiness = Readiness::expecting(["bus"]);
        let shutdown = CancellationToken::new();
        let server = bind(&Config::default()).await.unwrap();
        let address = server.address();
        let serving = tokio::spawn(server.serve(metrics, readiness.clone(), shutdown.clone()));

        assert!(fetch(address, "/health/live").await.starts_with("HTTP/1.1 200"));
        let waiting = fetch(address, "/health/ready").await;
        assert!(waiting.starts_with("HTTP/1.1 503") && waiting.contains("waiting for bus"));
        readiness.part("bus").set(true);
        assert!(fetch(address, "/health/ready").await.starts_with("HTTP/1.1 200"));

        let text = fetch(address, "/metrics").await;
        assert!(text.contains("tributary_records_total 3"), "{text}");
        assert!(text.contains("tributary_batch_duration_seconds_bucket{le=\"0.005\"} 1"), "{text}");

        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_nothing_is_let_go_and_the_next_has_a_place() {
        let (metrics, _provider) = telemetry::metrics(&telemetry::resource("test"), None).unwrap();
        let shutdown = CancellationToken::new();
        let server = bind(&Config::default()).await.unwrap();
        let address = server.address();
        let readiness = Readiness::expecting(["bus"]);
        let serving = tokio::spawn(server.serve(metrics, readiness, shutdown.clone()));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(fetch(address, "/health/live").await.starts_with("HTTP/1.1 200"));
        let mut rest = Vec::new();
        silent[0].read_to_end(&mut rest).await.unwrap();
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}
