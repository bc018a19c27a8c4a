//! Results on stdout, for people or for programs.

pub(crate) mod access;
pub(crate) mod deliveries;
pub(crate) mod json;
pub(crate) mod polls;
pub(crate) mod progress;
pub(crate) mod quotas;
pub(crate) mod table;
pub(crate) mod text;

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::Value;

use crate::{
    cli::{Cli, Format},
    failure::Failure,
};

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(crate) fn format(self) -> Format {
        self.format
    }

    /// Prints one result in the chosen form.
    pub(crate) fn print(
        self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        write(&match self.format {
            Format::Json => format!("{:#}\n", json()),
            Format::Text => text(),
        })
    }

    /// Prints a JSON document in one line.
    pub(crate) fn line(self, json: &Value) -> Result<(), Failure> {
        write(&format!("{json}\n"))
    }
}

/// Prints the completion script of a shell.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tributary", &mut script);
    write(&String::from_utf8_lossy(&script))
}

/// Writes to stdout and reports what `println!` would panic about, such as a closed pipe.
fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        // Whoever reads has seen enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::new("the result cannot be printed", error, "")),
    }
}
