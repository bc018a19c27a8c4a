//! What a Prometheus finds out that scrapes all services.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::http::Server;
use tests::{Layout, Process, Role, System, free_address};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

const RECORDS: usize = 300;
/// Records whose number is none.
const WRONG: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prometheus_tells_how_the_flow_stands_and_nothing_of_what_is_over() {
    let layout = Layout::default().with_replicas_of(Role::Scheduler, 2).with(
        Role::Scheduler,
        "reconcile_interval",
        "500ms",
    );
    let mut system = System::prepare(layout);
    system.start_roles(&[Role::Scheduler, Role::Extractor, Role::Transformer]).await;
    let prometheus = Prometheus::start(&mut system).await;
    let api = Server::always(200).await;
    let mut csv = "id,name\n".to_owned();
    for id in 0..RECORDS {
        let sign = if id < WRONG { "no" } else { "" };
        writeln!(csv, "{sign}{id},n{id}").unwrap();
    }
    fs::write(system.folder().join("people.csv"), csv).unwrap();
    system.client.apply("quotas: {mail: {limits: [1000/h]}}").await;
    let pipeline = format!(
        "pipeline: people\nsource: {{csv: {{path: people.csv}}}}\n\
         schema: {{id: integer, name: text}}\nkey: [id]\ntargets:\n  \
         store:\n    postgres: {{url: \"{}\", table: people}}\n  \
         api:\n    http:\n      base_url: {}\n      allow_private: true\n      quota: mail\n      \
         upsert: {{method: PUT, path: \"/people/{{{{ key }}}}\"}}\n",
        system.target,
        api.url()
    );
    system.client.apply(&pipeline).await;
    let run = system.client.start("people").await;

    let right = (RECORDS - WRONG) as f64;
    // Each of the schedulers tells it.
    prometheus.until("count(tributary_run_missing_records{target='store'})", 2.0).await;
    prometheus.until("max(tributary_run_missing_records{target='store'})", right).await;
    prometheus
        .until("count(tributary_backlog_messages{stage='loader', target='api'} > 0)", 2.0)
        .await;
    prometheus
        .until("count(tributary_backlog_age_seconds{stage='loader', target='api'} > 0)", 2.0)
        .await;
    prometheus.until("count(up == 1)", 4.0).await;
    prometheus.until("sum(up{container='loader'})", 0.0).await;

    system.start_roles(&[Role::Loader]).await;
    system.client.succeeded(&run).await;
    for (query, wanted) in [
        ("count(up == 1)", 5.0),
        ("sum(tributary_extract_records_total{pipeline='people'})", RECORDS as f64),
        ("sum(tributary_load_records_total{target='store', outcome='loaded'})", right),
        ("sum(tributary_load_records_total{target='api', outcome='loaded'})", right),
        ("sum(tributary_load_lag_seconds_count{target='store'})", 1.0),
        ("sum(tributary_quarantine_records_total{pipeline='people'})", WRONG as f64),
        ("max(tributary_quota_used_ratio{quota='mail'})", right / 1000.0),
        ("sum(tributary_runs_ended_total{pipeline='people', state='succeeded'})", 1.0),
        ("max(tributary_runs{state='succeeded'})", 1.0),
        (
            "sum(http_client_request_duration_seconds_count{pipeline='people', \
             http_request_method='PUT', http_response_status_code='200', error_type=''})",
            right,
        ),
    ] {
        prometheus.until(query, wanted).await;
    }
    for over in
        ["run_missing_records", "run_idle_seconds", "backlog_messages", "backlog_age_seconds"]
    {
        let query = format!("absent(tributary_{over}{{pipeline='people'}})");
        prometheus.until(&query, 1.0).await;
    }

    let known = prometheus.get("/api/v1/label/__name__/values").await;
    let known: BTreeSet<&str> =
        known.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let unknown: Vec<_> = asked_for().into_iter().filter(|name| !known.contains(&**name)).collect();
    // Nothing has failed here, no stream was full, nothing waits for long or is encrypted.
    let unheard = [
        "tributary_backlog_remaining_seconds",
        "tributary_bus_publish_retries_total",
        "tributary_certificate_end_timestamp_seconds",
        "tributary_extract_retries_total",
        "tributary_load_retries_total",
        "tributary_quota_waiting_calls",
        "tributary_runs_reissued_total",
    ];
    assert_eq!(unknown, unheard);
    let rules = prometheus.get("/api/v1/rules").await;
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10, "{rules:#?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        assert_eq!(rule["state"], "inactive", "{rule:#}");
    }
}

/// Returns the metrics that the dashboards and alerts of the chart ask for, in order.
fn asked_for() -> BTreeSet<String> {
    let files = root().join("helm/tributary/files");
    let dashboards = fs::read_dir(files.join("dashboards")).unwrap();
    let paths = dashboards.map(|entry| entry.unwrap().path()).chain([files.join("alerts.yaml")]);
    let texts = paths.map(|path| fs::read_to_string(path).unwrap());
    texts
        .flat_map(|text| {
            let is_part = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
            let words = text.split(|byte| !is_part(byte));
            words
                .filter(|word| word.starts_with("tributary_"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A Prometheus that scrapes all services once a second.
struct Prometheus {
    address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    async fn start(system: &mut System) -> Self {
        let tool = ".tools/prometheus/prometheus";
        let program = root().join(tool);
        assert!(program.is_file(), "there is no Prometheus; run `make {tool}`");
        let folder = tempfile::tempdir().unwrap();
        let alerts = root().join("helm/tributary/files/alerts.yaml");
        let mut config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\n\
             scrape_configs:\n  - job_name: tributary\n    static_configs:\n",
            alerts
        );
        for service in system.services() {
            let (name, address) = (service.role.name(), service.http);
            writeln!(config, "      - {{targets: ['{address}'], labels: {{container: {name}}}}}")
                .unwrap();
        }
        fs::write(folder.path().join("prometheus.yaml"), config).unwrap();
        let address = free_address();
        let arguments = format!(
            "--config.file=prometheus.yaml --storage.tsdb.path=data --web.listen-address={address}"
        );
        let arguments = arguments.split_whitespace().map(str::to_owned).collect();
        let log = folder.path().join("log");
        let mut process =
            Process::new(program, arguments, Vec::new(), folder.path().to_owned(), log);
        process.start().await;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            let runs = process.pid().is_some() && Instant::now() < deadline;
            assert!(runs, "the Prometheus does not listen: {}", process.log());
            // There is no event to wait for until it listens.
            sleep(Duration::from_millis(20)).await;
        }
        Self { address, _process: process, _folder: folder }
    }

    /// Waits until a query has this one value.
    async fn until(&self, query: &str, wanted: f64) {
        let deadline = Instant::now() + PATIENCE;
        let mut encoded = String::new();
        for byte in query.bytes() {
            write!(encoded, "%{byte:02x}").unwrap();
        }
        loop {
            let data = self.get(&format!("/api/v1/query?query={encoded}")).await;
            let value = data["result"][0]["value"][1].as_str().map(str::parse::<f64>);
            if value.is_some_and(|value| (value.unwrap() - wanted).abs() < 1e-9) {
                return;
            }
            assert!(Instant::now() < deadline, "{query}: {wanted} is expected, found {data:#}");
            // It learns only by asking, once a second.
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Returns the data of an answer.
    async fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // Whose answers end with the connection.
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let mut answer: Value = serde_json::from_str(body).unwrap();
        assert_eq!(answer["status"], "success", "{path}: {answer:#}");
        answer["data"].take()
    }
}
