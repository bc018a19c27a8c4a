//! Traces, metrics and logs, as a receiver that we did not write understands them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use tempfile::TempDir;
use tests::{Customers, Edition, Layout, Process, Role, Sender, System, free_address};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

/// The stages in the order in which a batch passes them.
const STAGES: [&str; 3] = ["extractor", "transformer", "loader"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_follows_a_batch_from_the_scheduler_to_the_table() {
    let mut receiver = Receiver::start().await;
    let layout = Layout::default()
        .with_everywhere("telemetry.otlp_endpoint", &format!("http://{}", receiver.address))
        .with(Role::Extractor, "batch_bytes", "48KiB");
    let mut system = System::start(layout).await;
    system.write_customers(Customers::new(11, 2_000), 1, Edition::First);
    system.client.apply(&system.customers_pipeline()).await;
    let run = system.client.start("customers").await;
    system.client.succeeded(&run).await;
    // A process that ends sends the spans that it still has.
    for service in system.services() {
        service.process.terminate().await;
    }

    let text = receiver.end().await;
    assert!(!text.contains('@'), "an address of a customer is in the traces");
    let spans: Vec<Span> = Span::parse_all(&text);
    let mut batches: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.name == "batch" && span.of("run.id") == run) {
        batches.entry(span.of("batch.id")).or_default().push(span);
    }
    let spans_by_id: BTreeMap<&str, &Span> =
        spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let said = || format!("{batches:#?}");
    assert!(batches.len() > 1, "the run has several batches: {}", said());
    for spans in batches.values() {
        let stages: Vec<Vec<&&Span>> = STAGES
            .map(|stage| spans.iter().filter(|span| span.of("stage") == stage).collect())
            .to_vec();
        assert!(stages.iter().all(|spans| spans.len() == 1), "one span of each: {}", said());
        let [extractor, transformer, loader] = [stages[0][0], stages[1][0], stages[2][0]];
        let task = spans_by_id.get(extractor.parent.as_str()).expect("a task has read it");
        assert_eq!((task.name.as_str(), task.of("stage")), ("task", "extractor"), "{task:#?}");
        let mut scheduler = task;
        while let Some(parent) = spans_by_id.get(scheduler.parent.as_str()) {
            assert_eq!(parent.trace, extractor.trace, "one trace");
            scheduler = parent;
        }
        assert_eq!((scheduler.name.as_str(), scheduler.of("run.id")), ("run", run.as_str()));
        assert_eq!((&transformer.trace, &transformer.parent), (&extractor.trace, &extractor.id));
        assert_eq!((&loader.trace, &loader.parent), (&extractor.trace, &transformer.id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_follows_a_webhook_to_the_table() {
    const SENDER: &str = "0af7651916cd43dd8448eb211c80319c";
    let mut receiver = Receiver::start().await;
    let layout = Layout::default()
        .with_everywhere("telemetry.otlp_endpoint", &format!("http://{}", receiver.address))
        .with(Role::Extractor, "push.window", "1s");
    let mut system = System::start(layout).await;
    system
        .client
        .apply(&format!(
            "pipeline: orders\nsource: {{push: {{}}}}\n\
             triggers:\n  push:\n    webhook: {{verify: none, id: {{header: X-Delivery}}}}\n\
             schema: {{id: integer}}\nkey: [id]\n\
             targets:\n  store:\n    postgres: {{url: \"{}\", table: orders}}\n",
            system.target
        ))
        .await;
    system.sql("create table orders (id bigint primary key, _version bigint)");
    let mut sender = Sender::new(vec![system.intakes[0].0], 0)
        .with_header("traceparent", &format!("00-{SENDER}-b7ad6b7169203331-01"));
    sender.deliver("orders", "1", "{\"id\": 1}").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while system.sql("select count(*) from orders") != "1" {
        assert!(Instant::now() < deadline, "the record does not arrive");
        sleep(Duration::from_millis(50)).await;
    }
    for service in system.services() {
        service.process.terminate().await;
    }
    let text = receiver.end().await;
    let spans = Span::parse_all(&text);
    let batch: Vec<&Span> = spans.iter().filter(|span| span.name == "batch").collect();
    let of = |stage| *batch.iter().find(|span| span.of("stage") == stage).expect(stage);
    let [extractor, transformer, loader] = STAGES.map(of);
    assert_eq!(batch.len(), 3, "{batch:#?}");
    assert_eq!(extractor.parent, "");
    assert_eq!((&transformer.trace, &transformer.parent), (&extractor.trace, &extractor.id));
    assert_eq!((&loader.trace, &loader.parent), (&extractor.trace, &transformer.id));
    assert!(text.contains(SENDER), "it is linked to the span of its sender");
    assert_ne!(extractor.trace, SENDER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_logs_of_every_service_arrive_beside_the_traces() {
    let mut receiver = Receiver::start().await;
    let layout = Layout::default()
        .with_everywhere("telemetry.otlp_endpoint", &format!("http://{}", receiver.address));
    let mut system = System::start(layout).await;
    system.write_customers(Customers::new(11, 500), 1, Edition::First);
    system.client.apply(&system.customers_pipeline()).await;
    let run = system.client.start("customers").await;
    system.client.succeeded(&run).await;
    for service in system.services() {
        service.process.terminate().await;
    }

    let text = receiver.end().await;
    assert!(!text.contains('@'), "an address of a customer was sent");
    let counted: BTreeMap<&str, &str> = text
        .split("\nMetric #")
        .skip(1)
        .filter_map(|metric| Some((value_of(metric, "-> Name:")?, metric)))
        .collect();
    for name in [
        "tributary_extract_records",
        "tributary_transform_records",
        "tributary_load_records",
        "tributary_load_lag",
        "tributary_bus_consumer_time",
        "tributary_stream_limit",
    ] {
        let metric = counted.get(name).unwrap_or_else(|| panic!("{name} in {:?}", counted.keys()));
        assert!(!value_of(metric, "-> Description:").unwrap_or_default().is_empty(), "{metric}");
    }
    let loaded = counted["tributary_load_records"].split("\nNumberDataPoints");
    let mut loaded = loaded.filter(|point| point.contains("outcome: Str(loaded)"));
    assert!(
        loaded.any(|point| point.contains("Value: 500")),
        "{}",
        counted["tributary_load_records"]
    );

    let logged: BTreeSet<&str> = text
        .split("\nResourceLog")
        .skip(1)
        .filter(|logs| logs.contains("Body: Str(connected to the broker)"))
        .filter_map(|logs| value_of(logs, "-> service.name:"))
        .collect();
    let services = ["extractor", "loader", "scheduler", "transformer"];
    assert_eq!(
        logged,
        services
            .map(|name| ["Str(tributary-", name, ")"].concat())
            .iter()
            .map(String::as_str)
            .collect()
    );
    let instances: BTreeSet<&str> =
        text.lines().filter_map(|line| value_of(line, "-> service.instance.id:")).collect();
    assert_eq!(instances.len(), 4, "each process has an id: {instances:?}");
}

/// What stands behind the first such key.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim)
}

/// A span as the receiver prints it.
#[derive(Debug, Default)]
struct Span {
    trace: String,
    parent: String,
    id: String,
    name: String,
    attributes: BTreeMap<String, String>,
}

impl Span {
    fn parse_all(text: &str) -> Vec<Self> {
        text.split("\nSpan #").skip(1).map(Self::parse).collect()
    }

    /// Reads `Trace ID : …` and the like up to the links, and attributes as `-> stage: Str(loader)`.
    fn parse(text: &str) -> Self {
        let mut span = Self::default();
        let own = ["\nLinks:", "\nResource"].into_iter();
        let own = own.fold(text, |text, end| text.split(end).next().unwrap_or_default());
        for (key, value) in own.lines().filter_map(|line| line.trim().split_once(':')) {
            let value = value.trim();
            match key.trim() {
                "Trace ID" => value.clone_into(&mut span.trace),
                "Parent ID" => value.clone_into(&mut span.parent),
                "ID" => value.clone_into(&mut span.id),
                "Name" => value.clone_into(&mut span.name),
                key => {
                    let value = value.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
                    if let (Some(key), Some(value)) = (key.strip_prefix("-> "), value) {
                        span.attributes.insert(key.to_owned(), value.to_owned());
                    }
                }
            }
        }
        span
    }

    fn of(&self, attribute: &str) -> &str {
        self.attributes.get(attribute).map_or("", String::as_str)
    }
}

/// Rotel, which prints every span that it receives.
struct Receiver {
    address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Receiver {
    async fn start() -> Self {
        let tool = ".tools/rotel/rotel/rotel-agent";
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(tool);
        assert!(program.is_file(), "there is no receiver of traces; run `make {tool}`");
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let arguments = format!(
            "start --otlp-grpc-endpoint {address} --otlp-http-endpoint {} --exporter blackhole \
             --debug-log traces --debug-log metrics --debug-log logs --debug-log-verbosity detailed --pid-file pid --log-file log",
            free_address()
        );
        let arguments = arguments.split_whitespace().map(str::to_owned).collect();
        let log = folder.path().join("spans");
        let process = Process::new(program, arguments, Vec::new(), folder.path().to_owned(), log);
        let mut receiver = Self { address, process, _folder: folder };
        receiver.process.start().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).await.is_err() {
            let runs = receiver.process.pid().is_some() && Instant::now() < deadline;
            assert!(runs, "the receiver does not listen: {}", receiver.process.log());
            // There is no event to wait for until it listens.
            sleep(Duration::from_millis(20)).await;
        }
        receiver
    }

    /// Ends it and returns what it has printed.
    async fn end(&mut self) -> String {
        self.process.terminate().await;
        self.process.log()
    }
}
