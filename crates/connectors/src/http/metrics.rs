use std::{sync::LazyLock, time::Duration};

use opentelemetry::{KeyValue, global, metrics::Histogram};
use reqwest::{Method, Url};

/// Named and labelled as in the semantic conventions of OpenTelemetry 1.36, HTTP client metrics.
static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    global::meter("http")
        .f64_histogram("http.client.request.duration")
        .with_unit("s")
        .with_description(
            "Time until the head of an answer, by pipeline, server, and status or error.",
        )
        .with_boundaries(vec![
            0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
        ])
        .build()
});

/// A call was answered with a status, or not.
pub(super) fn called(
    pipeline: &str,
    (method, url): (&Method, &Url),
    answered: Result<u16, &reqwest::Error>,
    took: Duration,
) {
    let mut labels = vec![
        KeyValue::new("pipeline", pipeline.to_owned()),
        KeyValue::new("http.request.method", method.as_str().to_owned()),
        KeyValue::new("server.address", url.host_str().unwrap_or_default().to_owned()),
        KeyValue::new("server.port", i64::from(url.port_or_known_default().unwrap_or_default())),
    ];
    if let Ok(status) = answered {
        labels.push(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    match answered {
        Ok(status) if status >= 400 => labels.push(KeyValue::new("error.type", status.to_string())),
        Ok(_) => {}
        Err(error) => labels.push(KeyValue::new("error.type", kind(error))),
    }
    DURATION.record(took.as_secs_f64(), &labels);
}

fn kind(error: &reqwest::Error) -> &'static str {
    match () {
        () if error.is_timeout() => "timeout",
        () if error.is_connect() => "connect",
        () => "request",
    }
}
