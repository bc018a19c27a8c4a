//! Finds and reaches the control plane.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{cli::Global, failure::Failure};

/// Holds the token. No option does: others on the machine could read it there.
const TOKEN: &str = "TRIBUTARY_TOKEN";
const DEFAULT: &str = "127.0.0.1:7000";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long `--wait` waits for a server that is starting.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that sends the token with every call.
pub(crate) type Connection = InterceptedService<Channel, Bearer>;

/// Sends a token, or none.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// What a caller shows to the server, and what it expects of it.
#[derive(Debug, Clone)]
struct Credentials {
    bearer: Bearer,
    tls: ClientTlsConfig,
}

impl Credentials {
    fn find(global: &Global) -> Result<Self, Failure> {
        let token = match &global.token_file {
            Some(path) => Some(read("--token-file", path)?),
            None => std::env::var(TOKEN).ok().map(String::into_bytes),
        };
        let bearer = token.map(|token| bearer(token.trim_ascii())).transpose()?;
        let mut tls = ClientTlsConfig::new();
        tls = match &global.ca {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read("--ca", path)?)),
            None => tls.with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&global.certificate, &global.key) {
            let certificate = read("--certificate", certificate)?;
            tls = tls.identity(Identity::from_pem(certificate, read("--key", key)?));
        }
        Ok(Self { bearer: Bearer(bearer), tls })
    }
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        let what = format!("the file of {option}, {}, cannot be read", path.display());
        Failure::new(what, error, "name another one, or check its rights")
    })
}

fn bearer(token: &[u8]) -> Result<MetadataValue<Ascii>, Failure> {
    let header = [b"Bearer ", token].concat();
    let mut value = MetadataValue::try_from(header).map_err(|_| {
        // The error would hold the token.
        let hint = "give the text that `tributary token create` has printed";
        Failure::new("the token cannot be sent", "it has characters that no token has", hint)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The control plane as the command line, the environment or `tributary up` name it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: String,
    origin: Origin,
    credentials: Credentials,
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
        let credentials = Credentials::find(global)?;
        if let Some(address) = &global.server {
            let address = with_scheme(address, global.ca.is_some());
            return Ok(Self { address, origin: Origin::User, credentials });
        }
        let file = global.data.join("address");
        match fs::read_to_string(&file) {
            Ok(address) => {
                let address = with_scheme(address.trim(), false);
                Ok(Self { address, origin: Origin::File(file), credentials })
            }
            Err(_) if global.data.join("lock").exists() => Err(Failure::unreachable(
                &format!("of the data folder {}", global.data.display()),
                "no `tributary up` is ready there",
                "start it, or give --server or TRIBUTARY_SERVER",
            )),
            Err(_) => {
                let address = with_scheme(DEFAULT, global.ca.is_some());
                Ok(Self { address, origin: Origin::Default, credentials })
            }
        }
    }

    /// Looks again: a `tributary up` that was started again may have another address.
    pub(crate) fn found_again(&self) -> Self {
        let Origin::File(file) = &self.origin else { return self.clone() };
        let address = fs::read_to_string(file);
        let address =
            address.map_or_else(|_| self.address.clone(), |text| with_scheme(text.trim(), false));
        Self { address, ..self.clone() }
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        let unusable = |error| {
            let hint = "write it as `http://HOST:PORT` or `https://HOST:PORT`";
            Failure::new(format!("the address `{}` cannot be used", self.address), error, hint)
        };
        let mut endpoint = Endpoint::from_shared(self.address.clone()).map_err(unusable)?;
        if self.address.starts_with("https://") {
            crate::service::install_crypto();
            let tls = self.credentials.tls.clone();
            endpoint = endpoint.tls_config(tls).map_err(unusable)?;
        }
        let connected = endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await;
        let channel = connected.map_err(|error| self.unreachable(&innermost(&error)))?;
        Ok(InterceptedService::new(channel, self.credentials.bearer.clone()))
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

fn with_scheme(address: &str, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    if address.contains("://") { address.to_owned() } else { format!("{scheme}://{address}") }
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
