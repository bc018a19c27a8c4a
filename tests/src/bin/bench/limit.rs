//! The same work with nothing but `psql`.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

/// The `psql` that belongs to the server.
#[derive(Debug, Clone)]
pub(crate) struct Psql {
    binary: PathBuf,
}

impl Psql {
    pub(crate) fn new() -> Self {
        Self { binary: "/usr/lib/postgresql/15/bin/psql".into() }
    }

    /// Runs commands one after the other in one session.
    pub(crate) fn run(&self, url: &str, commands: &[&str]) -> anyhow::Result<()> {
        let mut psql = self.command(url);
        for command in commands {
            psql.args(["--command", command]);
        }
        let output = psql.output().context("run psql")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Copies a table of one database into a table of another.
    pub(crate) fn pipe(&self, from: &str, table: &str, to: &str, into: &str) -> anyhow::Result<()> {
        let mut reader = self
            .command(from)
            .args(["--command", &format!("copy {table} to stdout")])
            .stdout(Stdio::piped())
            .spawn()
            .context("run psql")?;
        let rows = reader.stdout.take().context("the output is a pipe")?;
        let writer = self
            .command(to)
            .args(["--command", &format!("copy {into} from stdin")])
            .stdin(rows)
            .output()
            .context("run psql")?;
        ensure!(writer.status.success(), "{}", String::from_utf8_lossy(&writer.stderr));
        ensure!(reader.wait()?.success(), "the reading psql failed");
        Ok(())
    }

    fn command(&self, url: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", url]);
        command
    }
}
