use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use testkit::ports::free_port;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{Process, Usage};

/// How long a service may take until it can work.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs, ledger, gRPC API.
    Scheduler,
    /// Reads sources.
    Extractor,
    /// Maps, types and checks.
    Transformer,
    /// Writes to targets.
    Loader,
}

impl Role {
    /// All of them, in the order of the flow.
    pub const ALL: [Self; 4] = [Self::Scheduler, Self::Extractor, Self::Transformer, Self::Loader];

    /// Returns the subcommand.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Extractor => "extractor",
            Self::Transformer => "transformer",
            Self::Loader => "loader",
        }
    }

    /// Returns the name of the variable that sets a key of the service.
    #[must_use]
    pub fn variable(self, key: &str) -> String {
        format!(
            "TRIBUTARY_{}__{}",
            self.name().to_uppercase(),
            key.to_uppercase().replace('.', "__")
        )
    }
}

/// One service process.
#[derive(Debug)]
pub struct Service {
    /// What it does.
    pub role: Role,
    /// The process.
    pub process: Process,
    /// Where it serves health and metrics.
    pub http: SocketAddr,
}

impl Service {
    /// Makes a service of a process that is to serve its health on `http`.
    #[must_use]
    pub fn new(role: Role, process: Process, http: SocketAddr) -> Self {
        Self { role, process, http }
    }

    /// Starts the process and waits until it can work.
    ///
    /// # Panics
    ///
    /// When it ends or does not become ready.
    pub async fn start(&mut self) {
        self.process.start().await;
        self.ready().await;
    }

    /// Waits until the service can work.
    ///
    /// # Panics
    ///
    /// When it ends or does not become ready.
    pub async fn ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.is("ready").await {
                return;
            }
            assert!(
                self.process.pid().is_some() && Instant::now() < deadline,
                "the {} is not ready: {}",
                self.role.name(),
                self.process.log()
            );
            // There is no event to wait for until the process listens.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the service says that it cannot work, though it lives.
    ///
    /// # Panics
    ///
    /// When it does not say so, or is not alive.
    pub async fn unready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.is("ready").await {
            assert!(Instant::now() < deadline, "the {} still is ready", self.role.name());
            sleep(Duration::from_millis(50)).await;
        }
        assert!(self.is("live").await, "the {} is not alive", self.role.name());
    }

    /// Tells whether the service is `live`, or `ready`.
    async fn is(&self, what: &str) -> bool {
        let answer = self.get(&format!("/health/{what}")).await;
        answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Returns the sum of all series of a metric that carry `label`, 0 where there is none.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics").await.unwrap_or_default();
        text.lines()
            .filter(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && line.contains(label)
            })
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// Returns what the process has used.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.process.pid().and_then(Usage::of).expect("the service runs")
    }

    /// Returns how often the service has logged `text` since it was last started.
    #[must_use]
    pub fn logged(&self, text: &str) -> usize {
        self.process.log().matches(text).count()
    }

    /// Returns the answer to a request of its health and metrics server, with its head.
    pub async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.http).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }
}

/// Returns an address of the loopback interface that stays free until its server starts.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}
