//! A real PostgreSQL server of the test's own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use crate::{certificates::Authority, ports};

const BINARIES: &str = "/usr/lib/postgresql/15/bin";
const PATIENCE: Duration = Duration::from_secs(60);

/// A PostgreSQL 15 server with an empty cluster on a free port of 127.0.0.1.
///
/// It ends when this is dropped, and when the process that started it dies. Everybody on the
/// machine may connect as `postgres` without a password.
#[derive(Debug)]
pub struct Postgres {
    directory: tempfile::TempDir,
    user: Option<&'static str>,
    settings: Vec<(String, String)>,
    /// What the URLs say besides the database.
    options: String,
    port: u16,
    server: Option<Server>,
    databases: AtomicU32,
}

/// The running server. It is spawned by a thread that lives as long as the server may, because
/// the kernel's death signal is bound to the thread that forked.
#[derive(Debug)]
struct Server {
    pid: u32,
    /// Behind a lock so that tests can share the guard.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Server {
    fn has_ended_within(&self, patience: Duration) -> bool {
        let ended = self.ended.lock().expect("nobody panics with the lock");
        ended.recv_timeout(patience) != Err(mpsc::RecvTimeoutError::Timeout)
    }
}

impl Postgres {
    /// Starts a server with the default settings.
    ///
    /// # Panics
    ///
    /// When PostgreSQL 15 is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with settings as in `postgresql.conf`, such as `("fsync", "off")`.
    ///
    /// # Panics
    ///
    /// When PostgreSQL 15 is not installed or does not start.
    #[must_use]
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::make(settings);
        server.restart();
        server
    }

    /// Starts a server that nobody can reach without TLS, with the certificate `NAME.pem` of an
    /// authority. Its URLs have clients verify that.
    ///
    /// # Panics
    ///
    /// When PostgreSQL 15 is not installed or does not start, or there is no such certificate.
    #[must_use]
    pub fn start_with_tls(settings: &[(&str, &str)], authority: &Authority, name: &str) -> Self {
        let mut server = Self::make(settings);
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        for file in [&certificate, &key] {
            let mut install = Command::new("install");
            if let Some(user) = server.user {
                install.args(["-o", user]);
            }
            run(install
                .args(["-m", "600"])
                .arg(authority.path(file))
                .arg(server.data().join(file)));
        }
        let rule = "hostssl all all 127.0.0.1/32 trust\n";
        std::fs::write(server.data().join("pg_hba.conf"), rule).expect("the folder is ours");
        server.settings.extend(
            [("ssl", "on"), ("ssl_cert_file", &certificate), ("ssl_key_file", &key)]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let ca = authority.path("ca.pem");
        server.options = format!("?sslmode=verify-full&sslrootcert={}", ca.display());
        server.restart();
        server
    }

    /// Makes the cluster of a server.
    fn make(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let user = unprivileged_user();
        if let Some(user) = user {
            run(Command::new("chown").arg(user).arg(directory.path()));
        }
        let server = Self {
            user,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            options: String::new(),
            port: ports::free_port(),
            server: None,
            databases: AtomicU32::new(0),
            directory,
        };
        run(server
            .as_user("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--pgdata"])
            .arg(server.data()));
        server
    }

    /// Returns the URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// Returns the port, which stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Panics
    ///
    /// When the server does not run.
    #[must_use]
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute(&self.url(), &format!("create database {name}"));
        self.database_url(&name)
    }

    /// Runs SQL in the database of that URL and returns what `psql` prints, without headers.
    ///
    /// # Panics
    ///
    /// When the server refuses it.
    pub fn execute(&self, url: &str, sql: &str) -> String {
        run(Command::new(binary("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set=ON_ERROR_STOP=1", "--dbname"])
            .arg(url)
            .arg("--command")
            .arg(sql))
    }

    /// Returns everything that the database of a URL holds, as SQL.
    ///
    /// # Panics
    ///
    /// When the server does not run.
    #[must_use]
    pub fn dump(&self, url: &str) -> String {
        run(Command::new(binary("pg_dump")).arg("--inserts").arg(url))
    }

    /// Kills the server without giving it a chance to tidy up, as a power cut would.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// Stops the server; open connections are closed.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Starts the server again on the same port and data, after stopping it if it runs.
    ///
    /// # Panics
    ///
    /// When it does not answer within a minute.
    pub fn restart(&mut self) {
        self.stop();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let server = self.spawn();
            let ready = self.wait_until_ready(&server, deadline);
            self.server = Some(server);
            if ready {
                return;
            }
            // After a kill, the old server's children hold its shared memory for a moment.
            assert!(
                Instant::now() < deadline,
                "PostgreSQL does not start: {}",
                std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
            );
            self.end("KILL");
        }
    }

    fn spawn(&self) -> Server {
        let mut command = self.as_user("postgres");
        command
            .args(["-h", "127.0.0.1", "-k", "", "-p"])
            .arg(self.port.to_string())
            .arg("-D")
            .arg(self.data());
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let log = std::fs::File::create(self.directory.path().join("log"))
            .expect("the temporary directory is writable");
        let (started, start) = mpsc::channel();
        let (ending, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let mut child: Child = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("PostgreSQL 15 is installed");
            started.send(child.id()).ok();
            child.wait().ok();
            ending.send(()).ok();
        });
        let pid = start.recv().expect("the thread sends the pid first");
        Server { pid, ended: Mutex::new(ended) }
    }

    fn wait_until_ready(&self, server: &Server, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if server.has_ended_within(Duration::from_millis(50)) {
                return false;
            }
            let ready = Command::new(binary("pg_isready"))
                .args(["--quiet", "--host=127.0.0.1", "--port"])
                .arg(self.port.to_string())
                .status()
                .is_ok_and(|status| status.success());
            if ready {
                return true;
            }
        }
        false
    }

    fn end(&mut self, signal: &str) {
        if let Some(server) = self.server.take() {
            Command::new("kill")
                .arg(format!("-{signal}"))
                .arg(server.pid.to_string())
                .stderr(Stdio::null())
                .status()
                .ok();
            server.has_ended_within(PATIENCE);
        }
    }

    fn database_url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}{}", self.port, self.options)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A command of PostgreSQL that refuses to run as root, and dies with us.
    fn as_user(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]);
        if let Some(user) = self.user {
            command.args(["--reuid", user, "--regid"]);
            command.arg(run(Command::new("id").args(["-g", user])).trim());
            command.arg("--clear-groups");
        }
        command.arg(binary(name)).current_dir("/");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn binary(name: &str) -> PathBuf {
    Path::new(BINARIES).join(name)
}

/// The user to become, if we are root.
fn unprivileged_user() -> Option<&'static str> {
    (run(Command::new("id").arg("-u")).trim() == "0").then(|| {
        let exists = |user: &&str| {
            Command::new("id")
                .arg(user)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        ["postgres", "nobody"]
            .into_iter()
            .find(exists)
            .expect("the user `nobody` exists everywhere")
    })
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_survives_a_kill_and_a_restart_on_the_same_port() {
        let mut server = Postgres::start();
        let url = server.create_database();
        server.execute(&url, "create table t (n int); insert into t values (1)");
        server.kill();
        server.restart();
        assert_eq!(server.execute(&url, "select n from t").trim(), "1");
    }
}
