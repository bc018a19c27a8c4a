//! Finds and reaches the control plane.

use std::{error::Error, fs, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{cli::Global, failure::Failure};

const DEFAULT: &str = "http://127.0.0.1:7000";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long `--wait` waits for a server that is starting.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// The control plane as the command line, the environment or `tributary up` name it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: String,
    origin: Origin,
}

/// Who named the address.
#[derive(Debug, Clone)]
enum Origin {
    User,
    /// `tributary up`, in this file.
    File(PathBuf),
    Default,
}

impl Server {
    /// Looks where the server is; does not ask it anything.
    ///
    /// Where there is a data folder, only the `tributary up` of that folder is meant: what listens
    /// on the default address may be somebody else's.
    pub(crate) fn find(global: &Global) -> Result<Self, Failure> {
        if let Some(address) = &global.server {
            return Ok(Self { address: with_scheme(address), origin: Origin::User });
        }
        let file = global.data.join("address");
        match fs::read_to_string(&file) {
            Ok(address) => {
                Ok(Self { address: with_scheme(address.trim()), origin: Origin::File(file) })
            }
            Err(_) if global.data.join("lock").exists() => Err(Failure::unreachable(
                &format!("of the data folder {}", global.data.display()),
                "no `tributary up` is ready there",
                "start it, or give --server or TRIBUTARY_SERVER",
            )),
            Err(_) => Ok(Self { address: DEFAULT.to_owned(), origin: Origin::Default }),
        }
    }

    /// Looks again: a `tributary up` that was started again may have another address.
    pub(crate) fn found_again(&self) -> Self {
        let Origin::File(file) = &self.origin else { return self.clone() };
        let address = fs::read_to_string(file);
        let address =
            address.map_or_else(|_| self.address.clone(), |text| with_scheme(text.trim()));
        Self { address, origin: self.origin.clone() }
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Channel, Failure> {
        let endpoint = Endpoint::from_shared(self.address.clone()).map_err(|error| {
            let hint = "write it as `http://HOST:PORT`";
            Failure::new(format!("the address `{}` cannot be used", self.address), error, hint)
        })?;
        let connected = endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await;
        connected.map_err(|error| self.unreachable(&innermost(&error)))
    }

    /// Turns what the server answered instead of a result into what the user reads.
    pub(crate) fn refused(&self, what: impl Into<String>, status: &Status) -> Failure {
        if is_lost(status) {
            let detail = status.source().map_or_else(|| status.message().to_owned(), innermost);
            return self.unreachable(&detail);
        }
        Failure::refused(what, status)
    }

    fn unreachable(&self, detail: &str) -> Failure {
        let hint = match &self.origin {
            Origin::File(file) => format!(
                "the address comes from {}: start `tributary up` again, or give --server",
                file.display()
            ),
            Origin::User | Origin::Default => {
                "start `tributary up`, or give --server or TRIBUTARY_SERVER".to_owned()
            }
        };
        Failure::unreachable(&self.address, detail, &hint)
    }
}

/// Waits until the server answers and returns it: the one that the user has named, or the
/// `tributary up` of the data folder, which may be starting.
pub(crate) async fn wait(global: &Global) -> Result<Server, Failure> {
    let end = Instant::now() + PATIENCE;
    loop {
        let failure = match Server::find(global) {
            // The data folder is not even there yet.
            Ok(Server { origin: Origin::Default, .. }) => Failure::unreachable(
                &format!("of the data folder {}", global.data.display()),
                "no `tributary up` has been started there",
                "start it, or give --server or TRIBUTARY_SERVER",
            ),
            Ok(server) => match server.connect().await {
                Ok(_) => return Ok(server),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        if Instant::now() >= end {
            return Err(failure);
        }
        sleep(PAUSE).await;
    }
}

/// Tells whether the connection is to blame and not the request.
pub(crate) fn is_lost(status: &Status) -> bool {
    let broken = status.code() == Code::Unknown && status.source().is_some();
    status.code() == Code::Unavailable || broken
}

fn with_scheme(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
