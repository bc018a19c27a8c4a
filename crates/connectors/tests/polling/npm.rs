//! Servers from npm, which others wrote.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A server on a port of its own, which ends with the test.
pub(crate) struct NpmServer {
    process: Child,
    pub(crate) url: String,
}

impl Drop for NpmServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl NpmServer {
    /// Starts a program of the tree's tools with arguments that depend on its port, and waits until it
    /// has said `ready` and listens.
    pub(crate) fn start(
        program: &str,
        arguments: impl FnOnce(&str) -> Vec<String>,
        ready: &str,
    ) -> Self {
        let port = testkit::ports::free_port();
        let tools = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.tools/node");
        let path = tools.join("node_modules/.bin").join(program);
        let mut process = Command::new(&path)
            .args(arguments(&port.to_string()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `make test` fetches it", path.display()));
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(ready)), "{program} does not start");
        std::thread::spawn(move || lines.for_each(drop));
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{program} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, url: format!("http://127.0.0.1:{port}") }
    }
}
