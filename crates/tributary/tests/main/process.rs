//! Runs the binary.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Reads stdout as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless the command ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Prepares the binary in a folder of its own, with an environment of its own.
pub(crate) fn tributary(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
    let ours =
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRIBUTARY_"));
    for (name, _) in ours {
        command.env_remove(name);
    }
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub(crate) async fn run(folder: &Path, arguments: &[&str]) -> Ended {
    let mut command = tributary(folder, arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
}
