//! Quotas as the called system sees them: it counts every call by its own clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::http::{Reply, Request, Server};
use tests::{Layout, Role, System};
use tokio::time::{sleep, timeout};
use wire::control::RunState;

/// How long anything may take that has to happen.
/// Share of a quota that has to be used while work waits, on a machine that does much else meanwhile.
/// The figure that is printed is the one to look at.
const LEAST_USED: f64 = 0.6;
const PATIENCE: Duration = Duration::from_secs(120);

/// A limit as the called system counts it.
#[derive(Debug, Clone, Copy)]
struct Limit {
    calls: usize,
    window: Duration,
}

impl Limit {
    fn new(calls: usize, window_seconds: u64) -> Self {
        Self { calls, window: Duration::from_secs(window_seconds) }
    }

    fn yaml(self) -> String {
        format!("{}/{}s", self.calls, self.window.as_secs())
    }

    /// Asserts that no window holds more calls, wherever it begins.
    fn held(self, requests: &[Request]) {
        let busiest = busiest(requests, self.window);
        eprintln!("at most {busiest} calls in {:?}, of {}", self.window, self.calls);
        assert!(busiest <= self.calls, "{busiest} calls in {:?}, of {}", self.window, self.calls);
    }
}

/// The most calls in any half-open window of a length.
fn busiest(requests: &[Request], window: Duration) -> usize {
    let mut times: Vec<Instant> = requests.iter().map(|request| request.at).collect();
    times.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (index, at) in times.iter().enumerate() {
        while *at - times[first] >= window {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    most
}

/// Waits until the server was called as wanted.
async fn called(server: &Server, wanted: impl FnMut(&[Request]) -> bool) -> Vec<Request> {
    timeout(PATIENCE, server.wait_for(wanted)).await.expect("the calls come in time")
}

/// Measures the share of a limit that is used from the next call on, over so many windows' calls:
/// calls come in bursts, so that their number in a given time would say less.
async fn measure(server: &Server, limit: Limit, windows: u32) -> f64 {
    let first = server.count();
    let last = first + limit.calls * windows as usize;
    let requests = called(server, |calls| calls.len() > last).await;
    let took = requests[last].at - requests[first].at;
    let used = (limit.window * windows).as_secs_f64() / took.as_secs_f64();
    eprintln!("{:.1} % of {} used", used * 100.0, limit.yaml());
    used
}

/// Applies a quota `api`, with more of its settings.
async fn declare(system: &System, limits: &str, more: &str) {
    system.client.apply(&format!("quotas: {{api: {{limits: [{limits}]{more}}}}}")).await;
}

/// Returns a pipeline that sends so many records of a file to an API under the quota `api`.
fn sending(system: &System, name: &str, url: &str, records: usize) -> String {
    let mut csv = "id,name\n".to_owned();
    for id in 0..records {
        writeln!(csv, "{id},n{id}").unwrap();
    }
    std::fs::write(system.folder().join(format!("{name}.csv")), csv).unwrap();
    format!(
        "pipeline: {name}\nsource: {{csv: {{path: \"{name}.csv\"}}}}\n\
         schema: {{id: integer, name: text}}\nkey: [id]\n\
         targets:\n  api:\n    http:\n      base_url: {url}\n      allow_private: true\n      \
         quota: api\n      in_flight: 32\n      upsert: {{method: PUT, path: \"/{name}/{{{{ key }}}}\"}}\n"
    )
}

/// Returns a pipeline that reads the pages of an API under the quota `api` into the store.
fn reading(system: &System, name: &str, url: &str) -> String {
    format!(
        "pipeline: {name}\nsource:\n  http:\n    base_url: {url}\n    allow_private: true\n    \
         quota: api\n    path: /pages\n    records: items\n    key: [id]\n    \
         paginate: {{page: {{param: page, first: 0}}, more: more}}\n\
         schema: {{id: integer}}\nkey: [id]\n\
         targets:\n  store:\n    postgres: {{url: \"{}\", table: {name}}}\n",
        system.target
    )
}

/// A page of ten records, of so many pages.
fn page(request: &Request, pages: usize) -> Reply {
    let number: usize = request.path.split_once("page=").unwrap().1.parse().unwrap();
    let items: Vec<Value> = (0..10).map(|item| json!({"id": number * 10 + item})).collect();
    let body = json!({"items": items, "more": number + 1 < pages});
    Reply::new(200, body.to_string()).with("content-type", "application/json")
}

/// Small batches, so that all loaders have work.
fn layout(loaders: usize) -> Layout {
    Layout::for_faults().with_replicas_of(Role::Loader, loaders).with(
        Role::Extractor,
        "batch_records",
        "50",
    )
}

/// Returns how often each path was called, with a method.
fn paths<'a>(requests: &'a [Request], method: &str) -> BTreeMap<&'a str, usize> {
    let mut paths = BTreeMap::new();
    for request in requests.iter().filter(|request| request.method == method) {
        *paths.entry(request.path.as_str()).or_default() += 1;
    }
    paths
}

fn quota(system: &System) -> Value {
    system.tributary(&["quotas", "api"])["quotas"][0].clone()
}

/// Waits until `tributary quotas` shows the quota as wanted, and returns what it shows.
async fn until_shown(system: &System, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = quota(system);
        if wanted(&shown) {
            return shown;
        }
        assert!(Instant::now() < deadline, "{shown}");
        // What waits is told every now and then.
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_loaders_use_a_quota_and_never_exceed_it_through_kills_and_a_broker_restart() {
    const RECORDS: usize = 3_500;
    let limit = Limit::new(400, 4);
    let layout = layout(4).with(Role::Loader, "group_messages", "1");
    let mut system = System::start(layout).await;
    let api = Server::start(|_, _| Reply::new(200, "")).await;
    declare(&system, &limit.yaml(), "").await;
    let pipeline = sending(&system, "people", &api.url(), RECORDS);
    system.client.apply(&pipeline.replace("in_flight: 32", "in_flight: 8")).await;
    let run = system.client.start("people").await;

    // The first window is free at once; afterwards calls come as the quota lets them.
    called(&api, |calls| calls.len() > limit.calls + 50).await;
    let used = measure(&api, limit, 3).await;
    assert!(used >= LEAST_USED, "only {:.1} % of the quota used", used * 100.0);
    let shown = until_shown(&system, |shown| {
        let all = shown["processes"] == 4 && shown["limits"][0]["used"].as_u64() > Some(300);
        all && shown["waiting"][0]["calls"].as_u64() > Some(0)
    })
    .await;
    assert_eq!(shown["waiting"][0]["pipeline"], "people");
    let estimate = shown["estimate_seconds"].as_f64().unwrap();
    assert!(estimate < 8.0, "{shown}");

    let loader = system.service(Role::Loader);
    assert!(loader.process.kill().await.is_some());
    loader.start().await;
    let before = api.count();
    called(&api, |calls| calls.len() > before + 100).await;
    let pid = system.nats.pid();
    system.nats.kill();
    system.nats.restart();
    assert_ne!(system.nats.pid(), pid);
    let before = api.count();
    assert!(before < RECORDS, "the faults came in the middle");
    let books = system.client.succeeded(&run).await.ledger.unwrap();
    assert_eq!((books.extracted, books.quarantined), (RECORDS as u64, 0));

    let requests = api.requests();
    limit.held(&requests);
    assert_eq!(paths(&requests, "PUT").len(), RECORDS, "each record was sent");
    // A broker that was away hands out again what each loader works on, 50 records, and has forgotten
    // what it last learned. The API knows a repeated call by its key.
    let repeated = requests.len() - RECORDS;
    eprintln!("{repeated} calls were repeated");
    assert!(repeated <= 400, "{repeated} calls were repeated");
    let mut keys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for call in requests.iter().filter(|request| request.method == "PUT") {
        keys.entry(&call.path).or_default().insert(call.header("idempotency-key").unwrap());
    }
    assert!(keys.values().all(|keys| keys.len() == 1), "a repeated call carries its key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paged_source_keeps_its_quota_through_a_kill() {
    const PAGES: usize = 500;
    let limit = Limit::new(40, 2);
    let mut system = System::start(layout(1)).await;
    let api = Server::start(|request, _| page(request, PAGES)).await;
    declare(&system, &limit.yaml(), "").await;
    system.client.apply(&reading(&system, "items", &api.url())).await;
    let run = system.client.start("items").await;
    called(&api, |calls| calls.len() > limit.calls + 5).await;
    let used = measure(&api, limit, 4).await;
    assert!(used >= LEAST_USED, "only {:.1} % of the quota used", used * 100.0);

    let extractor = system.service(Role::Extractor);
    assert!(extractor.process.kill().await.is_some());
    extractor.start().await;
    assert!(api.count() < PAGES, "killed in the middle");
    let books = system.client.succeeded(&run).await.ledger.unwrap();
    assert_eq!((books.extracted, books.quarantined), (10 * PAGES as u64, 0));
    assert_eq!(system.sql("select count(*), sum(id) from items"), "5000|12497500");
    let requests = api.requests();
    limit.held(&requests);
    assert!(requests.len() <= PAGES + 50, "{} calls for {PAGES} pages", requests.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_and_targets_share_a_quota_by_weight() {
    const RECORDS: usize = 250;
    const PAGES: usize = 60;
    let limit = Limit::new(20, 1);
    let system = System::start(layout(1)).await;
    let api = Server::start(|request, _| match request.method.as_str() {
        "GET" => page(request, PAGES),
        _ => Reply::new(200, ""),
    })
    .await;
    declare(&system, &limit.yaml(), ", weights: {hurried: 3}").await;
    system.client.apply(&sending(&system, "hurried", &api.url(), RECORDS)).await;
    system.client.apply(&sending(&system, "patient", &api.url(), RECORDS)).await;
    system.client.apply(&reading(&system, "pages", &api.url())).await;
    let mut runs = Vec::new();
    for name in ["hurried", "patient", "pages"] {
        runs.push(system.client.start(name).await);
    }
    // All of them wait from then on.
    called(&api, |calls| {
        ["/hurried", "/patient", "/pages"]
            .iter()
            .all(|path| calls.iter().filter(|call| call.path.starts_with(path)).count() > 10)
    })
    .await;
    let before = api.count();
    let used = measure(&api, limit, 8).await;
    let requests = api.requests();
    let share = |prefix: &str| {
        requests[before..].iter().filter(|call| call.path.starts_with(prefix)).count()
    };
    let (hurried, patient, pages) = (share("/hurried"), share("/patient"), share("/pages"));
    eprintln!("{hurried} calls with weight 3, {patient} with 1, {pages} pages");
    assert!(used >= LEAST_USED, "only {:.1} % of the quota used", used * 100.0);
    assert!(hurried > patient, "{hurried} and {patient}");
    assert!(pages > 0 && patient > 0, "nobody starves");

    for run in &runs {
        system.client.succeeded(run).await;
    }
    let requests = api.requests();
    limit.held(&requests);
    assert_eq!(paths(&requests, "PUT").len(), 2 * RECORDS);
    assert_eq!(paths(&requests, "GET").len(), PAGES);
}

/// A server that takes fewer calls than was declared, in windows that follow each other, and refuses
/// the others. It says how many are left if it is `telling`, and otherwise only when to come back.
struct Strict {
    server: Server,
    refused: Arc<AtomicUsize>,
}

impl Strict {
    async fn start(limit: Limit, telling: bool) -> Self {
        let refused = Arc::new(AtomicUsize::new(0));
        let window = Mutex::new((Instant::now(), 0));
        let server = Server::start({
            let refused = Arc::clone(&refused);
            move |_, _| {
                let mut window = window.lock().unwrap();
                if window.0.elapsed() >= limit.window {
                    *window = (Instant::now(), 0);
                }
                window.1 += 1;
                let reset = limit.window.saturating_sub(window.0.elapsed()).as_secs_f64().ceil();
                let reply = if window.1 <= limit.calls {
                    Reply::new(200, "")
                } else {
                    refused.fetch_add(1, Ordering::SeqCst);
                    Reply::new(429, "").with("retry-after", &reset.to_string())
                };
                if telling {
                    let left = limit.calls.saturating_sub(window.1).to_string();
                    return reply
                        .with("ratelimit-remaining", &left)
                        .with("ratelimit-reset", &reset.to_string());
                }
                reply
            }
        })
        .await;
        Self { server, refused }
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

/// Sends records to a server that takes 20 calls in two seconds, under a quota of 100 a second and
/// with two loaders. Returns how many calls were refused.
async fn corrected(telling: bool, more: &str, records: usize) -> (usize, Value) {
    let system = System::start(layout(2)).await;
    let limit = Limit::new(20, 2);
    let strict = Strict::start(limit, telling).await;
    declare(&system, "100/s", more).await;
    let pipeline = sending(&system, "people", &strict.server.url(), records);
    system.client.apply(&pipeline.replace("in_flight: 32", "in_flight: 8")).await;
    let from = Instant::now();
    let run = system.client.start("people").await;
    called(&strict.server, |calls| calls.len() >= records / 2).await;
    let shown = quota(&system);
    let books = system.client.succeeded(&run).await.ledger.unwrap();
    assert_eq!((books.extracted, books.quarantined), (records as u64, 0));
    let requests = strict.server.requests();
    assert_eq!(paths(&requests, "PUT").len(), records, "nothing is dropped");
    let refused = strict.refused();
    eprintln!("{refused} of {} calls refused in {:?}, {shown}", requests.len(), from.elapsed());
    assert_eq!(requests.len() - refused, records, "each was taken once, and nothing else asked");
    (refused, shown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_with_a_time_to_come_back_corrects_the_count() {
    let (refused, _) = corrected(false, "", 160).await;
    // Eight windows; each refuses at most what was on its way.
    assert!((1..=8 * 16).contains(&refused), "{refused} calls were refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_tells_what_is_left_is_not_asked_for_more() {
    let (refused, _) = corrected(true, "", 160).await;
    // At the beginning of a window nobody knows yet; later all do.
    assert!(refused <= 8 * 8, "{refused} calls were refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adaptive_quota_learns_what_is_taken() {
    let (refused, shown) = corrected(false, ", adaptive: true", 160).await;
    assert!(refused >= 1);
    assert!(shown["share"].as_f64().unwrap() < 1.0, "{shown}");
    assert!(shown["refused"].as_u64().unwrap() >= 1, "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daily_budget_that_is_spent_lets_the_rest_wait() {
    const RECORDS: usize = 50;
    let mut system = System::start(layout(1)).await;
    let api = Server::start(|_, _| Reply::new(200, "")).await;
    declare(&system, "30/day, 100/s", "").await;
    system.client.apply(&sending(&system, "people", &api.url(), RECORDS)).await;
    let run = system.client.start("people").await;
    called(&api, |calls| calls.len() >= 30).await;
    let waits = until_shown(&system, |shown| {
        shown["limits"][0]["used"] == 30 && shown["waiting"][0]["calls"].as_u64() > Some(0)
    })
    .await;
    let estimate = waits["estimate_seconds"].as_f64().unwrap();
    assert!((86_000.0..=90_000.0).contains(&estimate), "{waits}");
    assert_eq!(waits["waiting"][0]["pipeline"], "people");
    // Neither a broker nor a loader that starts again forgets what was used.
    system.nats.kill();
    system.nats.restart();
    let loader = system.service(Role::Loader);
    assert!(loader.process.kill().await.is_some());
    loader.start().await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(api.count(), 30);
    assert_eq!(system.client.run(&run).await.state(), RunState::Running);

    declare(&system, "1000/day, 100/s", "").await;
    let books = system.client.succeeded(&run).await.ledger.unwrap();
    assert_eq!((books.extracted, books.quarantined), (RECORDS as u64, 0));
    let requests = api.requests();
    assert_eq!((paths(&requests, "PUT").len(), requests.len()), (RECORDS, RECORDS));
}
