//! Upgrades a system at work from an earlier `tributary` to this one and takes the upgrade back, one
//! process after the other, as a rolling deployment does.
//!
//! Two of every service share one flow, old and new side by side. At each step a run goes on while
//! processes are exchanged, webhooks come in, and a pipeline is stored by one of the two command lines
//! and run by the other. The books have to balance, the rows to be there, and both to have worked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bus::SealKeys;
use serde_json::Value;
use tempfile::TempDir;
use tests::{Customers, Edition, Layout, Role, Sender, System, binary};
use tokio::time::sleep;

/// Customers of each step.
const CUSTOMERS: u64 = 60_000;
const FILES: u64 = 20;
/// Webhooks of each step; the last of them has a value that does not fit.
const PUSHED: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);
/// Work that both of a role need for each to have some.
const WORKERS: [Role; 3] = [Role::Extractor, Role::Transformer, Role::Loader];

#[tokio::main]
#[expect(clippy::print_stdout, reason = "what happens is the result")]
async fn main() -> Result<()> {
    let old = std::env::args().nth(1).context("usage: upgrade OLD-TRIBUTARY")?;
    let mut upgrade = Upgrade::start(fs::canonicalize(old)?).await?;
    let (old, new) = (upgrade.old.clone(), binary());
    println!("{} is upgraded to {}", version(&old)?, version(&new)?);
    let steps = [
        (None, &old, &old, "all processes are old"),
        (Some((0, &new)), &old, &new, "one of each service is new"),
        (Some((1, &new)), &new, &old, "all processes are new"),
        (Some((0, &old)), &new, &old, "one of each service is old again"),
        (Some((1, &old)), &old, &new, "all processes are old again"),
    ];
    for (exchange, stores, runs, said) in steps {
        if exchange.is_some() && upgrade.steps == 1 {
            upgrade.prepare(&new)?;
        }
        upgrade.step(exchange, stores, runs).await?;
        println!("{said}: {CUSTOMERS} customers and {PUSHED} webhooks, books are balanced");
    }
    Ok(())
}

fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    Ok(format!("{} ({})", String::from_utf8(output.stdout)?.trim(), program.display()))
}

struct Upgrade {
    system: System,
    old: PathBuf,
    sender: Sender,
    steps: u64,
    _keys: TempDir,
}

impl Upgrade {
    /// Starts everything with the old program.
    async fn start(old: PathBuf) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let keys = folder.path().join("seal-keys");
        SealKeys::create(&keys)?;
        let layout = Layout::for_faults()
            .with_replicas(2)
            .with_everywhere("bus.seal_keys", &keys.display().to_string());
        let mut system = System::prepare(layout);
        for service in system.services() {
            service.process.run_program(old.clone());
        }
        system.start_roles(&Role::ALL).await;
        let hooks = system.intakes.iter().map(|(hooks, _)| *hooks).collect();
        Ok(Self { system, old, sender: Sender::new(hooks, 0), steps: 0, _keys: folder })
    }

    /// Does what the job before an upgrade does.
    fn prepare(&self, new: &Path) -> Result<()> {
        let output = Command::new(new)
            .arg("prepare")
            .current_dir(self.system.folder())
            .env("TRIBUTARY_SCHEDULER__DATABASE", &self.system.control)
            .env("TRIBUTARY_SCHEDULER__BUS__SERVERS", self.system.nats.url())
            .env("TRIBUTARY_SCHEDULER__BUS__PREFIX", "story")
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn tributary(&self, program: &Path, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(program)
            .args(arguments)
            .args(["--output", "json", "--server", &format!("http://{}", self.system.address)])
            .current_dir(self.system.folder())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Exchanges one process of each service by another program while a run goes on, and looks at what
    /// has come of the run, of one before, and of webhooks.
    async fn step(
        &mut self,
        exchange: Option<(usize, &PathBuf)>,
        stores: &Path,
        runs: &Path,
    ) -> Result<()> {
        self.steps += 1;
        let name = format!("made-up-{}", self.steps);
        let customers = Customers::new(1, CUSTOMERS);
        self.system.write_customers(customers, FILES, Edition::First);
        self.store(stores, &name)?;
        let run = self.tributary(runs, &["run", &name])?;
        let id = run["id"].as_str().context("a run has an id")?.to_owned();
        let client = self.system.client.clone();
        let loaded = |run: &wire::control::Run| {
            run.ledger.iter().flat_map(|books| &books.targets).any(|target| target.loaded > 0)
        };
        client.until(&id, loaded).await;
        if let Some((index, program)) = exchange {
            for role in Role::ALL {
                let mut services =
                    self.system.services().iter_mut().filter(|found| found.role == role);
                let service = services.nth(index).context("there are two")?;
                service.process.terminate().await.context("it was running")?;
                service.process.run_program(program.clone());
                service.start().await;
            }
        }
        self.push().await?;
        let run = client.succeeded(&id).await;
        ensure!(run.ledger.is_some_and(|books| books.extracted == CUSTOMERS), "of run {id}");
        self.same_rows(&name, customers, Edition::First)?;
        // The next one has nobody go meanwhile, so there is work for all.
        self.system.write_customers(customers, FILES, Edition::Second);
        client.succeeded(&client.start(&name).await).await;
        self.same_rows(&name, customers, Edition::Second)?;
        self.all_have_worked().await?;
        self.copy_new().await
    }

    /// Copies the webhooks by a pipeline that remembers how far it came, whoever remembered it.
    async fn copy_new(&self) -> Result<()> {
        let client = &self.system.client;
        let run = client.succeeded(&client.start("copied").await).await;
        let extracted = run.ledger.map_or(0, |books| books.extracted);
        ensure!((PUSHED - 1..=PUSHED).contains(&extracted), "{extracted} webhooks were copied");
        let copied = self.system.sql("select count(*) from copied");
        ensure!(copied.parse() == Ok(self.steps * (PUSHED - 1)), "{copied} copies");
        Ok(())
    }

    fn store(&self, program: &Path, name: &str) -> Result<()> {
        let yaml = self.system.customers_pipeline();
        let yaml = yaml.replace("pipeline: customers", &format!("pipeline: {name}"));
        let yaml = yaml.replace("table: customers", &format!("table: {}", name.replace('-', "_")));
        let pushed = format!(
            "pipeline: pushed\nsource: {{push: {{}}}}\n\
             triggers: {{push: {{webhook: {{verify: none, id: {{header: x-delivery}}}}}}}}\n\
             schema: {{id: integer, step: integer}}\nkey: [id]\n\
             targets:\n  store:\n    postgres: {{url: \"{}\", table: pushed}}\n",
            self.system.target,
        );
        let copied = format!(
            "pipeline: copied\nsource:\n  postgres: {{url: \"{0}\", table: pushed, cursor: id}}\n\
             schema: {{id: integer, step: integer}}\nkey: [id]\n\
             targets:\n  store:\n    postgres: {{url: \"{0}\", table: copied}}\n",
            self.system.target,
        );
        let files = [("made-up.yaml", yaml), ("pushed.yaml", pushed), ("copied.yaml", copied)];
        for (file, yaml) in files {
            fs::write(self.system.folder().join(file), yaml)?;
            self.tributary(program, &["apply", "-f", file])?;
        }
        Ok(())
    }

    /// Sends webhooks and waits until they are where they belong.
    async fn push(&mut self) -> Result<()> {
        let end = self.steps * PUSHED;
        for id in end - PUSHED..end {
            let step = if id + 1 == end { "\"none\"".to_owned() } else { self.steps.to_string() };
            let body = format!(r#"{{"id": {id}, "step": {step}}}"#);
            self.sender.deliver("pushed", &format!("delivery-{id}"), &body).await;
        }
        let wanted = (self.steps * (PUSHED - 1), self.steps);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let there = self.system.sql("select to_regclass('pushed') is not null") == "t";
            let rows =
                if there { self.system.sql("select count(*) from pushed").parse()? } else { 0 };
            let set_aside = self.system.client.quarantined("pushed").await.len() as u64;
            if (rows, set_aside) == wanted {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{rows} webhooks arrived and {set_aside} are set aside, not {wanted:?}"
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn same_rows(&self, name: &str, customers: Customers, edition: Edition) -> Result<()> {
        let found = self.system.fingerprint_of(&name.replace('-', "_"));
        ensure!(found == customers.fingerprint(edition), "the rows of {name} differ");
        Ok(())
    }

    async fn all_have_worked(&mut self) -> Result<()> {
        for service in self.system.services().iter().filter(|found| WORKERS.contains(&found.role)) {
            let deliveries = service.metric("tributary_bus_deliveries_total", "").await;
            ensure!(deliveries > 0.0, "a {} has had nothing to do", service.role.name());
        }
        Ok(())
    }
}
