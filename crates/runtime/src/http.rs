//! What a process tells about itself over HTTP: `/metrics`, `/health/live`, `/health/ready`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Readiness, telemetry::Metrics};

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

    /// Answers until `shutdown`.
    ///
    /// # Errors
    ///
    /// When the socket breaks.
    pub async fn serve(
        self,
        metrics: Metrics,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        tracing::info!(address = %self.address, "serving metrics and health");
        axum::serve(self.listener, routes(metrics, readiness))
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
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
}
