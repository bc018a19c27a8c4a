//! The NATS server of `tributary up`: found, checked, started as a child that does not outlive us.

use std::{
    env, fmt, fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep, timeout},
};

use crate::failure::Failure;

/// Older servers ignore stream settings that we rely on.
const OLDEST: Version = Version(2, 15, 1);
/// Where the tree keeps its tools.
const TOOL: &str = ".tools/venv/bin/nats-server";
/// How the server's runtime uses memory, where the environment does not say it. By default it lets
/// dead buffers pile up to the size of the live ones: 200 MiB while a large file passes. With a limit
/// these are 120 MiB; far below it the runtime collects more rarely than by default, so this costs no
/// time. A server that has more than the limit in use gets it: a backlog is kept in memory while it
/// is written.
const MEMORY: [(&str, &str); 2] = [("GOMEMLIMIT", "110MiB"), ("GOGC", "400")];
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);

/// Becomes the server, and leaves a watcher that kills it when our end of stdin closes, however we
/// ended. The watcher also passes on `stop`, and goes home at `done`. In a subshell `$$` is the
/// process that becomes the server.
const WATCHED: &str = r#"
exec 3<&0 </dev/null
(
    while read -r word <&3; do
        case $word in
            stop) kill -TERM $$ ;;
            done) exit 0 ;;
        esac
    done
    kill -KILL $$
) &
exec "$@" 3<&-
"#;

/// A server that is running.
#[derive(Debug)]
pub(super) struct Nats {
    child: Child,
    watcher: ChildStdin,
    url: String,
    log: PathBuf,
}

impl Nats {
    /// Starts the server with its files in `folder` and waits until it listens.
    pub(super) async fn start(binary: &Path, folder: &Path) -> Result<Self, Failure> {
        let log = folder.join("nats.log");
        let fail = |error: io::Error| start_failed(&log, &error.to_string());
        fs::create_dir_all(folder).map_err(fail)?;
        remove_ports_files(folder).map_err(fail)?;
        let config = folder.join("nats.conf");
        write_config(&config, folder, &log).map_err(fail)?;
        let mut child = Command::new("sh")
            .args(["-c", WATCHED, "tributary-nats"])
            .arg(binary)
            .arg("--config")
            .arg(&config)
            .envs(MEMORY.into_iter().filter(|(name, _)| env::var_os(name).is_none()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for us: the server ends after the services have used it for the last time.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(fail)?;
        let watcher = child.stdin.take().expect("stdin is a pipe");
        let url = listening(&mut child, folder, &log).await?;
        tracing::info!(nats.url = url, process = child.id(), "the NATS server is running");
        Ok(Self { child, watcher, url, log })
    }

    /// Returns the address for clients.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until the server ends by itself and tells why.
    pub(super) async fn ended(&mut self) -> Failure {
        let status = self.child.wait().await;
        let status = status.map_or_else(|error| error.to_string(), |status| described(&status));
        let detail = format!("{status}; its last words: {}", last_words(&self.log));
        let hint = format!("see {} and start again, nothing is lost", self.log.display());
        Failure::new("the NATS server has ended", detail, hint)
    }

    /// Stops the server, which writes what it has, and waits for its end.
    pub(super) async fn stop(mut self) {
        // An error here or below means that the watcher, and so the server, is gone already.
        self.watcher.write_all(b"stop\n").await.ok();
        if timeout(STOP, self.child.wait()).await.is_err() {
            tracing::warn!("the NATS server did not stop in time and is killed");
            self.child.kill().await.ok();
        }
        self.watcher.write_all(b"done\n").await.ok();
        self.watcher.flush().await.ok();
    }
}

/// Finds the server and checks its version.
pub(super) async fn find(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(binary) = named.map(Path::to_path_buf).or_else(search) else {
        return Err(Failure::new(
            "there is no NATS server",
            format!("neither {TOOL} nor the PATH has a `nats-server`"),
            format!("name one of version {OLDEST} or newer with --nats-server, or `make {TOOL}`"),
        ));
    };
    let what = || format!("the NATS server {} cannot be used", binary.display());
    let hint = format!("name one of version {OLDEST} or newer with --nats-server");
    let answer = Command::new(&binary).arg("--version").stdin(Stdio::null()).output().await;
    let answer = answer.map_err(|error| Failure::new(what(), error, hint.clone()))?;
    let text = String::from_utf8_lossy(&answer.stdout);
    match Version::parse(&text) {
        Some(version) if version >= OLDEST => Ok(binary),
        Some(version) => Err(Failure::new(what(), format!("its version is {version}"), hint)),
        None => Err(Failure::new(what(), "it does not tell its version", hint)),
    }
}

fn search() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|folder| folder.join("nats-server"));
    [PathBuf::from(TOOL)].into_iter().chain(in_path).find(|file| file.is_file())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32);

impl Version {
    /// Reads `nats-server: v2.15.1`, also with `-RC.1` behind it.
    fn parse(text: &str) -> Option<Self> {
        let numbers = text.trim().rsplit_once(' ')?.1.trim_start_matches('v');
        let numbers = numbers.split_once('-').map_or(numbers, |(numbers, _)| numbers);
        let mut numbers = numbers.split('.').map(|number| number.parse().ok());
        Some(Self(numbers.next()??, numbers.next()??, numbers.next()??))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

fn write_config(config: &Path, folder: &Path, log: &Path) -> io::Result<()> {
    let text = format!(
        "server_name: tributary-up\nlisten: \"127.0.0.1:-1\"\nports_file_dir: {folder:?}\n\
         log_file: {log:?}\nlogfile_size_limit: 10MB\nlogfile_max_num: 2\n\
         jetstream {{\n  store_dir: {:?}\n  sync_interval: always\n}}\n",
        folder.join("store")
    );
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(config)?;
    file.write_all(text.as_bytes())
}

/// A server that was killed leaves its ports file behind.
fn remove_ports_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ports") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Waits for the ports file, which the server writes when it listens, and returns the address.
async fn listening(child: &mut Child, folder: &Path, log: &Path) -> Result<String, Failure> {
    let pid = child.id().unwrap_or_default();
    let file = folder.join(format!("nats-server_{pid}.ports"));
    let end = Instant::now() + START;
    loop {
        // A file that is half written does not parse yet.
        if let Some(url) = fs::read(&file).ok().and_then(|text| first_url(&text)) {
            return Ok(url);
        }
        if Instant::now() > end {
            return Err(start_failed(log, "it does not listen after 30 seconds"));
        }
        tokio::select! {
            status = child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| described(&status));
                return Err(start_failed(log, &status));
            }
            () = sleep(Duration::from_millis(10)) => {}
        }
    }
}

fn first_url(text: &[u8]) -> Option<String> {
    let ports: serde_json::Value = serde_json::from_slice(text).ok()?;
    Some(ports.get("nats")?.get(0)?.as_str()?.to_owned())
}

fn start_failed(log: &Path, detail: &str) -> Failure {
    let detail = format!("{detail}; its last words: {}", last_words(log));
    Failure::new("the NATS server does not start", detail, format!("see {}", log.display()))
}

fn described(status: &ExitStatus) -> String {
    format!("it ended with {status}")
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("none").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        for text in ["", "nats-server", "nats-server: v2.15", "nats-server: vx.y.z"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        assert_eq!(Version::parse("nats-server: v2.15.1\n"), Some(OLDEST));
        assert!(Version::parse("nats-server: v2.9.10").unwrap() < OLDEST);
        assert!(Version::parse("nats-server: v2.16.0-RC.1").unwrap() > OLDEST);
    }

    #[tokio::test]
    async fn what_is_no_server_is_refused() {
        for (binary, reason) in [("/nowhere/nats-server", "No such file"), ("/bin/true", "version")]
        {
            let Err(Failure::Told(told)) = find(Some(Path::new(binary))).await else {
                panic!("{binary} was taken for a NATS server");
            };
            assert!(told.to_string().contains(reason), "{told}");
        }
    }

    #[tokio::test]
    async fn a_server_that_cannot_start_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let Err(Failure::Told(told)) = Nats::start(Path::new("/bin/false"), folder.path()).await
        else {
            panic!("it started");
        };
        assert!(told.to_string().contains("exit status: 1"), "{told}");
    }
}
