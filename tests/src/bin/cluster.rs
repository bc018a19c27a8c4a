//! Runs what a cluster runs, on this machine: three brokers, PostgreSQL and two of every service, with TLS
//! between all of them, a login key per service, tokens, and everything encrypted that the brokers keep.
//!
//! The pipelines of the demo and one of made-up customers go through it, while the broker that leads, the
//! database server and one of each service are killed. The books have to balance, the rows to be there,
//! and each customer with ten orders to have one coupon. Then it measures how throughput grows from one
//! to two transformers and loaders.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use async_nats::{ConnectOptions, jetstream};
use bus::SealKeys;
use serde_json::{Value, json};
use testkit::{certificates::Authority, nats::Nats};
use tests::{Customers, Edition, History, Layout, Peer, Role, System, Usage, binary};

/// Prefix of all names on the broker.
const PREFIX: &str = "story";
const ADMIN_TOKEN: &str = "token-of-a-cluster-that-lasts-for-minutes";
/// What the shop signs its webhooks with.
const SHOP_SECRET: &str = "whsec_dGhlIHNlY3JldCBvZiBhIGNsdXN0ZXIncyBzaG9w";
const PATIENCE: Duration = Duration::from_secs(300);
/// Customers of the run that survives the kills.
const RECORDS: u64 = 300_000;
/// Customers of each measured run.
const MEASURED: u64 = 100_000;
const ROUNDS: usize = 3;
/// The pipelines of the demo that read files and a database.
const FILES: [&str; 3] = ["orders-1997", "orders-1998", "customers"];
/// The day from which on the shop of the demo has its orders.
const SHOP_SINCE: &str = "1998-06-01";
/// Calls that the provider of coupons takes in a second.
const PROVIDER_TAKES: u32 = 100;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "what happens is the result")]
async fn main() -> Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut cluster = Cluster::start().await?;
    println!(
        "3 brokers, PostgreSQL, 2 of every service: TLS everywhere, a login key per service, tokens, \
         streams encrypted"
    );
    let customers = cluster.survive().await?;
    println!("books are balanced, and the rows are there: {customers} customers made up");

    let (one, two) = (cluster.measure(1).await?, cluster.measure(2).await?);
    let (mut ones, mut twos) = (vec![one], vec![two]);
    for _ in 1..ROUNDS {
        ones.push(cluster.measure(1).await?);
        twos.push(cluster.measure(2).await?);
    }
    let (one, two) = (median(ones), median(twos));
    for (number, measured) in [(1, &one), (2, &two)] {
        println!(
            "{number} transformers and loaders: {:.0} records/s, {:.2} cores busy: {}",
            measured.records_s,
            measured.shares.iter().map(|(_, cores)| cores).sum::<f64>(),
            measured.said(),
        );
    }
    let cores = std::thread::available_parallelism()?.get();
    println!(
        "two of each are {:.2} times as fast as one, on {cores} cores",
        two.records_s / one.records_s
    );
    println!("bound by {}", two.bound(cores));
    Ok(())
}

/// What one run has taken.
struct Measured {
    records_s: f64,
    /// Cores that were busy, by what they were busy with.
    shares: Vec<(&'static str, f64)>,
}

impl Measured {
    fn said(&self) -> String {
        let parts = self.shares.iter().map(|(name, cores)| format!("{name} {cores:.2}"));
        parts.collect::<Vec<_>>().join(", ")
    }

    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    fn bound(&self, cores: usize) -> String {
        let busy: f64 = self.shares.iter().map(|(_, cores)| cores).sum();
        let (most, share) = self
            .shares
            .iter()
            .max_by(|left, right| left.1.total_cmp(&right.1))
            .expect("there are services");
        if busy > 0.85 * cores as f64 {
            format!("the cores of this machine; most of them are taken by {most}")
        } else {
            format!("waiting: {busy:.2} of {cores} cores are busy, {share:.2} of them with {most}")
        }
    }
}

fn median(mut measured: Vec<Measured>) -> Measured {
    measured.sort_by(|left, right| left.records_s.total_cmp(&right.records_s));
    let middle = measured.len() / 2;
    measured.swap_remove(middle)
}

struct Cluster {
    system: System,
    servers: [Nats; 3],
    authority: Arc<Authority>,
    keys: PathBuf,
    shop: Peer,
    provider: Peer,
    history: History,
    runs: usize,
}

impl Cluster {
    async fn start() -> Result<Self> {
        let authority = Arc::new(Authority::new());
        authority.issue("server");
        let text = |name: &str| authority.path(name).display().to_string();
        let (ca, certificate, key) = (text("ca.pem"), text("server.pem"), text("server.key"));
        let keys = authority.path("keys");
        let users = Command::new(binary())
            .args(["broker-users", "--prefix", PREFIX, "--keys"])
            .arg(&keys)
            .output()?;
        ensure!(users.status.success(), "{}", String::from_utf8_lossy(&users.stderr));
        let tls = format!("cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}");
        let settings = format!("tls {{{tls}}}\n{}", String::from_utf8(users.stdout)?);
        let among = format!("tls {{{tls}, verify: true}}");
        let servers =
            tokio::task::spawn_blocking(move || Nats::start_cluster_configured(&settings, &among));
        let servers = servers.await?;
        let urls = servers.each_ref().map(Nats::url).join(",");

        let seal_keys = authority.path("seal-keys");
        SealKeys::create(&seal_keys)?;
        let mut layout = Layout::for_faults()
            .with_replicas(2)
            .with_database_tls(Arc::clone(&authority))
            .with_everywhere("bus.seal_keys", &seal_keys.display().to_string())
            .with_everywhere("bus.servers", &urls)
            .with_everywhere("bus.replicas", "3")
            .with_everywhere("bus.tls_ca", &ca)
            .with(Role::Scheduler, "require_database_tls", "true")
            .with(Role::Scheduler, "access.mode", "tokens")
            .with(Role::Scheduler, "access.admin_token", "${env:ADMIN_TOKEN}")
            .with(Role::Scheduler, "access.tls.certificate", &certificate)
            .with(Role::Scheduler, "access.tls.key", &key)
            .with(Role::Extractor, "ingest.tls.certificate", &certificate)
            .with(Role::Extractor, "ingest.tls.key", &key)
            .with_environment("ADMIN_TOKEN", ADMIN_TOKEN)
            .with_environment("SHOP_SECRET", SHOP_SECRET);
        for role in Role::ALL {
            let file = keys.join(format!("{}.nk", role.name()));
            layout = layout.with(role, "bus.credentials", &file.display().to_string());
        }
        let mut system = System::prepare(layout);
        let mut prepare = Command::new(binary());
        prepare
            .arg("prepare")
            .current_dir(system.folder())
            .env("TRIBUTARY_SCHEDULER__DATABASE", "prepared.db")
            .env("TRIBUTARY_SCHEDULER__BUS__SERVERS", urls)
            .env("TRIBUTARY_SCHEDULER__BUS__PREFIX", PREFIX)
            .env("TRIBUTARY_SCHEDULER__BUS__REPLICAS", "3")
            .env("TRIBUTARY_SCHEDULER__BUS__TLS_CA", &ca)
            .env("TRIBUTARY_SCHEDULER__BUS__CREDENTIALS", keys.join("scheduler.nk"));
        let prepared = tokio::task::spawn_blocking(move || prepare.output()).await??;
        ensure!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
        system.start_roles(&Role::ALL).await;
        let history = History::read();
        let shop = Peer::shop_since(system.folder(), &history, SHOP_SINCE).await;
        let provider = Peer::provider(system.folder(), PROVIDER_TAKES, 1).await;
        Ok(Self { system, servers, authority, keys, shop, provider, history, runs: 0 })
    }

    /// Runs a client command with TLS and the token, and returns the JSON that it prints.
    fn tributary(&self, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(binary())
            .args(arguments)
            .args(["--output", "json"])
            .current_dir(self.system.folder())
            .env("TRIBUTARY_SERVER", format!("https://{}", self.system.address))
            .env("TRIBUTARY_CA", self.authority.path("ca.pem"))
            .env("TRIBUTARY_TOKEN", ADMIN_TOKEN)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).with_context(|| format!("{arguments:?} prints JSON"))
    }

    fn apply(&self, file: &str, yaml: &str) -> Result<()> {
        fs::write(self.system.folder().join(file), yaml)?;
        self.tributary(&["apply", "-f", file]).map(drop)
    }

    /// Makes customers and a pipeline that brings them into a table of its own.
    fn make_customers(&mut self, number: u64) -> Result<(String, Customers)> {
        self.runs += 1;
        let name = format!("made-up-{}", self.runs);
        let table = name.replace('-', "_");
        let customers = Customers::new(self.runs as u64, number);
        self.system.write_customers(customers, 10, Edition::First);
        let yaml = self.system.customers_pipeline();
        let yaml = yaml.replace("pipeline: customers", &format!("pipeline: {name}"));
        let yaml = yaml.replace("table: customers", &format!("table: {table}"));
        self.apply("made-up.yaml", &yaml)?;
        Ok((name, customers))
    }

    /// Writes the sources of the demo where its pipelines look for them, and stores these, with tables
    /// of PostgreSQL as the store, because a file has one machine, and with the contacts marked as
    /// personal.
    fn apply_demo(&self) -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let wheels = fs::read_dir(root.join(".tools/wheels"))?.filter_map(Result::ok);
        let wheel = wheels
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().to_lowercase().contains("lifetimes-"))
            .context("`make cluster` has fetched the purchases")?;
        let delivered = Command::new("python3")
            .arg(root.join("deploy/demo/deliver.py"))
            .arg(wheel)
            .arg(".tributary/demo")
            .current_dir(self.system.folder())
            .output()?;
        ensure!(delivered.status.success(), "{}", String::from_utf8_lossy(&delivered.stderr));
        let postgres = format!("postgres: {{url: \"{}\", table", self.system.target);
        let store = format!("postgres:\n    url: \"{}\"\n    query", self.system.target);
        let folder = self.system.folder().join("pipelines");
        fs::create_dir(&folder)?;
        for file in fs::read_dir(root.join("deploy/demo/pipelines"))? {
            let path = file?.path();
            let mut yaml = fs::read_to_string(&path)?;
            for (demo, here) in [
                ("sqlite: {path: .tributary/demo/store.db, table", postgres.as_str()),
                ("sqlite:\n    path: .tributary/demo/store.db\n    query", store.as_str()),
                ("${file:/demo/shop.address}", self.shop.url()),
                ("${file:/demo/provider.address}", self.provider.url()),
                ("${file:/demo/shop.secret}", "${env:SHOP_SECRET}"),
                (
                    "steps:\n  - rename: {contactId",
                    "pii: [person, channels, address]\nsteps:\n  - rename: {contactId",
                ),
            ] {
                yaml = yaml.replace(demo, here);
            }
            fs::write(folder.join(path.file_name().context("a name")?), yaml)?;
        }
        self.tributary(&["apply", "-f", "pipelines"]).map(drop)
    }

    fn start_run(&self, pipeline: &str) -> Result<String> {
        let run = self.tributary(&["run", pipeline])?;
        run["id"].as_str().map(str::to_owned).ok_or_else(|| anyhow!("no id in {run}"))
    }

    /// Waits until a run is as wanted.
    async fn until(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let runs = self.tributary(&["runs"])?;
            let run =
                runs["runs"].as_array().and_then(|runs| runs.iter().find(|run| run["id"] == id));
            match run {
                Some(run) if wanted(run) => return Ok(run.clone()),
                run => ensure!(Instant::now() < deadline, "waited too long for {run:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn succeeds(&self, id: &str) -> Result<Value> {
        let ended = |run: &Value| {
            !["waiting", "running", "paused"].iter().any(|state| run["state"] == *state)
        };
        let run = self.until(id, ended).await?;
        ensure!(run["state"] == "succeeded" && run["ledger"]["balanced"] == true, "{run:#}");
        Ok(run)
    }

    /// Index of the broker that leads the stream of batches.
    async fn leader(&self) -> Result<usize> {
        let seed = fs::read_to_string(self.keys.join("scheduler.nk"))?;
        let client = ConnectOptions::with_nkey(seed)
            .custom_inbox_prefix(format!("_INBOX_{PREFIX}_scheduler"))
            .add_root_certificates(self.authority.path("ca.pem"))
            .require_tls(true)
            .connect(self.servers.each_ref().map(Nats::url).to_vec())
            .await?;
        let stream = jetstream::new(client).get_stream("STORY_RAW").await?;
        let leader = stream.cached_info().cluster.as_ref().and_then(|found| found.leader.as_ref());
        let leader = leader.and_then(|name| name.strip_prefix('n')?.parse().ok());
        leader.context("the stream has a leader")
    }

    /// Has the pipelines run while one of everything dies, and returns the number of customers.
    #[expect(clippy::print_stdout, reason = "what happens is the result")]
    async fn survive(&mut self) -> Result<u64> {
        self.apply_demo()?;
        let (name, customers) = self.make_customers(RECORDS)?;
        let long = self.start_run(&name)?;
        let demo =
            FILES.into_iter().map(|name| self.start_run(name)).collect::<Result<Vec<_>>>()?;
        let loaded = |run: &Value| run["ledger"]["targets"][0]["loaded"].as_u64().unwrap_or(0);
        self.until(&long, |run| loaded(run) > 0).await?;
        let leader = self.leader().await?;
        self.servers[leader].kill();
        println!("killed broker n{leader}, the leader");
        for role in Role::ALL {
            let pid = self.system.service(role).process.kill().await.context("it was running")?;
            println!("killed a {} ({pid})", role.name());
        }
        self.system.service(Role::Scheduler).start().await;
        // It may have ended meanwhile: the other one of each went on.
        self.until(&long, |run| run["state"] != "waiting").await?;
        for role in Role::ALL.into_iter().filter(|role| *role != Role::Scheduler) {
            self.system.service(role).start().await;
        }
        tokio::task::block_in_place(|| {
            self.system.postgres.kill();
            println!("killed PostgreSQL");
            self.system.postgres.restart();
        });
        for (name, id) in FILES.iter().zip(&demo) {
            let run = self.succeeds(id).await?;
            println!("{name}: {} records loaded", loaded(&run));
        }
        let run = self.succeeds(&long).await?;
        ensure!(run["ledger"]["extracted"] == RECORDS, "{run:#}");
        let found = self.system.fingerprint_of(&name.replace('-', "_"));
        ensure!(found == customers.fingerprint(Edition::First), "the rows differ");
        self.send_coupons().await?;
        let server = &mut self.servers[leader];
        tokio::task::block_in_place(|| server.restart());
        Ok(RECORDS)
    }

    /// Has the shop push its latest orders, of which some are lost, polls for those, and sends a coupon
    /// to each customer with ten orders, while a loader dies.
    #[expect(clippy::print_stdout, reason = "what happens is the result")]
    async fn send_coupons(&mut self) -> Result<()> {
        let hook = format!("http://{}/hooks/orders-1998-06", self.system.intakes[0].0);
        let push = json!({"url": hook, "secret": SHOP_SECRET, "lose_percent": 5});
        self.shop.post("/admin/push", &push).await;
        let deadline = Instant::now() + PATIENCE;
        let pushed = loop {
            let state = self.shop.get("/admin/push").await;
            if state["done"] == true {
                break state;
            }
            ensure!(Instant::now() < deadline, "waited too long for {state}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        println!("{} webhooks were accepted, {} were lost", pushed["sent"], pushed["lost"]);
        let polled = self.start_run("orders-1998-06")?;
        self.succeeds(&polled).await?;
        let run = self.start_run("coupons")?;
        let deadline = Instant::now() + PATIENCE;
        while self.provider.report().await.calls < 100 {
            ensure!(Instant::now() < deadline, "no coupons are sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let loader = &mut self.system.service(Role::Loader);
        let pid = loader.process.kill().await.context("it was running")?;
        println!("killed a loader ({pid})");
        loader.start().await;
        self.succeeds(&run).await?;
        let report = self.provider.report().await;
        println!(
            "{} coupons, at most {} calls in a second, {} over the quota",
            report.coupons.len(),
            report.busiest,
            report.violations
        );
        ensure!(
            report.coupons == self.history.coupons(self.history.len()),
            "other customers got coupons"
        );
        ensure!(report.violations == 0, "the provider was called too often");
        Ok(())
    }

    fn cpu(&mut self) -> Vec<(&'static str, f64)> {
        let mut found = Vec::new();
        for role in Role::ALL {
            let services = self.system.services().iter().filter(|service| service.role == role);
            let used = services.filter_map(|service| Usage::of(service.process.pid()?));
            found.push((role.name(), used.map(|usage| usage.cpu_s).sum()));
        }
        let brokers = self.servers.iter().filter_map(|server| Usage::of(server.pid()?));
        found.push(("nats-server", brokers.map(|usage| usage.cpu_s).sum()));
        let postgres = Usage::of_family(self.system.postmaster());
        found.push(("postgres", postgres.map_or(0.0, |usage| usage.cpu_s)));
        found
    }

    /// Runs with so many transformers and loaders.
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    async fn measure(&mut self, number: usize) -> Result<Measured> {
        for role in [Role::Transformer, Role::Loader] {
            let services = self.system.services().iter_mut().filter(|service| service.role == role);
            for (index, service) in services.enumerate() {
                match service.process.pid() {
                    None if index < number => service.start().await,
                    Some(_) if index >= number => drop(service.process.terminate().await),
                    _ => {}
                }
            }
        }
        let (name, _) = self.make_customers(MEASURED)?;
        let before = self.cpu();
        let started = Instant::now();
        let run = self.start_run(&name)?;
        self.succeeds(&run).await?;
        let elapsed = started.elapsed().as_secs_f64();
        let after = self.cpu();
        let shares = before.iter().zip(&after);
        let shares = shares.map(|((name, before), (_, after))| (*name, (after - before) / elapsed));
        Ok(Measured { records_s: MEASURED as f64 / elapsed, shares: shares.collect() })
    }
}
