//! Callers of the gRPC API need a token, and what they did is in the audit.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use tests::{Layout, Process, Role, System, binary, free_address};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

const ADMIN: &str = "admin-token-of-the-story";

fn tributary(system: &System, token: &str, arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .current_dir(system.folder())
        .env("TRIBUTARY_SERVER", system.address.to_string())
        .env("TRIBUTARY_TOKEN", token)
        .output()
        .unwrap()
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_what_its_role_may_and_the_audit_tells_of_it() {
    let layout = Layout::default()
        .with(Role::Scheduler, "access.mode", "tokens")
        .with(Role::Scheduler, "access.admin_token", "${env:ADMIN_TOKEN}")
        .with_environment("ADMIN_TOKEN", ADMIN);
    let mut system = System::start(layout).await;

    let refused = tributary(&system, "", &["pipelines"]);
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    let made = tributary(&system, ADMIN, &["token", "create", "ada", "--role", "viewer"]);
    assert!(made.status.success(), "{}", told(&made));
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(token.starts_with("trb_") && token.len() > 60);
    let again = tributary(&system, ADMIN, &["token", "create", "ada", "--role", "viewer"]);
    assert!(told(&again).contains("already"), "{}", told(&again));

    assert!(tributary(&system, &token, &["pipelines"]).status.success());
    let denied = tributary(&system, &token, &["run", "orders"]);
    assert!(told(&denied).contains("has the role `viewer`"), "{}", told(&denied));
    let listed = told(&tributary(&system, ADMIN, &["token", "list"]));
    assert!(listed.contains("ada") && listed.contains("viewer"), "{listed}");
    assert!(tributary(&system, ADMIN, &["token", "revoke", "ada"]).status.success());

    let audit = told(&tributary(&system, ADMIN, &["audit"]));
    assert!(
        audit.contains("RunService.StartRun") && audit.contains("PERMISSION_DENIED"),
        "{audit}"
    );
    let verified = told(&tributary(&system, ADMIN, &["audit", "--verify"]));
    assert!(verified.contains("entries fit"), "{verified}");

    for text in [listed, audit, verified, system.service(Role::Scheduler).process.log()] {
        assert!(!text.contains(&token) && !text.contains(ADMIN), "a token is told: {text}");
    }
}

/// `oidc-provider`, an identity provider that others wrote.
struct Issuer {
    process: Process,
    address: SocketAddr,
}

impl Issuer {
    async fn start(folder: &Path) -> Self {
        let address = free_address();
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let tools = tree.join(".tools/node");
        assert!(tools.join("ready").is_file(), "there is no identity provider; run `make test`");
        let script = tree.join("tests/peers/oidc.mjs").display().to_string();
        let arguments = vec![script, address.port().to_string(), tools.display().to_string()];
        let log = folder.join("issuer.log");
        let mut process =
            Process::new("node".into(), arguments, Vec::new(), folder.to_owned(), log);
        process.start().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).await.is_err() {
            let runs = process.pid().is_some() && Instant::now() < deadline;
            assert!(runs, "the issuer does not listen: {}", process.log());
            // There is no event to wait for until it listens.
            sleep(Duration::from_millis(20)).await;
        }
        Self { process, address }
    }

    async fn post(&self, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}\n{}", self.process.log());
        answer
    }

    /// Returns a token that the provider gives to a client.
    async fn token(&self, client: &str) -> String {
        let body = format!("grant_type=client_credentials&client_id={client}&client_secret=secret");
        let answer = self.post("/token", &body).await;
        let (_, rest) = answer.split_once("\"access_token\":\"").expect("it gives a token");
        rest.split('"').next().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_an_identity_provider_open_what_their_roles_may() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path()).await;
    let layout = Layout::default()
        .with(Role::Scheduler, "access.mode", "tokens")
        .with(Role::Scheduler, "access.admin_token", "${env:ADMIN_TOKEN}")
        .with_environment("ADMIN_TOKEN", ADMIN)
        .with(Role::Scheduler, "access.oidc.issuer", &format!("http://{}", issuer.address))
        .with(Role::Scheduler, "access.oidc.audience", "tributary")
        .with(Role::Scheduler, "access.oidc.allow_private", "true")
        .with(Role::Scheduler, "access.oidc.roles.crm-operators", "operator");
    let mut system = System::start(layout).await;

    let operator = issuer.token("operator").await;
    let listed = tributary(&system, &operator, &["pipelines"]);
    assert!(listed.status.success(), "{}", told(&listed));
    let started = told(&tributary(&system, &operator, &["run", "orders"]));
    assert!(started.contains("no pipeline"), "an operator may start runs: {started}");
    let denied = told(&tributary(&system, &operator, &["delete", "orders"]));
    assert!(denied.contains("has the role `operator`"), "{denied}");
    let stranger = issuer.token("stranger").await;
    let denied = told(&tributary(&system, &stranger, &["pipelines"]));
    assert!(denied.contains("`oidc:stranger` has no role here"), "{denied}");
    let (head, rest) = operator.split_once('.').unwrap();
    let forged = format!("{head}.{}.{}", rest.split('.').next().unwrap(), "A".repeat(342));
    let denied = told(&tributary(&system, &forged, &["pipelines"]));
    assert!(denied.contains("its signature is wrong"), "{denied}");

    issuer.post("/rotate", "").await;
    let renewed = issuer.token("operator").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !tributary(&system, &renewed, &["pipelines"]).status.success() {
        assert!(Instant::now() < deadline, "the new key of the issuer is not found");
        sleep(Duration::from_millis(200)).await;
    }
    while tributary(&system, &operator, &["pipelines"]).status.success() {
        assert!(Instant::now() < deadline, "the old key of the issuer is still believed");
        sleep(Duration::from_millis(200)).await;
    }
    let audit = told(&tributary(&system, ADMIN, &["audit"]));
    assert!(audit.contains("oidc:operator"), "{audit}");
    for text in [audit, system.service(Role::Scheduler).process.log()] {
        assert!(!text.contains(&operator) && !text.contains(&renewed), "a token is told: {text}");
    }
}
