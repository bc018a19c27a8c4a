//! The server `json-server` from npm, which others wrote.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::*;

struct JsonServer {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for JsonServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl JsonServer {
    fn start(orders: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let orders: Vec<String> = (1..=orders)
            .map(|id| format!("{{\"id\":\"{id}\",\"customer\":{},\"total\":{id}.50}}", id % 7))
            .collect();
        let file = folder.path().join("db.json");
        std::fs::write(&file, format!("{{\"orders\":[{}]}}", orders.join(","))).unwrap();
        let port = testkit::ports::free_port();
        let tools = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.tools/node");
        let program = tools.join("node_modules/.bin/json-server");
        let mut process = Command::new(&program)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; `make test` fetches it", program.display())
            });
        // It says when it listens.
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("http://")), "json-server does not start");
        std::thread::spawn(move || lines.for_each(drop));
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "json-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, url: format!("http://127.0.0.1:{port}"), _folder: folder }
    }
}

#[tokio::test]
async fn its_pages_are_recognised_and_read() {
    let server = JsonServer::start(95);
    for (settings, calls) in [
        (
            "query: {_page: \"{{ page.number }}\", _limit: \"20\"}\npaginate: {page: {}, size: 20}",
            5,
        ),
        ("query: {_page: \"1\", _limit: \"20\"}\npaginate: auto", 5),
        (
            "query: {_start: \"{{ page.offset }}\", _limit: \"20\"}\npaginate: {offset: {}, size: 20}",
            5,
        ),
        ("", 1),
    ] {
        let source = source(&server.url, &format!("path: /orders\nkey: [id]\n{settings}"));
        let reading = run(&*source, "").await;
        let expected: Vec<String> = (1..=95).map(|id| format!("\"{id}\"")).collect();
        assert_eq!(reading.rows, expected, "{settings}");
        assert_eq!(reading.usage.calls, calls, "{settings}");
        // It knows what has not changed.
        let again = run(&*source, reading.end()).await;
        assert!(again.rows.is_empty(), "{settings}");
        assert_eq!(again.usage.not_modified, calls, "{settings}");
    }
}
