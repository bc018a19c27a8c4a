//! Everything in one process, with SQLite: first sync, change, delete, outage, restart.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tests::{Client, Process, binary, children};
use tokio::time::{Instant, sleep};
use wire::control::RunState;

const ROWS: u64 = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_keeps_a_target_in_step_through_change_delete_outage_and_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::new(folder.path());
    let client = up.start().await;
    up.sqlite(
        "source.db",
        &format!(
            "create table customers (id integer primary key, name text, points integer); \
             with recursive ids(id) as (select 1 union all select id + 1 from ids where id < {ROWS}) \
             insert into customers select id, 'name ' || id, id % 97 from ids"
        ),
    );
    let pipeline = "pipeline: customers\n\
                    source:\n  sqlite: {path: source.db, table: customers, key: [id]}\n\
                    key: [id]\n\
                    targets:\n  store:\n    sqlite: {path: store.db, table: customers}\n    \
                    mode: snapshot\n    deletes: hard\n";
    std::fs::write(up.path("customers.yaml"), pipeline).unwrap();
    up.tributary(&["apply", "-f", "customers.yaml"]);

    // First sync.
    up.tributary(&["run", "customers", "--wait"]);
    assert_eq!(up.contents("store.db"), up.contents("source.db"));
    assert!(up.contents("store.db").starts_with(&ROWS.to_string()));

    // Change and delete.
    up.sqlite("source.db", "update customers set name = 'changed' where id % 1000 = 7");
    up.sqlite("source.db", "delete from customers where id % 1000 = 8");
    up.tributary(&["run", "customers", "--wait"]);
    assert_eq!(up.contents("store.db"), up.contents("source.db"));
    assert!(up.contents("store.db").starts_with(&(ROWS - 100).to_string()));

    // Outage in the middle of a run.
    up.sqlite("source.db", "update customers set points = points + 1");
    let run = client.start("customers").await;
    let read =
        |run: &wire::control::Run| run.ledger.as_ref().is_some_and(|ledger| ledger.extracted > 0);
    let run = client.until(&run, read).await;
    assert_eq!(run.state(), RunState::Running, "{run:#?}");
    let pid = up.process.pid().unwrap();
    let broker = children(pid);
    assert_eq!(broker.len(), 1, "the broker is its child");
    assert_eq!(up.process.kill().await, Some(pid));
    gone(broker[0]).await;

    // Restart: the run goes on by itself.
    let client = up.start().await;
    client.succeeded(&run.id).await;
    assert_eq!(up.contents("store.db"), up.contents("source.db"));

    // Ctrl-C leaves nothing running.
    let broker = children(up.process.pid().unwrap());
    up.process.terminate().await;
    assert_eq!(up.process.ended(Duration::ZERO).await, "exit status: 0", "{}", up.process.log());
    gone(broker[0]).await;
}

/// `tributary up` in a folder of its own.
struct Up {
    folder: PathBuf,
    process: Process,
}

impl Up {
    fn new(folder: &Path) -> Self {
        let nats = testkit::nats::binary().display().to_string();
        let arguments = ["up", "--listen", "127.0.0.1:0", "--ready-file", "ready"];
        let arguments = arguments.map(str::to_owned).to_vec();
        let environment = vec![("TRIBUTARY_NATS_SERVER".to_owned(), nats)];
        let log = folder.join("up.log");
        let process = Process::new(binary(), arguments, environment, folder.to_owned(), log);
        Self { folder: folder.to_owned(), process }
    }

    async fn start(&mut self) -> Client {
        let ready = self.path("ready");
        std::fs::remove_file(&ready).ok();
        self.process.start().await;
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let address = std::fs::read_to_string(&ready).unwrap_or_default();
            if let Some(address) = address.trim().strip_prefix("http://") {
                return Client::new(address.parse().unwrap());
            }
            let runs = self.process.pid().is_some() && Instant::now() < deadline;
            assert!(runs, "`up` is not ready: {}", self.process.log());
            // A file that appears is what scripts wait for.
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs a client command, which has to succeed.
    fn tributary(&self, arguments: &[&str]) {
        let output = Command::new(binary()).args(arguments).current_dir(&self.folder).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}\n{}", self.process.log());
    }

    /// Runs SQL with the SQLite that comes with Python, and returns the first row of the last
    /// statement's result.
    fn sqlite(&self, file: &str, sql: &str) -> String {
        let script = "import sqlite3, sys\n\
                      db = sqlite3.connect(sys.argv[1], timeout=30)\n\
                      for sql in sys.argv[2].split(';'):\n    \
                      row = db.execute(sql).fetchone()\n\
                      db.commit()\n\
                      print(row)\n";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(self.path(file)).arg(sql);
        let output = python.output().expect("Python 3 is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Returns count and sums of the customers in a file.
    fn contents(&self, file: &str) -> String {
        let sums = "select count(*), sum(id * id), sum(points * (id % 89)), sum(length(name)), \
                    count(case when name = 'changed' then 1 end) from customers";
        self.sqlite(file, sums).trim_start_matches('(').to_owned()
    }
}

/// Waits until there is no process of that id.
async fn gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        // Somebody else's child tells us nothing.
        sleep(Duration::from_millis(20)).await;
    }
}
