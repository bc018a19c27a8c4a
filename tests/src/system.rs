use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tempfile::TempDir;
use testkit::{certificates::Authority, nats::Nats, postgres::Postgres};

use crate::{
    Client, Customer, Customers, Edition, Fingerprint, Process, Role, SCHEMA, Service, Tap, binary,
    service::free_address,
};

/// Prefix of all names on the broker.
const PREFIX: &str = "story";

/// What a system consists of.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Number of processes of each role.
    pub replicas: usize,
    /// Number of processes of single roles, where it is another one.
    pub replicas_of: Vec<(Role, usize)>,
    /// The broker syncs before it acknowledges, and PostgreSQL as well.
    pub durable: bool,
    /// Settings beyond the defaults: role, key such as `batch.max_records`, value.
    pub settings: Vec<(Role, &'static str, String)>,
    /// Settings of the broker beyond its defaults.
    pub broker: String,
    /// Who signed the certificate `server` of PostgreSQL, which then refuses whoever comes without TLS.
    pub database_authority: Option<Arc<Authority>>,
    /// Variables of all services beyond the settings, such as secrets.
    pub environment: Vec<(&'static str, String)>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            replicas: 1,
            replicas_of: Vec::new(),
            durable: false,
            settings: Vec::new(),
            broker: String::new(),
            database_authority: None,
            environment: Vec::new(),
        }
    }
}

impl Layout {
    /// One process of each role, small batches so that a run has many, and work of a killed process
    /// goes to another one soon.
    #[must_use]
    pub fn for_faults() -> Self {
        let settings = Role::ALL.map(|role| (role, "bus.ack_wait", "2s".to_owned()));
        Self::default()
            .with_all(settings)
            .with(Role::Scheduler, "stalled_after", "3s")
            .with(Role::Extractor, "batch_bytes", "48KiB")
            .with(Role::Loader, "group_messages", "4")
    }

    /// Sets a key of all services of a role.
    #[must_use]
    pub fn with(self, role: Role, key: &'static str, value: &str) -> Self {
        self.with_all([(role, key, value.to_owned())])
    }

    /// Sets the number of processes of each role.
    #[must_use]
    pub fn with_replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets the number of processes of one role.
    #[must_use]
    pub fn with_replicas_of(mut self, role: Role, replicas: usize) -> Self {
        self.replicas_of.push((role, replicas));
        self
    }

    /// Sets a key of all services.
    #[must_use]
    pub fn with_everywhere(self, key: &'static str, value: &str) -> Self {
        self.with_all(Role::ALL.map(|role| (role, key, value.to_owned())))
    }

    /// Sets a variable of all services.
    #[must_use]
    pub fn with_environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Adds settings to the configuration file of the broker.
    #[must_use]
    pub fn with_broker(mut self, settings: &str) -> Self {
        self.broker.push_str(settings);
        self
    }

    /// Has PostgreSQL speak TLS alone, with the certificate `server` of an authority.
    #[must_use]
    pub fn with_database_tls(mut self, authority: Arc<Authority>) -> Self {
        self.database_authority = Some(authority);
        self
    }

    /// The servers sync before they acknowledge.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    fn with_all(
        mut self,
        settings: impl IntoIterator<Item = (Role, &'static str, String)>,
    ) -> Self {
        self.settings.extend(settings);
        self
    }
}

/// A broker, a database server and services, each a process of its own.
#[derive(Debug)]
pub struct System {
    // Services first: they end before what they are connected to.
    services: Vec<Service>,
    /// The gRPC API.
    pub client: Client,
    /// Where the gRPC API listens.
    pub address: SocketAddr,
    /// Where the extractors take webhooks in, and gRPC ingest.
    pub intakes: Vec<(SocketAddr, SocketAddr)>,
    /// The broker.
    pub nats: Nats,
    /// The database server of the control plane and the targets.
    pub postgres: Postgres,
    /// Database of the control plane.
    pub control: String,
    /// Database of the targets.
    pub target: String,
    folder: Option<TempDir>,
}

impl System {
    /// Starts everything and waits until it can work.
    ///
    /// # Panics
    ///
    /// When something does not start.
    pub async fn start(layout: Layout) -> Self {
        let mut system = Self::prepare(layout);
        system.start_roles(&Role::ALL).await;
        system
    }

    /// Starts the servers, and no service yet.
    ///
    /// # Panics
    ///
    /// When a server does not start.
    #[must_use]
    pub fn prepare(layout: Layout) -> Self {
        let nats = if layout.durable {
            Nats::start_syncing()
        } else {
            Nats::start_configured(&layout.broker)
        };
        let settings: &[_] = if layout.durable { &[] } else { &[("fsync", "off")] };
        let postgres = match &layout.database_authority {
            Some(authority) => Postgres::start_with_tls(settings, authority, "server"),
            None => Postgres::start_with(settings),
        };
        let (control, target) = (postgres.create_database(), postgres.create_database());
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let address = free_address();
        let mut services = Vec::new();
        let mut intakes = Vec::new();
        for role in Role::ALL {
            let own = layout.replicas_of.iter().rev().find(|(of, _)| *of == role);
            for replica in 0..own.map_or(layout.replicas, |(_, replicas)| *replicas) {
                let http = free_address();
                let grpc = if replica == 0 { address } else { free_address() };
                let mut settings = vec![
                    ("bus.servers".to_owned(), nats.url()),
                    ("bus.prefix".to_owned(), PREFIX.to_owned()),
                    ("http.listen".to_owned(), http.to_string()),
                ];
                if role == Role::Scheduler {
                    settings.push(("listen".to_owned(), grpc.to_string()));
                    settings.push(("database".to_owned(), control.clone()));
                }
                if role == Role::Extractor {
                    let (webhooks, ingest) = (free_address(), free_address());
                    settings.push(("push.listen".to_owned(), webhooks.to_string()));
                    settings.push(("ingest.listen".to_owned(), ingest.to_string()));
                    intakes.push((webhooks, ingest));
                }
                for (_, key, value) in layout.settings.iter().filter(|(of, _, _)| *of == role) {
                    settings.push(((*key).to_owned(), value.clone()));
                }
                let settings =
                    settings.into_iter().map(|(key, value)| (role.variable(&key), value));
                let more = layout.environment.iter();
                let more = more.map(|(name, value)| ((*name).to_owned(), value.clone()));
                let environment = settings.chain(more).collect();
                let log = folder.path().join(format!("{}-{replica}.log", role.name()));
                let arguments = vec![role.name().to_owned()];
                let folder = folder.path().to_owned();
                let process = Process::new(binary(), arguments, environment, folder, log);
                services.push(Service::new(role, process, http));
            }
        }
        let client = Client::new(address);
        Self {
            services,
            client,
            address,
            intakes,
            nats,
            postgres,
            control,
            target,
            folder: Some(folder),
        }
    }

    /// Starts all services of some roles and waits until they can work.
    ///
    /// # Panics
    ///
    /// When one does not start.
    pub async fn start_roles(&mut self, roles: &[Role]) {
        let chosen = |service: &&mut Service| roles.contains(&service.role);
        for service in self.services.iter_mut().filter(chosen) {
            service.process.start().await;
        }
        for service in self.services.iter_mut().filter(chosen) {
            service.ready().await;
        }
    }

    /// Returns the first service of a role.
    ///
    /// # Panics
    ///
    /// When the system has none.
    pub fn service(&mut self, role: Role) -> &mut Service {
        self.services.iter_mut().find(|service| service.role == role).expect("one of each role")
    }

    /// Runs a client command, which has to succeed, and returns the JSON that it prints.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[must_use]
    pub fn tributary(&self, arguments: &[&str]) -> serde_json::Value {
        let mut command = Command::new(binary());
        command.args(arguments).args(["--output", "json"]).current_dir(self.folder());
        command.args(["--server", &format!("http://{}", self.address)]);
        let output = command.output().expect("the binary can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("it prints JSON")
    }

    /// Returns all services.
    pub fn services(&mut self) -> &mut [Service] {
        &mut self.services
    }

    /// Returns the folder of the test, which is the working directory of the services.
    ///
    /// # Panics
    ///
    /// Never: the folder is there as long as the system.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("the folder is there as long as the system").path()
    }

    /// Listens to the broker.
    pub async fn tap(&self) -> Tap {
        Tap::listen(&self.nats.url(), PREFIX).await
    }

    /// Listens to the broker and doubles every message.
    pub async fn doubler(&self) -> Tap {
        Tap::double(&self.nats.url(), PREFIX).await
    }

    /// Writes customers as `files` CSV files that [`System::customers_pipeline`] reads, and returns
    /// their paths.
    ///
    /// # Panics
    ///
    /// When they cannot be written.
    pub fn write_customers(
        &self,
        customers: Customers,
        files: u64,
        edition: Edition,
    ) -> Vec<PathBuf> {
        let parts = customers.split(files).into_iter().enumerate();
        parts
            .map(|(index, part)| {
                let path = self.folder().join(format!("customers-{index:03}.csv"));
                part.write_csv(&path, edition).unwrap();
                path
            })
            .collect()
    }

    /// Returns a pipeline `customers` from CSV files into the table `customers`.
    #[must_use]
    pub fn customers_pipeline(&self) -> String {
        format!(
            "pipeline: customers\n\
             source:\n  csv: {{path: \"{}/customers-*.csv\"}}\n\
             schema: {SCHEMA}\n\
             key: [id]\n\
             newest_by: updated_at\n\
             targets:\n  store:\n    postgres: {{url: \"{}\", table: customers}}\n",
            self.folder().display(),
            self.target,
        )
    }

    /// Returns the fingerprint of the customers in the target, as PostgreSQL computes it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint_of("customers")
    }

    /// Returns the fingerprint of the customers in a table of the target.
    #[must_use]
    pub fn fingerprint_of(&self, table: &str) -> Fingerprint {
        let sql = Fingerprint::sql(Customer::CANONICAL_SQL, table);
        Fingerprint::parse(&self.postgres.execute(&self.target, &sql))
    }

    /// Returns the id of the process that all processes of PostgreSQL descend from.
    ///
    /// # Panics
    ///
    /// When the server does not run.
    #[must_use]
    pub fn postmaster(&self) -> u32 {
        let child = "select pid from pg_stat_activity where backend_type = 'checkpointer'";
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.sql(child)));
        let status = status.expect("the checkpointer runs as long as the server");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent.and_then(|id| id.trim().parse().ok()).expect("every process has a parent")
    }

    /// Runs SQL in the target and returns what `psql` prints.
    pub fn sql(&self, sql: &str) -> String {
        self.postgres.execute(&self.target, sql).trim().to_owned()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in &self.services {
                let log = service.process.log();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("--- last words of the {}:", service.role.name());
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
            if let Some(folder) = self.folder.take() {
                eprintln!("--- everything is kept in {}", folder.keep().display());
            }
        }
    }
}
