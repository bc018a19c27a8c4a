//! `tributary up` as a process: what it starts, whom it lets in, and what it leaves behind.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::process::{Ended, run, tributary};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running `tributary up` in a folder of its own.
struct Up {
    folder: TempDir,
    child: Child,
}

impl Up {
    /// Starts it and waits until it says that it is ready.
    fn start(folder: TempDir) -> Self {
        let nats = nats_server();
        let mut command = tributary(folder.path(), &["up", "--listen", "127.0.0.1:0"]);
        command.arg("--nats-server").arg(nats).args(["--ready-file", "ready"]);
        command.stdout(Stdio::piped()).stderr(fs::File::create(folder.path().join("log")).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(line.starts_with("tributary is ready"), "{line}\n{log}");
        assert!(folder.path().join("ready").exists());
        Self { folder, child }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn signal(&self, name: &str) {
        signal(name, &self.child.id().to_string());
    }

    /// Processes that work in our folder, by id: the NATS server and its watcher.
    fn children(&self) -> BTreeMap<String, String> {
        let folder = self.path().canonicalize().unwrap().display().to_string();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let path = entry.ok()?.path();
            let command = fs::read_to_string(path.join("cmdline")).ok()?.replace('\0', " ");
            let ours = command.contains(&folder) && !is_zombie(&path);
            ours.then(|| (path.file_name().unwrap().to_string_lossy().into_owned(), command))
        });
        processes.collect()
    }

    /// Id of the NATS server.
    fn nats(&self) -> String {
        let mut children = self.children().into_iter();
        let is_server =
            |command: &str| !command.starts_with("sh ") && command.contains("nats-server");
        children.find(|(_, command)| is_server(command)).expect("a NATS server is running").0
    }

    fn wait_until_alone(&self) {
        let end = Instant::now() + PATIENCE;
        while !self.children().is_empty() {
            assert!(Instant::now() < end, "still running: {:?}", self.children());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args([name, process]).status().unwrap().success());
}

fn is_zombie(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tZ"))
}

fn nats_server() -> PathBuf {
    match std::env::var_os("TRIBUTARY_NATS_SERVER") {
        Some(named) => named.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/venv/bin/nats-server"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_found_by_clients_and_leaves_nothing_after_a_signal() {
    let mut up = Up::start(tempfile::tempdir().unwrap());
    assert_ne!(up.nats(), up.child.id().to_string());
    let ended = run(up.path(), &["pipelines", "--wait"]).await.expect(0);
    assert!(ended.stdout.starts_with("there are no pipelines"), "{ended:?}");

    up.signal("-INT");
    let status = up.child.wait().unwrap();
    let log = fs::read_to_string(up.path().join("log")).unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    up.wait_until_alone();
    assert!(!up.path().join(".tributary/address").exists());
    assert!(!up.path().join("ready").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_one_leaves_no_orphan_and_starts_again() {
    let mut up = Up::start(tempfile::tempdir().unwrap());
    assert!(!up.children().is_empty());
    up.signal("-KILL");
    up.child.wait().unwrap();
    up.wait_until_alone();

    let folder = std::mem::replace(&mut up.folder, tempfile::tempdir().unwrap());
    let again = Up::start(folder);
    run(again.path(), &["pipelines"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_nats_server_is_the_end_and_said() {
    let mut up = Up::start(tempfile::tempdir().unwrap());
    signal("-KILL", &up.nats());
    let status = up.child.wait().unwrap();
    let log = fs::read_to_string(up.path().join("log")).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("error: the NATS server has ended"), "{log}");
    up.wait_until_alone();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_serves_one_at_a_time() {
    let up = Up::start(tempfile::tempdir().unwrap());
    let nats = nats_server().display().to_string();
    let second = ["up", "--listen", "127.0.0.1:0", "--nats-server", &nats];
    let ended: Ended = run(up.path(), &second).await.expect(1);
    let holder = format!("another `tributary up` works there: process {}", up.child.id());
    assert!(ended.stderr.contains(&holder), "{ended:?}");
    run(up.path(), &["pipelines"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_start_with_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &["up", "--nats-server", "/bin/true"]).await.expect(1);
    assert!(ended.stderr.contains("the NATS server /bin/true cannot be used"), "{ended:?}");
    fs::write(folder.path().join("up.yaml"), "loader:\n  grp_bytes: 4MiB\n").unwrap();
    let ended = run(folder.path(), &["up", "--config", "up.yaml"]).await.expect(1);
    assert!(ended.stderr.contains("up.yaml:2: `loader.grp_bytes`: unknown key"), "{ended:?}");
    assert!(!folder.path().join(".tributary").exists());
}
