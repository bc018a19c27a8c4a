//! `prepare` and `doctor` with a real broker and a real database.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{certificates::Authority, nats::Nats, postgres::Postgres};

use crate::process::{Ended, run};

/// A folder with the settings of a scheduler.
fn settings(bus: &str, database: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("bus: {{{bus}}}\ndatabase: \"{database}\"\n");
    std::fs::write(folder.path().join("scheduler.yaml"), text).unwrap();
    folder
}

async fn doctor(folder: &Path) -> (Option<i32>, Value) {
    let ended = run(folder, &["doctor", "--config", "scheduler.yaml", "--output", "json"]).await;
    (ended.code, ended.json())
}

async fn prepare(folder: &Path) -> Ended {
    let arguments = ["prepare", "--config", "scheduler.yaml", "--patience", "10s"];
    run(folder, &arguments).await
}

/// What was found of one level about one subject.
fn found(report: &Value, level: &str, subject: &str) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let meant = findings.filter(|one| one["level"] == level && one["subject"] == subject);
    meant.map(|one| format!("{} | {}", one["what"], one["mend"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_is_sound_and_what_was_changed_is_found_and_mended() {
    let (nats, postgres) =
        tokio::task::spawn_blocking(|| (Nats::start(), Postgres::start())).await.unwrap();
    let database = postgres.create_database();
    let bus = format!("servers: [\"{}\"]", nats.url());
    let folder = settings(&bus, &database);

    let (code, report) = doctor(folder.path()).await;
    assert_eq!((code, found(&report, "problem", "streams").len()), (Some(1), 10), "{report:#}");
    assert!(found(&report, "problem", "database")[0].contains("migrations are not applied"));
    for _ in 0..2 {
        prepare(folder.path()).await.expect(0);
    }
    let (code, report) = doctor(folder.path()).await;
    assert_eq!((code, &report["problems"]), (Some(0), &Value::from(0)), "{report:#}");
    assert_eq!(found(&report, "ok", "clock").len(), 2, "{report:#}");
    assert!(found(&report, "warning", "streams")[0].contains("`bus.replicas` is 1"));

    // Somebody gives a stream less room, and the user loses permissions.
    let other = settings(&format!("{bus}, max_bytes: {{raw: 9MiB}}"), &database);
    prepare(other.path()).await.expect(0);
    postgres.execute(&database, "create role clerk login; grant select on runs to clerk");
    let clerk = database.replace("postgres@", "clerk@");
    assert_ne!(clerk, database);
    let folder = settings(&bus, &clerk);
    let (code, report) = doctor(folder.path()).await;
    assert_eq!(code, Some(1));
    let streams = found(&report, "problem", "streams");
    assert_eq!(streams.len(), 1, "{report:#}");
    for told in ["TRIBUTARY_RAW", "`max_bytes` is 9437184", "268435456", "tributary prepare"] {
        assert!(streams[0].contains(told), "{streams:?}");
    }
    let denied = found(&report, "problem", "database").join("\n");
    assert!(denied.contains("INSERT on runs") && denied.contains("SELECT on pipelines"));
    assert!(!denied.contains("SELECT on runs"), "{denied}");
    let ended = run(folder.path(), &["doctor", "--config", "scheduler.yaml"]).await.expect(1);
    assert!(ended.stdout.contains("to mend it: grant it"), "{ended:#?}");

    let folder = settings(&bus, &database);
    prepare(folder.path()).await.expect(0);
    assert_eq!(doctor(folder.path()).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_is_named_and_settings_that_are_wrong_are_told_first() {
    let port = testkit::ports::free_port();
    let (bus, database) = (
        format!("servers: [\"nats://user:hunter2@127.0.0.1:{port}\"]"),
        format!("postgres://user:hunter2@127.0.0.1:{port}/none"),
    );
    let folder = settings(&bus, &database);
    let (code, report) = doctor(folder.path()).await;
    assert_eq!((code, &report["problems"]), (Some(1), &Value::from(2)), "{report:#}");
    assert!(!report.to_string().contains("hunter2"), "{report:#}");
    let broker = found(&report, "problem", "broker").concat();
    assert!(broker.contains(&format!("nats://127.0.0.1:{port}")), "{report:#}");

    let folder = settings("srevers: []", &database);
    let (code, report) = doctor(folder.path()).await;
    let told = found(&report, "problem", "settings").concat();
    assert!(code == Some(1) && told.contains("srevers"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let info = r#"{"server_id":"a","server_name":"a","version":"2.9.10","go":"",
                "host":"127.0.0.1","port":4222,"max_payload":1048576,"proto":1,"headers":true}"#;
            write!(stream, "INFO {}\r\n", info.replace('\n', "")).unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for _ in lines.map_while(Result::ok).filter(|line| line == "PING") {
                stream.write_all(b"PONG\r\n").ok();
            }
        }
    });
    let folder = settings(&format!("servers: [\"{url}\"]"), "scheduler.db");
    let (code, report) = doctor(folder.path()).await;
    let told = found(&report, "problem", "broker").concat();
    assert!(code == Some(1) && told.contains("2.9.10") && told.contains("2.15.1"), "{report:#}");
    let ended = prepare(folder.path()).await.expect(1);
    assert!(ended.stderr.contains("2.9.10"), "{ended:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_tell_when_they_end() {
    let authority = Authority::new();
    authority.issue("server");
    let (certificate, key) = (authority.path("server.pem"), authority.path("server.key"));
    let tls = format!("tls {{cert_file: {certificate:?}, key_file: {key:?}}}");
    let nats = tokio::task::spawn_blocking(move || Nats::start_configured(&tls)).await.unwrap();
    let trusting = |authority: &Authority| {
        let (url, ca) = (nats.url(), authority.path("ca.pem"));
        settings(&format!("servers: [\"{url}\"], tls_ca: {ca:?}"), "scheduler.db")
    };
    let folder = trusting(&authority);
    prepare(folder.path()).await.expect(0);
    let (code, report) = doctor(folder.path()).await;
    assert_eq!(code, Some(0), "{report:#}");
    // Those of tests last for two days.
    let soon = found(&report, "warning", "certificates");
    assert_eq!(soon.len(), 2, "{report:#}");
    assert!(soon[0].contains("authority") && soon[1].contains("127.0.0.1"), "{report:#}");
    assert!(soon.iter().all(|told| told.contains("in 1 days")), "{report:#}");

    // An authority that did not sign the server's certificate.
    let (code, report) = doctor(trusting(&Authority::new()).path()).await;
    let told = found(&report, "problem", "certificates").concat();
    assert!(code == Some(1) && told.contains("invalid peer certificate"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_database_that_others_could_read_is_told_and_refused_if_wished() {
    let port = testkit::ports::free_port();
    let bus = format!("servers: [\"nats://127.0.0.1:{port}\"]");
    // A name that no resolver knows (RFC 2606), so nothing is reached.
    let folder = settings(&bus, "postgres://user:hunter2@database.invalid/none");
    let file = folder.path().join("scheduler.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.clone() + "require_database_tls: true\n").unwrap();
    let (_, report) = doctor(folder.path()).await;
    let told = found(&report, "problem", "database").concat();
    assert!(told.contains("sslmode=verify-full") && !told.contains("hunter2"), "{report:#}");
    let ended = prepare(folder.path()).await.expect(1);
    assert!(ended.stderr.contains("sslmode=verify-full"), "{ended:#?}");
    // With it the connection itself is tried.
    let verified = text.replace("/none", "/none?sslmode=verify-full");
    std::fs::write(&file, verified + "require_database_tls: true\n").unwrap();
    let (_, report) = doctor(folder.path()).await;
    assert!(!found(&report, "problem", "database").concat().contains("sslmode"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_the_api_are_looked_at() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("server");
    other.issue("server");
    let port = testkit::ports::free_port();
    let folder = settings(&format!("servers: [\"nats://127.0.0.1:{port}\"]"), "scheduler.db");
    let file = folder.path().join("scheduler.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    for (key, level, told) in [
        (authority.path("server.key"), "warning", "the API ends"),
        (other.path("server.key"), "problem", "do not belong together"),
        ("/none.key".into(), "problem", "/none.key"),
    ] {
        let certificate = authority.path("server.pem");
        let tls = format!("access: {{tls: {{certificate: {certificate:?}, key: {key:?}}}}}\n");
        std::fs::write(&file, text.clone() + &tls).unwrap();
        let (_, report) = doctor(folder.path()).await;
        let found = found(&report, level, "certificates").concat();
        assert!(found.contains(told), "{told}: {report:#}");
    }
}
