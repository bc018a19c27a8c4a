//! Logs, traces and metrics of a process.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use opentelemetry::{KeyValue, global, trace::TracerProvider};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{
    LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig,
    tonic_types::transport::{Certificate, ClientTlsConfig},
};
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    metrics::{Aggregation, Instrument, InstrumentKind, PeriodicReader, SdkMeterProvider, Stream},
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use prometheus::{Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Bounds of histograms that count seconds, from a tenth of a millisecond to ten minutes.
const SECONDS: [f64; 20] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 300.0, 600.0,
];

/// How often metrics are sent.
const METRICS_INTERVAL: Duration = Duration::from_secs(30);

/// How long the last spans, metrics and log lines may take to leave the process.
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
    /// Where traces, metrics and logs go over OTLP/gRPC, such as `http://127.0.0.1:4317`, or with
    /// `https://` by TLS. Metrics are at `/metrics` and logs on stderr nevertheless. Default: nowhere.
    pub otlp_endpoint: Option<String>,
    /// Certificates in PEM of the authority that signed the receiver's. Default: those that the system
    /// trusts.
    pub otlp_ca: Option<PathBuf>,
    /// What of it goes there: `traces`, `metrics`, `logs`. Default: all.
    pub otlp_signals: Vec<Signal>,
    /// Share of the traces that start here and are kept, 0 to 1. Default 1.
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            filter: "info,async_nats=warn,opentelemetry=warn".to_owned(),
            otlp_endpoint: None,
            otlp_ca: None,
            otlp_signals: vec![Signal::Traces, Signal::Metrics, Signal::Logs],
            sample_ratio: 1.0,
        }
    }
}

/// A kind of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Spans.
    Traces,
    /// Counts and measures.
    Metrics,
    /// Log lines.
    Logs,
}

impl TelemetryConfig {
    /// Where a signal goes, if anywhere.
    fn receiver(&self, signal: Signal) -> Result<Option<Receiver>, TelemetryError> {
        let wanted = self.otlp_endpoint.as_deref().filter(|_| self.otlp_signals.contains(&signal));
        wanted.map(|endpoint| Receiver::new(endpoint, self.otlp_ca.as_ref())).transpose()
    }
}

/// Who takes what is sent.
#[derive(Debug)]
pub(crate) struct Receiver {
    endpoint: String,
    tls: Option<ClientTlsConfig>,
}

impl Receiver {
    fn new(endpoint: &str, authority: Option<&PathBuf>) -> Result<Self, TelemetryError> {
        let tls = match authority {
            _ if !endpoint.starts_with("https:") => None,
            None => Some(ClientTlsConfig::new().with_native_roots()),
            Some(path) => {
                let pem = std::fs::read(path)
                    .map_err(|cause| TelemetryError::Authority { path: path.clone(), cause })?;
                Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
            }
        };
        Ok(Self { endpoint: endpoint.to_owned(), tls })
    }

    /// Says where an exporter sends to.
    fn of<E: WithExportConfig + WithTonicConfig>(self, exporter: E) -> E {
        let exporter = exporter.with_endpoint(self.endpoint).with_timeout(FLUSH);
        match self.tls {
            Some(tls) => exporter.with_tls_config(tls),
            None => exporter,
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
    /// An exporter cannot be built.
    #[error("`telemetry.otlp_endpoint` cannot be used: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The file of the receiver's authority cannot be read.
    #[error("`telemetry.otlp_ca` names a file that cannot be read: {}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
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
#[must_use = "the last spans, metrics and log lines are sent by `flush`"]
pub struct Telemetry {
    metrics: Metrics,
    tracer: Option<SdkTracerProvider>,
    meter: SdkMeterProvider,
    logger: Option<SdkLoggerProvider>,
}

impl Telemetry {
    /// Returns the metrics.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Sends what is left, for at most five seconds, and ends telemetry.
    pub async fn flush(self) {
        let Self { tracer, meter, logger, metrics: _ } = self;
        let ended = tokio::task::spawn_blocking(move || {
            // The log is last, because it may tell that the others failed.
            let ends = [
                tracer.map(|tracer| ("spans", tracer.shutdown_with_timeout(FLUSH))),
                Some(("metrics", meter.shutdown_with_timeout(FLUSH))),
                logger.map(|logger| ("log lines", logger.shutdown_with_timeout(FLUSH))),
            ];
            for (what, ended) in ends.into_iter().flatten() {
                if let Err(error) = ended {
                    tracing::warn!(%error, "the last {what} could not be sent");
                }
            }
        });
        if !matches!(tokio::time::timeout(FLUSH, ended).await, Ok(Ok(()))) {
            tracing::warn!("the last telemetry could not be sent in time");
        }
    }
}

/// Sets up logs, traces and metrics for the whole process.
///
/// Logs go to stderr. Traces, metrics and logs are sent only where an endpoint is set, but the W3C
/// propagator is always there, so that this process hands on what others have started. Call it once, inside the
/// runtime.
///
/// # Errors
///
/// When a setting is wrong or it was called before.
pub fn init(service: &str, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let resource = resource(service);
    let (metrics, meter) = metrics(&resource, config.receiver(Signal::Metrics)?)?;
    let tracer = config
        .receiver(Signal::Traces)?
        .map(|receiver| tracer(&resource, receiver, config.sample_ratio))
        .transpose()?;
    let logger =
        config.receiver(Signal::Logs)?.map(|receiver| logger(&resource, receiver)).transpose()?;
    // What sending tells is not sent, or it would never end.
    let sent = logger.as_ref().map(|logger| {
        OpenTelemetryTracingBridge::new(logger).with_filter(filter_fn(|event| {
            let own = ["opentelemetry", "tonic", "h2", "hyper", "tower"];
            !own.iter().any(|own| event.target().starts_with(own))
        }))
    });
    // Spans have ids even where they go nowhere, so that context can be handed on.
    let provider = tracer.clone().unwrap_or_else(|| SdkTracerProvider::builder().build());
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tributary"))
        .with_threads(false)
        .with_location(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(log(config.format))
        .with(spans)
        .with(sent)
        .try_init()?;
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_meter_provider(meter.clone());
    Ok(Telemetry { metrics, tracer, meter, logger })
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
    resource: &Resource,
    receiver: Receiver,
    sample_ratio: f64,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = receiver.of(SpanExporter::builder().with_tonic()).build()?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_sampler(sampler)
        .with_batch_exporter(exporter)
        .build())
}

fn logger(resource: &Resource, receiver: Receiver) -> Result<SdkLoggerProvider, TelemetryError> {
    let exporter = receiver.of(LogExporter::builder().with_tonic()).build()?;
    Ok(SdkLoggerProvider::builder()
        .with_resource(resource.clone())
        .with_batch_exporter(exporter)
        .build())
}

/// Makes a registry and the provider that fills it, and that sends where there is an endpoint.
pub(crate) fn metrics(
    resource: &Resource,
    receiver: Option<Receiver>,
) -> Result<(Metrics, SdkMeterProvider), TelemetryError> {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()?;
    let mut provider = SdkMeterProvider::builder()
        .with_resource(resource.clone())
        .with_reader(exporter)
        .with_view(seconds);
    if let Some(receiver) = receiver {
        let exporter = receiver.of(MetricExporter::builder().with_tonic()).build()?;
        let reader = PeriodicReader::builder(exporter).with_interval(METRICS_INTERVAL).build();
        provider = provider.with_reader(reader);
    }
    Ok((Metrics { registry }, provider.build()))
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

/// What is said of this process with everything that is sent. The instance tells replicas apart.
pub(crate) fn resource(service: &str) -> Resource {
    let random = || RandomState::new().build_hasher().finish();
    let instance = format!("{:016x}{:016x}", random(), random());
    Resource::builder()
        .with_service_name(format!("tributary-{service}"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn telemetry_goes_by_tls_where_the_endpoint_says_so() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let receiver = Receiver::new("https://127.0.0.1:4317", None).unwrap();
        tracer(&resource("test"), receiver, 1.0).unwrap();
        let missing = PathBuf::from("/none.pem");
        let error = Receiver::new("https://127.0.0.1:4317", Some(&missing)).unwrap_err();
        assert!(error.to_string().contains("`telemetry.otlp_ca`"), "{error}");
    }
}
