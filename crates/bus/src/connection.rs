use std::{convert::Infallible, io, path::Path, sync::Arc, time::Duration};

use async_nats::{Auth, AuthError, Client, ConnectOptions, Event, ServerAddr, jetstream};
use bytes::Bytes;
use nkeys::KeyPair;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Config, ConfigError, ConnectError, Names, OpenError, SealKeys, backoff::Backoff,
    metrics::Metrics, seal,
};

/// Older servers ignore settings that keep data safe.
const REQUIRED_VERSION: (i64, i64, i64) = (2, 15, 1);
const REQUIRED_VERSION_TEXT: &str = "2.15.1";

/// How long JetStream may take to answer one request of its API.
const API_TIMEOUT: Duration = Duration::from_secs(10);

/// How often JetStream is asked whether it is there, and how long the answer may take.
const READY_INTERVAL: Duration = Duration::from_secs(2);
const READY_WITHIN: Duration = Duration::from_secs(3);

/// The way to the broker. Cheap to clone; all clones share one connection, which comes back by
/// itself after an outage.
#[derive(Debug, Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    jetstream: jetstream::Context,
    names: Names,
    config: Config,
    seal_keys: Option<SealKeys>,
    /// Counts the connections that were made. What was asked on an older one may never be answered.
    connections: watch::Receiver<u64>,
    provisioning: tokio::sync::Mutex<()>,
    metrics: Metrics,
}

impl Bus {
    /// Connects to the broker, however long it takes until one of the servers can be reached.
    ///
    /// # Errors
    ///
    /// When the settings are wrong, the server is too old, or `shutdown` comes first.
    pub async fn connect(
        config: &Config,
        shutdown: &CancellationToken,
    ) -> Result<Self, ConnectError> {
        let way = Way::of(config)?;
        let mut connections = way.connections.clone();
        let client = tokio::select! {
            client = reach(&way, &mut connections) => client,
            () = shutdown.cancelled() => return Err(ConnectError::Shutdown),
        };
        Self::over(client, way, config)
    }

    /// Connects to the broker, or says why that cannot be done at this moment.
    ///
    /// # Errors
    ///
    /// As [`Bus::connect`], and when no server can be reached.
    pub async fn try_connect(config: &Config) -> Result<Self, ConnectError> {
        let way = Way::of(config)?;
        let client = way.options.clone().connect(way.servers.clone()).await;
        let client = client.map_err(|error| ConnectError::Unreachable(error.into()))?;
        Self::over(client, way, config)
    }

    fn over(client: Client, way: Way, config: &Config) -> Result<Self, ConnectError> {
        let (major, minor, patch) = REQUIRED_VERSION;
        if !client.is_server_compatible(major, minor, patch) {
            return Err(ConnectError::TooOld {
                found: client.server_info().version,
                required: REQUIRED_VERSION_TEXT,
            });
        }
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(API_TIMEOUT);
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                jetstream,
                names: way.names,
                config: config.clone(),
                seal_keys: way.seal_keys,
                connections: way.connections,
                provisioning: tokio::sync::Mutex::new(()),
                metrics: Metrics::new(),
            }),
        })
    }

    /// Returns the names of everything on the broker.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.inner.names
    }

    /// Tells whether the connection stands at this moment. A broker that is reached may still be
    /// without JetStream; see [`Bus::is_ready`].
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client().connection_state() == async_nats::connection::State::Connected
    }

    /// Tells whether JetStream answers, which it does not on a full disk.
    pub async fn is_ready(&self) -> bool {
        self.is_connected() && self.jetstream().query_account().await.is_ok()
    }

    /// Tells every two seconds whether JetStream answers within three, and from `shutdown` on that
    /// the process is of no use any more.
    ///
    /// # Errors
    ///
    /// None: it ends with `shutdown`.
    pub async fn tell_ready(
        self,
        tell: impl Fn(bool),
        shutdown: CancellationToken,
    ) -> Result<(), Infallible> {
        let telling = async {
            loop {
                let answer = tokio::time::timeout(READY_WITHIN, self.is_ready()).await;
                tell(answer.unwrap_or(false));
                tokio::time::sleep(READY_INTERVAL).await;
            }
        };
        shutdown.run_until_cancelled(telling).await;
        tell(false);
        Ok(())
    }

    /// Returns the keys with which everything is sealed that is kept; `None`: nothing is.
    #[must_use]
    pub fn seal_keys(&self) -> Option<&SealKeys> {
        self.inner.seal_keys.as_ref()
    }

    /// Seals a text for a place, if there are keys.
    #[must_use]
    pub fn seal(&self, place: &str, text: Bytes) -> Bytes {
        match self.seal_keys() {
            Some(keys) => keys.seal(place, &text),
            None => text,
        }
    }

    /// Opens what was sealed for a place. What is not sealed is returned as it is.
    ///
    /// # Errors
    ///
    /// [`OpenError::NoKey`] may pass by itself; [`OpenError::Damaged`] does not.
    pub fn open(&self, place: &str, sealed: Bytes) -> Result<Bytes, OpenError> {
        match self.seal_keys() {
            Some(keys) => keys.open(place, sealed),
            None => seal::open_without_keys(sealed),
        }
    }

    /// Opens what [`SealKeys::seal_text`] has sealed for a place; another text is returned as it is.
    ///
    /// # Errors
    ///
    /// As [`Bus::open`].
    pub fn open_text(&self, place: &str, sealed: &str) -> Result<String, OpenError> {
        match self.seal_keys() {
            Some(keys) => keys.open_text(place, sealed),
            None => seal::open_text_without_keys(sealed),
        }
    }

    /// Sends what is still to be sent and closes the connection.
    pub async fn close(&self) {
        if let Err(error) = self.client().drain().await {
            tracing::debug!(%error, "the connection to the broker was closed already");
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.inner.jetstream
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.inner.connections.clone()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn provisioning(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.provisioning
    }
}

fn options(
    config: &Config,
    names: &Names,
    connected: watch::Sender<u64>,
) -> Result<ConnectOptions, ConfigError> {
    let connected = Arc::new(connected);
    let mut options = match &config.credentials {
        Some(file) => {
            // A mistake is told now, and not at every try.
            login(file, b"").map_err(ConfigError::Credentials)?;
            let file = file.clone();
            ConnectOptions::with_auth_callback(move |nonce| {
                std::future::ready(login(&file, &nonce).map_err(AuthError::new))
            })
        }
        None => ConnectOptions::new(),
    };
    options = options
        .name("tributary")
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(10))
        .reconnect_delay_callback(|attempt| {
            let doublings = u32::try_from(attempt.min(6)).expect("at most 6");
            Duration::from_millis(50) * 2_u32.pow(doublings)
        })
        .event_callback(move |event| {
            let connected = Arc::clone(&connected);
            async move {
                match event {
                    Event::Connected => {
                        connected.send_modify(|count| *count += 1);
                        tracing::info!("connected to the broker");
                    }
                    Event::Disconnected => tracing::warn!("the connection to the broker is lost"),
                    other => tracing::warn!(event = %other, "the broker reports a disturbance"),
                }
            }
        });
    if let Some(service) = config.service {
        options = options.custom_inbox_prefix(names.inbox(service));
    }
    if let Some(file) = &config.tls_ca {
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    Ok(options)
}

/// Logs in with a file as it stands: it may be replaced at any time.
fn login(file: &Path, nonce: &[u8]) -> io::Result<Auth> {
    let text = SecretString::from(std::fs::read_to_string(file)?);
    let text = text.expose_secret().trim();
    let invalid = || {
        let reason = "it holds neither the seed of an nkey nor credentials with a JWT and a seed";
        io::Error::new(io::ErrorKind::InvalidData, reason)
    };
    let is_seed = text.starts_with("SU");
    let seed =
        if is_seed { text } else { decorated(text, "USER NKEY SEED").ok_or_else(invalid)? };
    let key = KeyPair::from_seed(seed).map_err(|_| invalid())?;
    let mut auth = Auth::new();
    if is_seed {
        auth.nkey = Some(key.public_key());
    } else {
        auth.jwt = Some(decorated(text, "NATS USER JWT").ok_or_else(invalid)?.to_owned());
    }
    auth.signature = Some(key.sign(nonce).map_err(|_| invalid())?);
    Ok(auth)
}

/// Returns what stands between the lines that begin and end a part of a credentials file.
fn decorated<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("BEGIN {part}"))?;
    let (_, rest) = rest.split_once('\n')?;
    rest.lines().next().map(str::trim)
}

/// What is needed to connect.
struct Way {
    names: Names,
    servers: Vec<ServerAddr>,
    options: ConnectOptions,
    seal_keys: Option<SealKeys>,
    connections: watch::Receiver<u64>,
}

impl Way {
    fn of(config: &Config) -> Result<Self, ConfigError> {
        let names = config.validate()?;
        let seal_keys = config.seal_keys.as_deref().map(SealKeys::read).transpose()?;
        let servers = config
            .servers
            .iter()
            .map(|server| server.parse::<ServerAddr>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ConfigError::Server(error.into()))?;
        let (connected, connections) = watch::channel(0);
        let options = options(config, &names, connected)?;
        Ok(Self { names, servers, options, seal_keys, connections })
    }
}

async fn reach(way: &Way, connections: &mut watch::Receiver<u64>) -> Client {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match way.options.clone().connect(way.servers.clone()).await {
            Ok(client) => {
                // Counted late, this connection would be taken for a new one by who uses it already.
                connections
                    .wait_for(|count| *count > 0)
                    .await
                    .expect("the client counts as long as it lives");
                return client;
            }
            Err(error) => {
                tracing::warn!(%error, "the broker cannot be reached, trying again");
                backoff.wait().await;
            }
        }
    }
}
