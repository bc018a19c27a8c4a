//! The keys with which everything is sealed are rotated, and the old one is taken away.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bus::SealKeys;
use serde_json::{Value, json};
use testkit::http::Server;
use tests::{Layout, Role, System, binary};

use crate::rotation::users;

const CONTACTS: u32 = 20;

/// Services look at the folder of the keys again after five seconds, and tell nobody.
const TAKEN_UP: Duration = Duration::from_secs(6);

struct House {
    system: System,
    secrets: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

impl House {
    async fn start() -> Self {
        let secrets = tempfile::tempdir().unwrap();
        let logins = secrets.path().join("logins");
        SealKeys::create(&secrets.path().join("keys")).unwrap();
        let keys = secrets.path().join("keys").to_str().unwrap().to_owned();
        let mut layout = Layout::for_faults()
            .with_broker(&users(&logins))
            .with_everywhere("bus.seal_keys", &keys);
        for role in Role::ALL {
            let file = logins.join(format!("{}.nk", role.name()));
            layout = layout.with(role, "bus.credentials", file.to_str().unwrap());
        }
        let mut system = System::prepare(layout);
        let login = logins.join("scheduler.nk").to_str().unwrap().to_owned();
        let settings = [
            ("database", system.control.clone()),
            ("bus.servers", system.nats.url()),
            ("bus.prefix", "story".to_owned()),
            ("bus.credentials", login),
            ("bus.seal_keys", keys),
        ];
        let settings = settings.map(|(key, value)| (Role::Scheduler.variable(key), value));
        system.start_roles(&Role::ALL).await;
        Self { system, secrets, settings: settings.into() }
    }

    fn keys(&self) -> PathBuf {
        self.secrets.path().join("keys")
    }

    /// Runs `tributary reseal` with the settings of the scheduler, and returns whether it found
    /// everything sealed with the newest key, and what it printed.
    fn reseal(&self, keys: Option<&Path>) -> (bool, Result<Value, String>) {
        let mut command = Command::new(binary());
        command.args(["reseal", "--output", "json"]).envs(self.settings.iter().cloned());
        let variable = Role::Scheduler.variable("bus.seal_keys");
        match keys {
            Some(keys) => command.env(variable, keys),
            None => command.env_remove(variable),
        };
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), serde_json::from_slice(&output.stdout).map_err(|_| said))
    }

    fn contacts(&self, api: &str, marks: &str) -> String {
        let target = &self.system.target;
        format!(
            "pipeline: contacts\n\
             source:\n  postgres: {{url: \"{target}\", table: contacts, cursor: changed}}\n\
             schema: {{email: text, name: text, changed: integer}}\n\
             {marks}\
             key: [email]\n\
             targets:\n\
             \x20 store: {{postgres: {{url: \"{target}\", table: guarded}}}}\n\
             \x20 api:\n    http:\n      base_url: {api}\n      allow_private: true\n      \
             only_changed: true\n      upsert: {{method: PUT, path: \"/people/{{{{ key }}}}\"}}\n"
        )
    }

    /// Runs the pipeline and returns how many records were extracted.
    async fn run(&self) -> u64 {
        let run = self.system.client.start("contacts").await;
        let run = self.system.client.succeeded(&run).await;
        run.ledger.unwrap().extracted
    }
}

fn renewed(said: &Value, place: &str) -> u64 {
    let kept = said["kept"].as_array().unwrap().iter();
    let named = kept.filter(|kept| kept["place"] == place);
    named.map(|kept| kept["renewed"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_is_taken_away_and_everything_still_opens() {
    let house = House::start().await;
    let api = Server::always(200).await;
    house.system.sql(&format!(
        "create table contacts (email text primary key, name text, changed bigint); \
         insert into contacts select 'ada.' || i || '@example.com', 'Ada ' || i, i \
         from generate_series(1, {CONTACTS}) i; \
         create table guarded (email text primary key, name text check (name not like '% 7'), \
         changed bigint, _version bigint not null)"
    ));
    house.system.client.apply(&house.contacts(&api.url(), "pii: [email, name]\n")).await;
    assert_eq!(house.run().await, u64::from(CONTACTS));
    let refused = house.system.client.quarantined("contacts").await;
    assert_eq!(refused.len(), 1, "{refused:#?}");
    let told = api.requests().len();
    assert_eq!(told, CONTACTS as usize);

    let (complete, said) = house.reseal(None);
    assert!(
        !complete && said.as_ref().is_err_and(|said| said.contains("bus.seal_keys")),
        "{said:?}"
    );
    let (complete, said) = house.reseal(Some(&house.keys()));
    let said = said.unwrap();
    assert!(complete && said["removable"] == json!([]), "{said:#}");

    // The old key is away too early: what it has sealed stays as it is.
    let away = house.secrets.path().join("old");
    let rotated = house.secrets.path().join("rotated");
    SealKeys::create(&away).unwrap();
    fs::create_dir(&rotated).unwrap();
    fs::rename(away.join("1"), rotated.join("2")).unwrap();
    let (complete, said) = house.reseal(Some(&rotated));
    let said = said.unwrap();
    assert!(!complete && said["key"] == "2", "{said:#}");
    let kept = said["kept"].as_array().unwrap().iter().find(|kept| kept["place"] == "quarantine");
    assert_eq!(kept.unwrap()["left"], json!({"1": 1}), "{said:#}");

    fs::copy(rotated.join("2"), house.keys().join("2")).unwrap();
    tokio::time::sleep(TAKEN_UP).await;
    let (complete, said) = house.reseal(Some(&house.keys()));
    let said = said.unwrap();
    assert!(complete, "{said:#}");
    assert_eq!((&said["key"], &said["removable"]), (&json!("2"), &json!(["1"])), "{said:#}");
    assert_eq!(renewed(&said, "bucket story_sent"), u64::from(CONTACTS), "{said:#}");
    assert_eq!((renewed(&said, "quarantine"), renewed(&said, "cursors")), (1, 1), "{said:#}");
    fs::remove_file(house.keys().join("1")).unwrap();

    // What was sent, where the source stands, and what was refused are known as before.
    house.system.sql(
        "update contacts set changed = 100 where email = 'ada.1@example.com'; \
         update contacts set changed = 101, name = 'Eve' where email = 'ada.2@example.com'",
    );
    let behind = house.run().await;
    assert!(behind < u64::from(CONTACTS), "the cursor is lost: {behind} records");
    let calls = api.requests().split_off(told);
    let bodies: Vec<String> =
        calls.iter().map(|call| String::from_utf8_lossy(&call.body).into_owned()).collect();
    assert_eq!(bodies.len(), 2, "{bodies:?}");
    assert!(bodies.iter().all(|body| body.contains("changed")), "{bodies:?}");
    assert_eq!(bodies.iter().filter(|body| body.contains("name")).count(), 1, "{bodies:?}");
    let shown = house.system.tributary(&["quarantine", "show", &refused[0].id.to_string()]);
    assert!(shown.to_string().contains("***"), "{shown}");

    // A pipeline whose records are not marked any more goes on from its sealed cursor.
    house.system.client.apply(&house.contacts(&api.url(), "")).await;
    let behind = house.run().await;
    assert!(behind < u64::from(CONTACTS), "the cursor is lost: {behind} records");
}
