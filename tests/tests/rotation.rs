//! Every secret is replaced while the services run, and none of them is started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use testkit::http::Server;
use tests::{Layout, Role, Sender, System, binary};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);

struct House {
    system: System,
    secrets: tempfile::TempDir,
}

impl House {
    async fn start() -> Self {
        let secrets = tempfile::tempdir().unwrap();
        let database = format!("${{file:{}}}", secrets.path().join("control").display());
        let mut layout = Layout::for_faults()
            .with_broker(&users(&secrets.path().join("keys")))
            .with(Role::Scheduler, "database", &database)
            .with(Role::Extractor, "push.window", "1s");
        for role in Role::ALL {
            let file = secrets.path().join("keys").join(format!("{}.nk", role.name()));
            layout = layout.with(role, "bus.credentials", file.to_str().unwrap());
        }
        let system = System::prepare(layout);
        let mut house = Self { system, secrets };
        house.system.sql("create role control login superuser");
        house.system.sql("create role store login superuser");
        // Passwords count only where the server asks for them.
        let rules = PathBuf::from(house.system.sql("show hba_file"));
        let trusting = fs::read_to_string(&rules).unwrap();
        let asking = "host all control,store 127.0.0.1/32 scram-sha-256\n";
        fs::write(&rules, format!("{asking}{trusting}")).unwrap();
        house.system.sql("select pg_reload_conf()");
        house.replace("first");
        house.system.start_roles(&Role::ALL).await;
        house
    }

    /// Gives every secret another value. What is open with the old ones is closed.
    fn replace(&mut self, generation: &str) {
        for role in ["control", "store"] {
            self.system.sql(&format!("alter role {role} password '{generation}'"));
        }
        let (_, place) = self.system.control.rsplit_once('@').unwrap();
        self.write("control", &format!("postgres://control:{generation}@{place}"));
        for name in ["store", "api", "push", "hash"] {
            self.write(name, generation);
        }
        self.system.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where usename in ('control', 'store')",
        );
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.secrets.path().join(name), text).unwrap();
    }

    fn file(&self, name: &str) -> String {
        format!("${{file:{}}}", self.secrets.path().join(name).display())
    }

    fn pipeline(&self, api: &str) -> String {
        let (_, place) = self.system.target.rsplit_once('@').unwrap();
        format!(
            "pipeline: people\nsource: {{push: {{}}}}\n\
             triggers:\n  push:\n    webhook: {{verify: {{bearer: {{tokens: [\"{}\"]}}}}}}\n\
             schema: {{id: integer, email: text}}\n\
             steps:\n  - hash: {{fields: [email], key: \"{}\"}}\n\
             key: [id]\n\
             targets:\n  store:\n    postgres: {{url: \"postgres://store:{}@{place}\", table: people}}\n  \
             api:\n    http:\n      base_url: {api}\n      allow_private: true\n      \
             auth: {{bearer: \"{}\"}}\n      upsert: {{method: PUT, path: \"/people/{{{{ key }}}}\"}}\n",
            self.file("push"),
            self.file("hash"),
            self.file("store"),
            self.file("api"),
        )
    }

    /// Pushes a record and returns the status of the answer.
    async fn push(&self, token: &str, id: u32) -> u16 {
        let body = format!("{{\"id\": {id}, \"email\": \"ada@example.com\"}}");
        let sender = Sender::new(vec![self.system.intakes[0].0], 0);
        let mut sender = sender.with_header("authorization", &format!("Bearer {token}"));
        sender.post("people", &id.to_string(), &body).await.expect("it is answered")
    }

    /// Pushes until the answer is `status`: secrets are looked at once a second, and a broker that
    /// is starting is answered by 503.
    async fn push_until(&self, status: u16, token: &str, id: u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answered = self.push(token, id).await;
            if answered == status {
                return;
            }
            assert!(Instant::now() < deadline, "a push with `{token}` is answered {answered}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a record is in the table, and returns its hash.
    async fn hash_of(&self, id: u32) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let hash = self.system.sql(&format!(
                "select email from people where to_regclass('people') is not null and id = {id}"
            ));
            if !hash.is_empty() {
                return hash;
            }
            assert!(Instant::now() < deadline, "record {id} does not arrive");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Makes keys where there are none, and returns the users of the broker.
pub(crate) fn users(keys: &Path) -> String {
    let mut command = Command::new(binary());
    command.args(["broker-users", "--prefix", "story", "--keys"]).arg(keys);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_replaced_while_everything_runs() {
    let mut house = House::start().await;
    let api = Server::always(200).await;
    house.system.sql("create table people (id bigint primary key, email text, _version bigint)");
    house.system.client.apply(&house.pipeline(&api.url())).await;
    let processes: Vec<u32> =
        house.system.services().iter().map(|service| service.process.pid().unwrap()).collect();
    house.push_until(200, "first", 1).await;
    let before = house.hash_of(1).await;
    let requests = api.wait_for(|requests| !requests.is_empty()).await;
    assert_eq!(requests[0].header("authorization"), Some("Bearer first"));

    let keys = house.secrets.path().join("keys");
    fs::remove_dir_all(&keys).unwrap();
    let broker = users(&keys);
    house.system.nats.stop();
    house.replace("second");
    house.system.nats.configure(&broker);
    house.system.nats.restart();

    house.push_until(401, "first", 2).await;
    house.push_until(200, "second", 2).await;
    assert_ne!(house.hash_of(2).await, before, "the hash has another key");
    let is_second = |request: &testkit::http::Request| request.path.ends_with("/people/2");
    let requests = api.wait_for(|requests| requests.iter().any(is_second)).await;
    let called = requests.iter().find(|request| is_second(request)).unwrap();
    assert_eq!(called.header("authorization"), Some("Bearer second"));
    // The scheduler works on: the runs of both pushes end with balanced books.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let runs = house.system.client.latest("people").await;
        if runs.len() >= 2 && runs.iter().all(|run| run.ended_at.is_some()) {
            runs.iter().for_each(tests::assert_balanced);
            break;
        }
        assert!(Instant::now() < deadline, "{runs:#?}");
        sleep(Duration::from_millis(200)).await;
    }
    let now: Vec<u32> =
        house.system.services().iter().map(|service| service.process.pid().unwrap()).collect();
    assert_eq!(now, processes, "a service was started again");
}
