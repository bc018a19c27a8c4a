//! Certificates of both sides.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use connect::{LocalMemory, Unlimited};
use connectors::Context;
use testkit::certificates::Authority;

use crate::support::*;

/// A server that takes only clients whose certificate its authority has signed.
struct Server {
    process: Child,
    port: u16,
    authority: Authority,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Server {
    fn start() -> Self {
        let authority = Authority::new();
        authority.issue("server");
        authority.issue("client");
        let answer =
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n[{\"id\":7}]";
        std::fs::write(authority.path("orders"), answer).unwrap();
        let port = testkit::ports::free_port();
        let process = Command::new("openssl")
            .args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-cert", "server.pem"])
            .args(["-key", "server.key", "-CAfile", "ca.pem", "-Verify", "1", "-HTTP"])
            .args(["-verify_return_error", "-quiet"])
            .current_dir(authority.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "openssl does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, port, authority }
    }

    /// Makes a source whose variables are the files of the server's folder.
    fn source(&self, tls: &str) -> Arc<dyn connect::Source> {
        let folder = self.authority.folder().to_owned();
        let variables: connectors::Variables = Arc::new(move |name| {
            std::fs::read_to_string(folder.join(name.to_lowercase().replace('_', "."))).ok()
        });
        let context =
            Context::new(variables, Arc::new(Unlimited), Arc::new(LocalMemory::default()));
        let url = format!("https://127.0.0.1:{}", self.port);
        source_in(&context, &url, &format!("path: /orders\n{tls}"))
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate_and_asks_for_the_servers() {
    let server = Server::start();
    let both = "tls: {ca: \"${env:CA_PEM}\", certificate: \"${env:CLIENT_PEM}\", key: \"${env:CLIENT_KEY}\"}";
    assert_eq!(run(&*server.source(both), "").await.rows, ["7"]);
    for refused in ["tls: {ca: \"${env:CA_PEM}\"}", "timeout: 5s"] {
        let error = failure(&*server.source(refused)).await;
        assert!(
            matches!(error.remedy, model::Remedy::Retry { .. }),
            "{refused}: {}",
            error.chain()
        );
    }
}

#[tokio::test]
async fn a_certificate_that_is_none_stops() {
    let wrong = "path: /a\ntls: {certificate: \"${env:A}\", key: \"${env:B}\"}";
    let error = try_source(&context(), "https://127.0.0.1:1", wrong).err().unwrap();
    assert_eq!(error.remedy, model::Remedy::Stop);
    assert!(!error.chain().contains("secret-"), "{}", error.chain());
}
