//! The commands of the README, as typed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use testkit::postgres::Postgres;
use tests::{binary, free_address};
use tokio::time::{Instant, sleep};

const README: &str = include_str!("../../README.md");
const MAKEFILE: &str = include_str!("../../Makefile");

/// What `store.db` holds after the pipeline of the quick start.
const ROWS: &str = "[('ada@example.com', '12'), ('bjorn@example.com', '007')]";

/// How long the commands of a section may take. Each takes a few seconds.
const PATIENCE_S: u32 = 180;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quick_start_works_as_typed() {
    let section = Section::of("Quick start");
    let commands = section.blocks("sh");
    assert_eq!(commands[0], "make demo\n");
    assert!(MAKEFILE.contains("\ndemo:"), "there is no such target");

    let reader = Reader::new(&section);
    let any_port = [("TRIBUTARY_SCHEDULER__LISTEN", "127.0.0.1:0".to_owned())];
    let said = reader.types(&commands[1..].concat(), &any_port);
    assert!(said.contains("pipeline `points` would be created"), "{said}");
    assert!(said.contains("create table `points`"), "{said}");
    assert!(said.contains("succeeded") && said.contains("the books balance"), "{said}");
    assert_eq!(reader.rows(), ROWS);

    // Ctrl-C of what still serves.
    let up = fs::read_to_string(reader.path(".tributary/lock")).unwrap().parse::<u32>().unwrap();
    let running = reader.running();
    assert!(running.contains(&up) && running.len() > 1, "`up` and its broker: {running:?}");
    assert!(Command::new("kill").args(["-INT", &up.to_string()]).status().unwrap().success());
    reader.nothing_runs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_run_apart_as_typed() {
    let quick_start = Section::of("Quick start");
    let reader = Reader::new(&quick_start);
    let data = quick_start.blocks("sh").concat();
    let data = data.lines().find(|line| line.ends_with("> points.csv")).unwrap();
    reader.types(data, &[]);

    let postgres = Postgres::start();
    let environment = [
        ("CONTROL_DATABASE_URL", postgres.create_database()),
        ("NATS_PORT", free_address().port().to_string()),
        ("TRIBUTARY_SERVER", free_address().to_string()),
    ];
    let said =
        reader.types(&Section::of("Run the services apart").blocks("sh").concat(), &environment);
    assert!(said.contains("succeeded") && said.contains("the books balance"), "{said}");
    assert_eq!(reader.rows(), ROWS);
    let runs = postgres.execute(&environment[0].1, "select count(*) from runs");
    assert_eq!(runs.trim(), "1", "the control plane is in the database that was named");
    // Each has said that it ends, and not been cut off.
    assert_eq!(said.matches("INFO ended").count(), 4, "{said}");
    reader.nothing_runs().await;
}

/// A chapter of the README.
struct Section(&'static str);

impl Section {
    fn of(title: &str) -> Self {
        let heading = format!("\n## {title}\n");
        let start = README.find(&heading).expect("a chapter of the README") + heading.len();
        let rest = &README[start..];
        Self(rest.find("\n## ").map_or(rest, |end| &rest[..end]))
    }

    /// Returns the contents of its fenced blocks in a language.
    fn blocks(&self, language: &str) -> Vec<&'static str> {
        let opening = format!("```{language}\n");
        let behind = |part: &'static str| part.split("```\n").next().unwrap_or_default();
        self.0.split(opening.as_str()).skip(1).map(behind).collect()
    }
}

/// Somebody in a folder that looks like the tree after a build.
struct Reader {
    folder: TempDir,
}

impl Reader {
    /// Names the folder in the environment of everything that is started from it.
    const MARK: &str = "TRIBUTARY_TEST_READER";

    /// Makes the folder, with the YAML of a section written to the files that its comments name.
    fn new(section: &Section) -> Self {
        let reader = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(reader.path("target/debug")).unwrap();
        symlink(binary(), reader.path("target/debug/tributary")).unwrap();
        fs::create_dir_all(reader.path(".tools/venv/bin")).unwrap();
        let nats = testkit::nats::binary();
        if nats.is_file() {
            let nats = nats.canonicalize().unwrap();
            symlink(nats, reader.path(".tools/venv/bin/nats-server")).unwrap();
        }
        for yaml in section.blocks("yaml") {
            let name = yaml.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap();
            fs::write(reader.path(name), yaml).unwrap();
        }
        reader
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Types commands, each of which has to succeed, and returns what they have said.
    fn types(&self, commands: &str, environment: &[(&str, String)]) -> String {
        let said = fs::File::create(self.path("said.log")).unwrap();
        let status = Command::new("timeout")
            .arg(PATIENCE_S.to_string())
            .args(["bash", "-e", "-u", "-o", "pipefail", "-c", commands])
            .current_dir(self.folder.path())
            .env(Self::MARK, self.folder.path())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .status()
            .expect("bash is installed");
        let said = fs::read_to_string(self.path("said.log")).unwrap();
        assert!(status.success(), "{status} of:\n{commands}\n{said}");
        said
    }

    /// Returns the rows of the quick start's target as Python prints them.
    fn rows(&self) -> String {
        let script = "import sqlite3, sys\n\
                      db = sqlite3.connect(sys.argv[1])\n\
                      print(db.execute('select email, points from points order by 1').fetchall())";
        let output =
            Command::new("python3").args(["-c", script]).arg(self.path("store.db")).output();
        String::from_utf8(output.expect("Python 3 is installed").stdout).unwrap().trim().to_owned()
    }

    /// Returns the ids of what was started from the folder and still runs.
    fn running(&self) -> Vec<u32> {
        let mark = format!("{}={}\0", Self::MARK, self.folder.path().display());
        let started_here = |process: &Path| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|part| part == mark.as_bytes())
        };
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        processes
            .filter(|process| started_here(process))
            .filter_map(|process| process.file_name()?.to_str()?.parse().ok())
            .collect()
    }

    /// Waits until nothing runs any more.
    async fn nothing_runs(&self) {
        let deadline = Instant::now() + Duration::from_secs(40);
        while !self.running().is_empty() {
            let said = fs::read_to_string(self.path("said.log")).unwrap();
            assert!(Instant::now() < deadline, "{:?} still run: {said}", self.running());
            // Somebody else's child tells us nothing.
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for process in self.running() {
            Command::new("kill").args(["-KILL", &process.to_string()]).status().ok();
        }
    }
}
