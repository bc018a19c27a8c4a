//! Logs, traces and metrics of a process.

use std::{io::IsTerminal, time::Duration};

use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    metrics::{Aggregation, Instrument, InstrumentKind, SdkMeterProvider, Stream},
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use prometheus::{Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    EnvFilter, Layer, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

/// Bounds of histograms that count seconds, from a tenth of a millisecond to ten minutes.
const SECONDS: [f64; 20] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 300.0, 600.0,
];

/// How long the last spans may take to leave the process.
const FLUSH: Duration = Duration::from_secs(5);

/// Settings of logs and traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Form of the log on stderr. Default `human`.
    pub format: LogFormat,
    /// What is logged and traced, as in `info,loader=debug`. Default
    /// `info,async_nats=warn,opentelemetry=warn`: these tell every step of a connection.
    pub filter: String,
    /// Where traces go over OTLP/gRPC, such as `http://127.0.0.1:4317`. Default: nowhere.
    pub otlp_endpoint: Option<String>,
    /// Share of the traces that start here and are kept, 0 to 1. Default 1.
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            filter: "info,async_nats=warn,opentelemetry=warn".to_owned(),
            otlp_endpoint: None,
            sample_ratio: 1.0,
        }
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line per event, for people.
    Human,
    /// One JSON object per event.
    Json,
}

/// Telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("`telemetry.filter` cannot be read: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter of traces cannot be built.
    #[error("`telemetry.otlp_endpoint` cannot be used: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The registry of metrics cannot be built.
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// This process has set up its log before.
    #[error("the log is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// The metrics of a process. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Returns all metrics in the text form of Prometheus.
    ///
    /// # Errors
    ///
    /// When two metrics contradict each other.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Telemetry that is going. `flush` ends it.
#[derive(Debug)]
#[must_use = "the last spans are sent by `flush`"]
pub struct Telemetry {
    metrics: Metrics,
    tracer: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Returns the metrics.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Sends the spans that are left, for at most five seconds, and ends tracing.
    pub async fn flush(self) {
        let Some(tracer) = self.tracer else { return };
        let ended = tokio::task::spawn_blocking(move || tracer.shutdown_with_timeout(FLUSH));
        match tokio::time::timeout(FLUSH, ended).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans could not be sent"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the last spans could not be sent in time"),
        }
    }
}

/// Sets up logs, traces and metrics for the whole process.
///
/// Logs go to stderr. Traces are sent only where an endpoint is set, but the W3C propagator is
/// always there, so that this process hands on what others have started. Call it once, inside the
/// runtime.
///
/// # Errors
///
/// When a setting is wrong or it was called before.
pub fn init(service: &str, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let (metrics, meter) = metrics(service)?;
    let tracer = config
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| tracer(service, endpoint, config.sample_ratio))
        .transpose()?;
    // Spans have ids even where they go nowhere, so that context can be handed on.
    let provider = tracer.clone().unwrap_or_else(|| SdkTracerProvider::builder().build());
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tributary"))
        .with_threads(false)
        .with_location(false);
    tracing_subscriber::registry().with(filter).with(log(config.format)).with(spans).try_init()?;
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_meter_provider(meter);
    Ok(Telemetry { metrics, tracer })
}

fn log<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Human => {
            layer.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

fn tracer(
    service: &str,
    endpoint: &str,
    sample_ratio: f64,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(FLUSH).build()?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_resource(resource(service))
        .with_sampler(sampler)
        .with_batch_exporter(exporter)
        .build())
}

/// Makes a registry and the provider that fills it.
pub(crate) fn metrics(service: &str) -> Result<(Metrics, SdkMeterProvider), TelemetryError> {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()?;
    let provider = SdkMeterProvider::builder()
        .with_resource(resource(service))
        .with_reader(exporter)
        .with_view(seconds)
        .build();
    Ok((Metrics { registry }, provider))
}

/// The default bounds are made for milliseconds.
fn seconds(instrument: &Instrument) -> Option<Stream> {
    let wanted = instrument.kind() == InstrumentKind::Histogram && instrument.unit() == "s";
    let aggregation = Aggregation::ExplicitBucketHistogram {
        boundaries: SECONDS.to_vec(),
        record_min_max: false,
    };
    wanted.then(|| Stream::builder().with_aggregation(aggregation).build().ok()).flatten()
}

fn resource(service: &str) -> Resource {
    Resource::builder().with_service_name(format!("tributary-{service}")).build()
}
