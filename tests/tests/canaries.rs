//! Personal data and secrets are planted everywhere, and looked for in everything that is written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bus::SealKeys;
use testkit::http::{Reply, Server};
use tests::{Layout, Role, Sender, System, binary};
use tokio::time::{Duration, sleep};
use wire::control::QuarantinedRecord;

/// In every value that is marked `pii`.
const PERSON: &str = "canary.person";
/// In every secret.
const SECRET: &str = "canary-secret";

const FILES: &str = "pipeline: files\n\
    source: {csv: {path: \"people.csv\"}}\n\
    schema: {id: integer, email: text, name: text, points: integer}\n\
    pii: [email, name]\n\
    steps:\n  - rename: {name: full_name}\n\
    key: [id]\n\
    targets:\n  store: {postgres: {url: \"${env:STORE_URL}\", table: people}}\n";

/// The key of the source is an address, so it is in the ids of the records.
fn contacts(api: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "pipeline: contacts\n\
         source:\n  postgres: {{url: \"${{env:STORE_URL}}\", table: contacts, key: [email]}}\n\
         schema: {{email: text, name: text, points: integer}}\n\
         pii: [email, name]\n\
         key: [email]\n\
         targets:\n\
         \x20 store: {{postgres: {{url: \"${{env:STORE_URL}}\", table: guarded}}}}\n\
         \x20 api:\n    http:\n      base_url: {api}\n      allow_private: true\n      \
         auth: {{bearer: \"${{file:{folder}/api.secret}}\"}}\n      only_changed: true\n      \
         upsert: {{method: PUT, path: \"/people/{{{{ key }}}}\"}}\n"
    )
}

fn pushed(receiver: &str) -> String {
    format!(
        "pipeline: pushed\n\
         source: {{push: {{}}}}\n\
         triggers:\n  push:\n    webhook:\n      \
         verify: {{bearer: {{tokens: [\"${{env:PUSH_TOKEN}}\"]}}}}\n      id: {{field: email}}\n\
         schema: {{email: text, name: text}}\n\
         pii: [email, name]\n\
         key: [email]\n\
         targets:\n  partner:\n    webhook:\n      url: {receiver}/hook\n      \
         allow_private: true\n      secrets: [\"${{env:HOOK_SECRET}}\"]\n      retry: [0s, 1h]\n"
    )
}

/// `whsec_` and base64 of a text that begins with the mark of secrets.
const HOOK_SECRET: &str = "whsec_Y2FuYXJ5LXNlY3JldC1vZi10aGUtaG9vay0wMDE=";

struct House {
    system: System,
    keys: tempfile::TempDir,
    /// All that commands have printed.
    said: String,
}

impl House {
    async fn start() -> Self {
        let keys = tempfile::tempdir().unwrap();
        let folder = keys.path().join("keys");
        SealKeys::create(&folder).unwrap();
        let layout = Layout::for_faults()
            .with_everywhere("bus.seal_keys", folder.to_str().unwrap())
            .with_everywhere("telemetry.filter", "debug")
            .with_environment("PUSH_TOKEN", &format!("{SECRET}-push"))
            .with_environment("HOOK_SECRET", HOOK_SECRET);
        let mut system = System::prepare(layout);
        let (_, place) = system.target.rsplit_once('@').unwrap();
        let url = format!("postgres://store:{SECRET}-store@{place}");
        for role in Role::ALL {
            system.service(role).process.set("STORE_URL", &url);
        }
        system.sql(&format!(
            "create role store login superuser password '{SECRET}-store'; \
             create table contacts (email text primary key, name text, points int); \
             insert into contacts select '{PERSON}.' || i || '@example.com', '{PERSON} ' || i, i \
             from generate_series(1, 20) i; \
             create table guarded (email text primary key, name text check (name not like '% 7'), \
             points bigint, _version bigint not null)"
        ));
        fs::write(system.folder().join("api.secret"), format!("{SECRET}-api\n")).unwrap();
        let rows: String =
            (0..20).map(|id| format!("{id},{PERSON}.{id}@example.com,{PERSON},{id}\n")).collect();
        let people = format!(
            "id,email,name,points\n{rows}98,{PERSON}.98@example.com,{PERSON},many\n\
             99,{PERSON}.99@example.com\n"
        );
        fs::write(system.folder().join("people.csv"), people).unwrap();
        system.start_roles(&Role::ALL).await;
        Self { system, keys, said: String::new() }
    }

    /// Runs a command and returns what it prints, on either output.
    fn tributary(&mut self, arguments: &[&str]) -> String {
        let output = Command::new(binary())
            .args(arguments)
            .current_dir(self.system.folder())
            .env("TRIBUTARY_SERVER", self.system.address.to_string())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        self.said.push_str(&said);
        said
    }

    async fn quarantined(&self, pipeline: &str, count: usize) -> Vec<QuarantinedRecord> {
        for _ in 0..300 {
            let found = self.system.client.quarantined(pipeline).await;
            if found.len() >= count {
                return found;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("{pipeline} has not quarantined {count} records");
    }

    /// All that the services have written, said and kept, with the place of each.
    async fn everything(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut all = vec![("what commands printed".to_owned(), self.said.clone().into_bytes())];
        for service in self.system.services() {
            let name = service.role.name();
            all.push((format!("the log of the {name}"), service.process.log().into_bytes()));
            let metrics = service.get("/metrics").await.unwrap();
            assert!(metrics.contains("tributary_"), "{metrics}");
            all.push((format!("the metrics of the {name}"), metrics.into_bytes()));
            let pid = service.process.pid().unwrap();
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
            all.push((format!("the command line of the {name}"), line));
        }
        let dump = self.system.postgres.dump(&self.system.control);
        all.push(("the database of the scheduler".to_owned(), dump.into_bytes()));
        // What was acknowledged is in the files once the server is gone.
        let broker = self.system.nats.folder().to_owned();
        self.system.nats.stop();
        files(&broker, &mut all);
        all
    }
}

fn files(folder: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else {
            all.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

/// Tells what stands around a text that should not be there.
fn leak(place: &str, text: &[u8], part: &[u8]) -> Option<String> {
    let at = text.windows(part.len()).position(|window| window.eq_ignore_ascii_case(part))?;
    let around = &text[at.saturating_sub(200)..(at + part.len() + 80).min(text.len())];
    Some(format!("{place}: {}", String::from_utf8_lossy(around)))
}

/// The ways in which a text may be written.
fn forms(text: &str) -> Vec<Vec<u8>> {
    use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    // Base64 depends on where the text begins; what is left out are the digits that neighbours share.
    let encoded = (0..3).map(|shift| {
        let digits = STANDARD_NO_PAD.encode([&vec![b'.'; shift], text.as_bytes()].concat());
        digits.as_bytes()[4..digits.len() - 4].to_vec()
    });
    let mut forms = vec![text.as_bytes().to_vec(), hex.into_bytes()];
    forms.extend(encoded);
    forms
}

/// Pushes a record and returns the status of the answer.
async fn push(system: &System, token: &str, body: &str) -> u16 {
    let sender = Sender::new(vec![system.intakes[0].0], 0);
    let mut sender = sender.with_header("authorization", &format!("Bearer {token}"));
    sender.post("pushed", "1", body).await.expect("it is answered")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn personal_data_and_secrets_are_nowhere_but_where_they_belong() {
    let mut house = House::start().await;
    let api = Server::start(|request, _| {
        Reply::new(if request.path.contains(".9%40") { 422 } else { 200 }, "no")
    })
    .await;
    let receiver = Server::always(500).await;
    for (name, yaml) in [
        ("files", FILES.to_owned()),
        ("contacts", contacts(&api.url(), house.system.folder())),
        ("pushed", pushed(&receiver.url())),
    ] {
        fs::write(house.system.folder().join(format!("{name}.yaml")), yaml).unwrap();
        let file = format!("{name}.yaml");
        house.tributary(&["plan", "-f", &file]);
        let applied = house.tributary(&["apply", "-f", &file]);
        assert!(applied.contains("created"), "{applied}");
        house.tributary(&["check", name]);
    }
    let run = house.system.client.start("files").await;
    house.system.client.succeeded(&run).await;
    let refused = house.quarantined("files", 2).await;
    let run = house.system.client.start("contacts").await;
    house.system.client.succeeded(&run).await;
    let set_aside = house.quarantined("contacts", 2).await;
    assert!(set_aside.iter().all(|record| !record.record.contains('@')), "{set_aside:#?}");
    let body = format!("{{\"email\": \"{PERSON}.1@example.com\", \"name\": \"{PERSON}\"}}");
    assert_eq!(push(&house.system, &format!("{SECRET}-push"), &body).await, 200);
    assert_eq!(push(&house.system, &format!("{SECRET}-wrong"), &body).await, 401);
    let undelivered = house.quarantined("pushed", 1).await;

    for record in refused.iter().chain(&set_aside).chain(&undelivered) {
        let shown = house.tributary(&["quarantine", "show", &record.id.to_string()]);
        assert!(shown.contains("***"), "{shown}");
    }
    for arguments in [
        &["quarantine", "list"][..],
        &["runs"],
        &["deliveries", "list"],
        &["pipelines"],
        &["show", "contacts"],
        &["polls"],
        &["doctor"],
    ] {
        house.tributary(arguments);
    }
    // What was sealed opens for whom it is meant.
    house.tributary(&["quarantine", "replay", "--pipeline", "contacts"]);
    let replays = house.system.client.latest("contacts").await;
    let replay = house.system.client.ended(&replays[0].id).await;
    assert!(replay.ledger.is_some_and(|ledger| ledger.balanced && ledger.extracted == 2));
    let calls = api.requests();
    let again = calls.iter().filter(|call| call.path.contains(".9%40")).count();
    assert!(again >= 2, "the replay has called with the address again: {again}");
    assert_eq!(house.system.sql("select count(*) from people where email like 'canary%'"), "20");

    let keys = house.keys.path().join("keys/1");
    let key = fs::read_to_string(keys).unwrap();
    let all = house.everything().await;
    assert!(all.iter().map(|(_, text)| text.len()).sum::<usize>() > 100_000);
    let leaks: Vec<String> = [PERSON, SECRET, key.trim(), &HOOK_SECRET[6..]]
        .iter()
        .flat_map(|text| forms(text))
        .flat_map(|form| all.iter().filter_map(move |(place, text)| leak(place, text, &form)))
        .collect();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}
