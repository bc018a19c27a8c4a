//! A real NATS server of the test's own.

use std::{
    io::Read,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::ports;

/// Names the binary where it is neither in the tree's tools nor in `PATH`.
const VARIABLE: &str = "TRIBUTARY_NATS_SERVER";
/// The same as for the server of `tributary up`, so that what is measured here is true there.
const MEMORY: [(&str, &str); 2] = [("GOMEMLIMIT", "110MiB"), ("GOGC", "400")];
const PATIENCE: Duration = Duration::from_secs(30);

/// A NATS server with JetStream on a free port of 127.0.0.1 and an empty disk.
///
/// It ends when this is dropped, and when the process that started it dies.
#[derive(Debug)]
pub struct Nats {
    directory: tempfile::TempDir,
    sync_always: bool,
    settings: String,
    port: u16,
    server: Option<Server>,
}

/// The running server. It is spawned by a thread that lives as long as the server may, because
/// the kernel's death signal is bound to the thread that forked.
#[derive(Debug)]
struct Server {
    pid: u32,
    ended: mpsc::Receiver<()>,
}

impl Nats {
    /// Starts a server that syncs its disk every two minutes, as is the default.
    ///
    /// # Panics
    ///
    /// When no nats-server is found, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(false, "")
    }

    /// Starts a server that syncs its disk before it acknowledges, as production does.
    ///
    /// # Panics
    ///
    /// When no nats-server is found, or it does not start.
    #[must_use]
    pub fn start_syncing() -> Self {
        Self::start_with(true, "")
    }

    /// Starts a server with further settings, as in its configuration file.
    ///
    /// # Panics
    ///
    /// When no nats-server is found, or it does not start.
    #[must_use]
    pub fn start_configured(settings: &str) -> Self {
        Self::start_with(false, settings)
    }

    /// Starts three servers that form a cluster, named `n0` to `n2`. They elect their leaders within
    /// the next seconds.
    ///
    /// # Panics
    ///
    /// When no nats-server is found, or one does not start.
    #[must_use]
    pub fn start_cluster() -> [Self; 3] {
        Self::start_cluster_configured("", "")
    }

    /// Starts three servers as [`Nats::start_cluster`] does, with further settings for all of them, and
    /// for the connections among them.
    ///
    /// # Panics
    ///
    /// When no nats-server is found, or one does not start.
    #[must_use]
    pub fn start_cluster_configured(settings: &str, among: &str) -> [Self; 3] {
        let ports: [u16; 3] = std::array::from_fn(|_| ports::free_port());
        let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
        std::array::from_fn(|index| {
            let port = ports[index];
            Self::start_configured(&format!(
                "server_name: n{index}\n\
                 cluster {{name: tests, listen: \"127.0.0.1:{port}\", routes: [{routes}]\n{among}}}\n\
                 {settings}"
            ))
        })
    }

    fn start_with(sync_always: bool, settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (settings, port) = (settings.to_owned(), ports::free_port());
        let mut server = Self { directory, sync_always, settings, port, server: None };
        server.restart();
        server
    }

    /// Returns the URL, which stays the same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Returns the folder that it keeps everything in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the port, which stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id while the server runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.pid)
    }

    /// Sets what stands in its configuration beyond the defaults, from the next start on.
    pub fn configure(&mut self, settings: &str) {
        settings.clone_into(&mut self.settings);
    }

    /// Kills the server without giving it a chance to tidy up.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// Stops the server; it writes what it has.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Kills the server and removes everything it has stored.
    ///
    /// # Panics
    ///
    /// When the temporary directory cannot be changed.
    pub fn wipe(&mut self) {
        self.kill();
        let store = self.store();
        if store.exists() {
            std::fs::remove_dir_all(store).expect("the temporary directory is writable");
        }
    }

    /// Starts the server again on the same port and disk, after stopping it if it runs.
    ///
    /// # Panics
    ///
    /// When it does not answer within half a minute.
    pub fn restart(&mut self) {
        self.stop();
        let server = self.spawn();
        let deadline = Instant::now() + PATIENCE;
        while !self.greets() {
            let ended = server.ended.recv_timeout(Duration::from_millis(20));
            assert!(
                ended == Err(mpsc::RecvTimeoutError::Timeout) && Instant::now() < deadline,
                "nats-server does not start: {}",
                std::fs::read_to_string(self.log()).unwrap_or_default()
            );
        }
        self.server = Some(server);
    }

    fn spawn(&self) -> Server {
        let config = self.directory.path().join("nats.conf");
        let sync = if self.sync_always { "always" } else { "2m" };
        let text = format!(
            "host: \"127.0.0.1\"\nport: {}\njetstream {{\n  store_dir: {:?}\n  sync_interval: {sync}\n}}\n{}\n",
            self.port,
            self.store(),
            self.settings,
        );
        std::fs::write(&config, text).expect("the temporary directory is writable");
        // It dies with us, however we end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(binary()).arg("-c").arg(config);
        command.envs(MEMORY.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()));
        let log = std::fs::File::create(self.log()).expect("the temporary directory is writable");
        let (started, start) = mpsc::channel();
        let (ending, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let mut child: Child = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("setpriv of util-linux is installed");
            started.send(child.id()).ok();
            child.wait().ok();
            ending.send(()).ok();
        });
        let pid = start.recv().expect("the thread sends the pid first");
        Server { pid, ended }
    }

    /// Tells whether the server accepts clients, each of which it greets.
    fn greets(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut greeting = [0; 5];
        stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
            && stream.read_exact(&mut greeting).is_ok()
            && &greeting == b"INFO "
    }

    fn end(&mut self, signal: &str) {
        if let Some(server) = self.server.take() {
            Command::new("kill")
                .arg(format!("-{signal}"))
                .arg(server.pid.to_string())
                .stderr(Stdio::null())
                .status()
                .ok();
            server.ended.recv_timeout(PATIENCE).ok();
        }
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the nats-server that tests use: the one that the environment names, the one among the
/// tree's tools, or the one in `PATH`.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return named.into();
    }
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/venv/bin/nats-server");
    if tool.exists() { tool } else { "nats-server".into() }
}
