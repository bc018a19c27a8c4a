//! Client commands against a control plane that answers from a script.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    fake,
    process::{Ended, run, tributary},
};

struct Client {
    folder: TempDir,
    server: String,
}

impl Client {
    async fn new() -> Self {
        let server = format!("http://{}", fake::start().await);
        Self { folder: tempfile::tempdir().unwrap(), server }
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        run(self.folder.path(), &[&["--server", &self.server], arguments].concat()).await
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_has_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &["--server", "127.0.0.1:9", "pipelines"]).await.expect(3);
    assert_eq!(
        ended.stderr,
        "error: the server http://127.0.0.1:9 cannot be reached.\n  Connection refused (os error \
         111).\n  start `tributary up`, or give --server or TRIBUTARY_SERVER.\n"
    );
    assert_eq!(ended.stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_up_is_found_and_its_file_named_when_it_is_old() {
    let client = Client::new().await;
    client.file(".tributary/address", &client.server);
    run(client.folder.path(), &["pipelines"]).await.expect(0);
    client.file(".tributary/address", "http://127.0.0.1:9");
    let ended = run(client.folder.path(), &["pipelines"]).await.expect(3);
    assert!(ended.stderr.contains(".tributary/address"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_a_server_does_not_lead_to_somebody_elses() {
    let client = Client::new().await;
    client.file(".tributary/lock", "1");
    let ended = run(client.folder.path(), &["pipelines"]).await.expect(3);
    assert!(ended.stderr.contains("no `tributary up` is ready there"), "{ended:?}");
    client.run(&["pipelines"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_usage_is_told_apart() {
    let client = Client::new().await;
    for arguments in [
        &["frobnicate"][..],
        &["apply"],
        &["runs", "--limit", "0"],
        &["quarantine", "drop"],
        &["check", "orders", "-f", "x.yaml"],
    ] {
        client.run(arguments).await.expect(2);
    }
    let help = client.run(&["--help"]).await.expect(0);
    assert!(help.stdout.contains("Exit codes:"), "{help:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_are_all_printed_and_nothing_is_applied() {
    let client = Client::new().await;
    client.file("flows/a.yaml", "broken");
    client.file("flows/b.yml", "broken");
    client.file("flows/notes.txt", "no pipeline");
    let ended = client.run(&["apply", "-f", "flows"]).await.expect(1);
    assert_eq!(
        ended.stdout,
        "flows/a.yaml:3: source.csv.pth: unknown key; write `path`\n\
         flows/b.yml:3: source.csv.pth: unknown key; write `path`\n\
         2 problems, nothing was applied\n"
    );
    let ended = client.run(&["apply", "-f", "flows/a.yaml", "--output", "json"]).await.expect(1);
    let problem = json!({
        "file": "flows/a.yaml", "line": 3, "key": "source.csv.pth", "message": "unknown key",
        "remedy": "write `path`",
    });
    assert_eq!(ended.json(), json!({ "applied": [], "shared": [], "problems": [problem] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_there_are_a_failure() {
    let client = Client::new().await;
    let ended = client.run(&["apply", "-f", "nowhere.yaml"]).await.expect(1);
    assert!(ended.stderr.starts_with("error: nowhere.yaml cannot be read.\n"), "{ended:?}");
    fs::create_dir(client.folder.path().join("empty")).unwrap();
    let ended = client.run(&["apply", "-f", "empty"]).await.expect(1);
    assert!(ended.stderr.contains("no pipelines in empty"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_applied_is_a_table_or_a_document() {
    let client = Client::new().await;
    client.file("a.yaml", "name: orders");
    let ended = client.run(&["apply", "-f", "a.yaml"]).await.expect(0);
    assert_eq!(ended.stdout, "PIPELINE  REVISION  CHANGE\norders           2  updated\n");
    let ended = client.run(&["-o", "json", "apply", "-f", "a.yaml"]).await.expect(0);
    let applied = json!({ "name": "orders", "revision": 2, "change": "updated" });
    assert_eq!(ended.json(), json!({ "applied": [applied], "shared": [], "problems": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_fields_and_actions() {
    let client = Client::new().await;
    client.file("a.yaml", "name: orders");
    let ended = client.run(&["plan", "-f", "a.yaml"]).await.expect(0);
    assert_eq!(
        ended.stdout,
        "pipeline `orders` would be created\n  \
         DESTRUCTIVE: the target `old` is gone\n  \
           fields of the source (inferred):\n    \
             FIELD  TYPE\n    \
             id     integer  key, required\n  \
           fields after all steps:\n    \
             FIELD  TYPE\n    \
             id     integer  key, required\n  \
           target `store`:\n    \
             create table `orders` with 1 column\n  \
           target `lake` cannot be looked at: connection refused\n  \
           target `log`: nothing but loading\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_finds_something_is_a_failure() {
    let client = Client::new().await;
    client.run(&["check", "orders"]).await.expect(0);
    let ended = client.run(&["check", "other"]).await.expect(1);
    assert_eq!(
        ended.stdout,
        "RESULT  SUBJECT              FOUND\nFAILED  source orders/*.csv  2 files\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_tables() {
    let client = Client::new().await;
    let ended = client.run(&["pipelines"]).await.expect(0);
    assert_eq!(
        ended.stdout,
        "PIPELINE  REVISION  SOURCE  TARGETS      TRIGGERS   APPLIED\n\
         orders           2  csv     store, lake  every 10m  2024-05-06 07:08:09Z\n"
    );
    let ended = client.run(&["discover", "orders"]).await.expect(0);
    assert_eq!(
        ended.stdout,
        "orders.csv\n  FIELD  TYPE\n  id     integer        key, required\n  total  decimal(12,2)\n"
    );
    let ended = client.run(&["runs", "orders"]).await.expect(0);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].ends_with("3.2s     69,659  69,000            9"), "{ended:?}");
    let ended = client.run(&["runs", "--limit", "1", "-o", "json"]).await.expect(0);
    assert_eq!(ended.json()["runs"].as_array().unwrap().len(), 1);
    let ended = client.run(&["show", "orders"]).await.expect(0);
    assert!(ended.stdout.ends_with("\nname: orders\n"), "{ended:?}");
    let ended = client.run(&["delete", "orders", "-o", "json"]).await.expect(0);
    assert_eq!(ended.json(), json!({ "deleted": "orders" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_three_sentences() {
    let client = Client::new().await;
    let ended = client.run(&["show", "nothing"]).await.expect(1);
    assert_eq!(
        ended.stderr,
        "error: the pipeline `nothing` cannot be shown.\n  there is no pipeline `nothing`.\n  see \
         `tributary pipelines` and `tributary runs` for what there is.\n"
    );
    let ended = client.run(&["run", "busy"]).await.expect(1);
    assert!(ended.stderr.contains("run r1 of `busy` is going"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_succeeds_ends_with_its_ledger() {
    let client = Client::new().await;
    let ended = client.run(&["run", "orders", "--watch"]).await.expect(0);
    assert_eq!(
        ended.stdout,
        "run orders-1 of `orders` (revision 2): succeeded after 3.2s\n  \
           STAGES       RECORDS\n  \
           extracted     69,659\n  \
           filtered          50\n  \
           quarantined        0\n  \
           TARGET  LOADED  UNCHANGED  QUARANTINED  SWEPT  MISSING\n  \
           store   69,000        600            9      0        0\n  \
           the books balance: every record is accounted for\n"
    );
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(
        lines,
        [
            "running: extracted 69,659/69,659, transformed 12/12, loaded store 100/69,609",
            "succeeded: extracted 69,659/69,659, transformed 12/12, loaded store 69,609/69,609",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_says_why_and_what_to_do() {
    let client = Client::new().await;
    let ended = client.run(&["run", "broken", "--wait"]).await.expect(1);
    assert!(
        ended.stdout.ends_with(
            "  the books do not balance, records are missing: 69,509 for target `store`\n  \
             reason: the table `orders` is gone\n  hint: create it again\n"
        ),
        "{ended:?}"
    );
    client.run(&["watch", "nothing"]).await.expect(1);
    client.run(&["cancel", "orders-1"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_goes_on_after_the_server_was_away() {
    let client = Client::new().await;
    let ended = client.run(&["watch", "flaky-1", "-o", "json"]).await.expect(0);
    let states: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].clone())
        .collect();
    assert_eq!(states, ["running", "running", "succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_one_document() {
    let client = Client::new().await;
    let ended = client
        .run(&[
            "run",
            "orders",
            "--set",
            "region=eu",
            "--from",
            "1997-01-01",
            "--wait",
            "-o",
            "json",
        ])
        .await
        .expect(0);
    assert_eq!(
        ended.json(),
        json!({
            "id": "orders-1",
            "pipeline": "orders",
            "revision": 2,
            "trigger": "manual",
            "state": "succeeded",
            "started_at": "2024-05-06T07:08:09.000Z",
            "ended_at": "2024-05-06T07:08:12.250Z",
            "attempt": 1,
            "ledger": {
                "extracted": 69_659,
                "batches": 12,
                "batches_transformed": 12,
                "filtered": 50,
                "quarantined": 0,
                "extraction_ended": true,
                "balanced": true,
                "targets": [{
                    "target": "store", "loaded": 69_000, "unchanged": 600, "quarantined": 9,
                    "swept": 0, "missing": 0,
                }],
            },
            "reason": null,
            "hint": null,
            "notes": [],
            "due_at": null,
            "usage": null,
            "parameters": {"region": "eu"},
            "from": "1997-01-01",
            "to": null,
            "skipped": null,
            "skipped_until": null,
            "connection": null,
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quarantine_is_listed_shown_replayed_and_dropped() {
    let client = Client::new().await;
    let ended = client.run(&["quarantine", "list"]).await.expect(0);
    assert_eq!(
        ended.stdout,
        "ID  PIPELINE  STAGE        CODE  FIELD  RECORD         REASON\n \
         7  orders    transformer  type  total  orders.csv:17  not a decimal\n\
         1 of 12 records\n"
    );
    let ended = client.run(&["quarantine", "show", "7", "-o", "json"]).await.expect(0);
    // The digits of a number stay as they are.
    assert_eq!(ended.json()["contents"]["total"].to_string(), "12.30");
    let ended = client.run(&["quarantine", "replay", "--all"]).await.expect(0);
    assert!(ended.stdout.contains("12 records") && ended.stdout.contains("watch orders-2"));
    let ended = client.run(&["quarantine", "drop", "--id", "1", "2", "-o", "json"]).await.expect(0);
    assert_eq!(ended.json(), json!({ "records": 2 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tributary(folder.path(), &["completions", "bash"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ended: Ended = child.wait_with_output().unwrap().into();
    assert!(line.contains("tributary"), "{line}");
    assert_eq!(ended.expect(0).stderr, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_polling_costs_is_told_in_words_or_as_a_document() {
    let client = Client::new().await;
    let ended = client.run(&["polls", "orders"]).await.expect(0);
    assert_eq!(
        ended.stdout,
        "orders: every 10m\n\
         \x20 polls         144\n\
         \x20 without news  120 (83 %)\n\
         \x20 changes       36\n\
         \x20 calls         150\n\
         \x20 received      29.3 KiB\n\
         \x20 freshness     half of 36 changes within 5m 3s, 95 % within 9m 40s\n\
         \x20 other intervals, by this history:\n\
         \x20   INTERVAL   CALLS/DAY  RECEIVED/DAY  WITHOUT NEWS  HALF WITHIN  95 % WITHIN\n\
         \x20   10m (now)        150      29.3 KiB          83 %        5m 3s       9m 40s\n"
    );
    let ended = client.run(&["polls", "-o", "json"]).await.expect(0);
    assert_eq!(ended.json()["pipelines"][0]["freshness"]["median_seconds"], json!(303.0));
}
