//! Webhooks to a receiver that is away wait apart, come again, and can be sent again by hand.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use testkit::http::{Reply, Request, Server};
use tests::{Layout, System, binary};
use tokio::time::{Instant, sleep};
use wire::control::RunState;

const RECORDS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(90);
/// A secret of Standard Webhooks: Base64 of 24 bytes.
const SECRET: &str = "whsec_c2VjcmV0LW9mLXRoZS1zdG9yeS0wMQ==";

fn pipeline(system: &System, url: &str, more: &str) -> String {
    let rows: String = (0..RECORDS).map(|id| format!("{id},n{id}\n")).collect();
    std::fs::write(system.folder().join("people.csv"), format!("id,name\n{rows}")).unwrap();
    format!(
        "pipeline: people\nsource: {{csv: {{path: people.csv}}}}\n\
         schema: {{id: integer, name: text}}\nkey: [id]\n\
         targets:\n  partner:\n    webhook:\n      url: {url}/hook\n      allow_private: true\n      \
         secrets: [\"${{env:HOOK_SECRET}}\"]\n      {more}\n"
    )
}

async fn system() -> System {
    System::start(Layout::for_faults().with_environment("HOOK_SECRET", SECRET)).await
}

fn tributary(system: &System, arguments: &[&str]) -> String {
    let output = Command::new(binary())
        .args(arguments)
        .current_dir(system.folder())
        .env("TRIBUTARY_SERVER", system.address.to_string())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        // The command line tells of no change.
        sleep(Duration::from_millis(200)).await;
    }
}

fn ids(requests: &[Request]) -> BTreeSet<String> {
    requests.iter().map(|request| request.header("webhook-id").unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_to_a_receiver_that_is_away_come_again_by_themselves() {
    let system = system().await;
    let mut receiver = Server::always(204).await;
    let url = receiver.url();
    receiver.stop().await;
    let yaml = pipeline(&system, &url, "retry: [500ms, 2s, 2s, 2s, 2s, 2s, 2s, 2s]");
    system.client.apply(&yaml).await;
    let run = system.client.start("people").await;
    // The run does not wait for the receiver: everything is accounted for.
    let books = system.client.succeeded(&run).await.ledger.unwrap();
    assert_eq!((books.targets[0].loaded, books.targets[0].quarantined), (0, RECORDS as u64));
    until("the list of receivers", async || {
        let told = tributary(&system, &["deliveries", "list"]);
        told.contains("partner") && told.contains(&RECORDS.to_string())
    })
    .await;
    // It fails again before it comes back.
    until("another attempt", async || system.client.latest("people").await.len() >= 2).await;
    receiver.restart().await;
    receiver.wait_for(|requests| requests.len() >= RECORDS).await;
    until("an empty list", async || {
        tributary(&system, &["deliveries", "list"]).contains("every webhook was delivered")
    })
    .await;
    let requests = receiver.requests();
    let delivered = requests.iter().filter(|request| request.method == "POST").count();
    assert_eq!((delivered, ids(&requests).len()), (RECORDS, RECORDS), "each once");
    for run in system.client.latest("people").await {
        assert_eq!(run.state(), RunState::Succeeded, "{run:#?}");
        tests::assert_balanced(&run);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_for_too_long_is_disabled_until_somebody_enables_it() {
    let system = system().await;
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let receiver = Server::start(move |_, _| {
        Reply::new(if well.load(Ordering::Relaxed) { 204 } else { 500 }, "")
    })
    .await;
    let yaml = pipeline(&system, &receiver.url(), "retry: [100ms, 1h]\n      disable_after: 6s");
    system.client.apply(&yaml).await;
    let run = system.client.start("people").await;
    system.client.succeeded(&run).await;
    until("the receiver to be disabled", async || {
        tributary(&system, &["deliveries", "list"]).contains("disabled since")
    })
    .await;
    is_well.store(true, Ordering::Relaxed);
    let calls = receiver.count();
    let again = tributary(&system, &["deliveries", "resend", "--pipeline", "people"]);
    assert!(again.contains("40 webhooks are sent again"), "{again}");
    until("the end of the replay", async || {
        let runs = system.client.latest("people").await;
        runs.len() == 2 && runs[0].state() == RunState::Succeeded
    })
    .await;
    assert_eq!(receiver.count(), calls, "a disabled receiver is not called");

    let enabled = tributary(&system, &["deliveries", "enable", "people", "partner"]);
    assert!(enabled.contains("is called again"), "{enabled}");
    // Loaders believe for some seconds that it is disabled; what failed then waits an hour.
    until("the webhooks", async || {
        tributary(&system, &["deliveries", "resend", "--since", "2026-01-01T00:00:00Z"]);
        tributary(&system, &["deliveries", "list"]).contains("every webhook was delivered")
    })
    .await;
    let accepted = &receiver.requests()[calls..];
    assert_eq!((accepted.len(), ids(accepted).len()), (RECORDS, RECORDS), "each once");
    let enabled = tributary(&system, &["deliveries", "enable", "people", "partner"]);
    assert!(enabled.contains("is not disabled"), "{enabled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_is_sent_again_when_somebody_asks_for_it() {
    let system = system().await;
    let receiver = Server::always(204).await;
    system.client.apply(&pipeline(&system, &receiver.url(), "payload: changed")).await;
    let run = system.client.start("people").await;
    system.client.succeeded(&run).await;
    let resend = |more: &[&str]| {
        tributary(&system, &[&["deliveries", "resend", "--pipeline", "people"], more].concat())
    };
    let refused = resend(&["--delivered"]);
    assert!(refused.contains("name the record's key, or since when"), "{refused}");
    let refused = resend(&["--delivered", "--record", "nobody"]);
    assert!(refused.contains("no such webhook is kept"), "{refused}");
    let refused = resend(&["--delivered", "--since", "2100-01-01T00:00:00Z"]);
    assert!(refused.contains("no such webhook is kept"), "{refused}");

    let one = resend(&["--delivered", "--record", "7"]);
    assert!(one.contains("1 webhook"), "{one}");
    let requests = receiver.wait_for(|requests| requests.len() > RECORDS).await;
    let is_same =
        |first: &&Request| first.header("webhook-id") == requests[RECORDS].header("webhook-id");
    let first = requests[..RECORDS].iter().find(is_same).expect("it has the id of the first time");
    assert_eq!(first.text(), requests[RECORDS].text());
    assert!(first.text().contains("\"id\":7"), "{}", first.text());

    let all = resend(&["--delivered", "--since", "2026-01-01T00:00:00Z"]);
    assert!(all.contains("webhooks"), "{all}");
    receiver.wait_for(|requests| requests.len() >= 2 * RECORDS).await;
    until("an empty list", async || {
        tributary(&system, &["deliveries", "list"]).contains("every webhook was delivered")
    })
    .await;
    let requests = receiver.requests();
    assert_eq!(ids(&requests).len(), RECORDS, "no id is new");
    assert_eq!(ids(&requests[RECORDS..]).len(), RECORDS, "each was sent again");
    for run in system.client.latest("people").await {
        let run = system.client.ended(&run.id).await;
        assert_eq!(run.state(), RunState::Succeeded, "{run:#?}");
        tests::assert_balanced(&run);
    }
}
