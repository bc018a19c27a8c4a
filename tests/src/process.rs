use std::{
    fs::{self, OpenOptions},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

/// How long a process that is killed or asked to end may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the binary under test: `TRIBUTARY_BIN`, or the one that was built beside the caller.
///
/// # Panics
///
/// When it has not been built.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("TRIBUTARY_BIN") {
        return named.into();
    }
    let caller = std::env::current_exe().expect("the system knows the running program");
    caller
        .ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join("tributary"))
        .find(|path| path.is_file())
        .expect("`tributary` is built; run `cargo build --workspace --bins` or set TRIBUTARY_BIN")
}

/// A program that can be started, killed and started again. It ends with the test.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: PathBuf,
    log: PathBuf,
    /// Where the log of the current life begins.
    log_start: u64,
    life: Option<Life>,
}

/// A started process. A thread that lives as long as it waits for it, because the kernel's death
/// signal is bound to the thread that forked.
#[derive(Debug)]
struct Life {
    pid: u32,
    ended: watch::Receiver<Option<String>>,
}

impl Process {
    /// Describes a process that runs in `folder` and writes its stderr and stdout to `log`.
    #[must_use]
    pub fn new(
        program: PathBuf,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        folder: PathBuf,
        log: PathBuf,
    ) -> Self {
        Self { program, arguments, environment, folder, log, log_start: 0, life: None }
    }

    /// Sets a variable for the next life.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Removes a variable for the next life.
    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(other, _)| other != name);
    }

    /// Runs another program in the next life.
    pub fn run_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Starts the process, after killing it if it runs.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub async fn start(&mut self) {
        self.kill().await;
        self.log_start = fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.expect("the folder of the test is writable");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle can be doubled"))
            .stderr(log);
        let (started, start) = mpsc::channel();
        let (ending, ended) = watch::channel(None);
        std::thread::spawn(move || {
            let mut child = command.spawn().expect("setpriv of util-linux is installed");
            started.send(child.id()).ok();
            let status = child.wait().map_or_else(|error| error.to_string(), |s| s.to_string());
            ending.send_replace(Some(status));
        });
        let pid = start.recv().expect("the thread sends the id first");
        self.life = Some(Life { pid, ended });
    }

    /// Returns the process id while the process runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.life.as_ref().filter(|life| life.ended.borrow().is_none()).map(|life| life.pid)
    }

    /// Kills the process as `kill -9` does and waits until it is gone. Returns its id if it ran.
    pub async fn kill(&mut self) -> Option<u32> {
        self.end("KILL").await
    }

    /// Asks the process to end and waits until it has. Returns its id if it ran.
    pub async fn terminate(&mut self) -> Option<u32> {
        self.end("TERM").await
    }

    /// Waits until the process has ended by itself, and returns how.
    ///
    /// # Panics
    ///
    /// When it was never started, or does not end within `patience`.
    pub async fn ended(&mut self, patience: Duration) -> String {
        let life = self.life.as_mut().expect("the process was started");
        let ended = timeout(patience, life.ended.wait_for(Option::is_some)).await;
        let ended = ended.unwrap_or_else(|_| panic!("{:?} still runs", self.arguments));
        ended.expect("the thread tells").clone().unwrap_or_default()
    }

    /// Returns what the process has written since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(usize::MAX).min(text.len());
        String::from_utf8_lossy(&text[start..]).into_owned()
    }

    async fn end(&mut self, signal: &str) -> Option<u32> {
        let pid = self.pid()?;
        send(signal, pid);
        self.ended(PATIENCE).await;
        Some(pid)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            send("KILL", pid);
        }
    }
}

fn send(signal: &str, pid: u32) {
    Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().ok();
}
