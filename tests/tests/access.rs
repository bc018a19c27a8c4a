//! Callers of the gRPC API need a token, and what they did is in the audit.

use std::process::{Command, Output};

use tests::{Layout, Role, System, binary};

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
