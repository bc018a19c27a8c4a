use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;
use runtime::tls::TlsConfig;
use serde::{Deserialize, Serialize};

use crate::InvalidConfig;

/// How pushes are taken in. Durations are written as `10s`, sizes as `64MiB`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushConfig {
    /// Address of the webhook server, such as `0.0.0.0:7010`. Default: none, webhooks are not
    /// served; `tributary up` takes a free port of this machine and tells it.
    pub listen: Option<SocketAddr>,
    /// Connections at the same time, 1 to 65536; further ones are answered 503. Default 1024.
    pub connections: usize,
    /// How long the head of a request may take, and how long a connection may rest. Default `10s`.
    #[serde(with = "runtime::config::duration")]
    pub header_timeout: Duration,
    /// How long the body of a request may take. Default `20s`.
    #[serde(with = "runtime::config::duration")]
    pub body_timeout: Duration,
    /// How long the broker may take before a request is answered 503. Default `5s`.
    #[serde(with = "runtime::config::duration")]
    pub patience: Duration,
    /// What a sender is told to wait after a 503. Default `5s`.
    #[serde(with = "runtime::config::duration")]
    pub retry_after: Duration,
    /// Bytes of bodies that are held at the same time, at least `64MiB`, which is the largest body
    /// that a pipeline may allow; further requests are answered 503. Default `128MiB`.
    #[serde(with = "runtime::config::size")]
    pub memory: usize,
    /// Requests that share a message at most, 1 to 4096. Default 256.
    pub group_requests: usize,
    /// How long a request may wait for others to share its message with, up to `1s`; the first one after
    /// so long a rest does not wait at all, and nobody waits when all who are connected do. Default
    /// `5ms`.
    #[serde(with = "runtime::config::duration")]
    pub group_wait: Duration,
    /// Delivery ids that are remembered, at least 1000; each takes about 40 bytes. Default 1000000.
    pub remembered_ids: usize,
    /// The span of time that a run of pushes accounts for, `1s` to `1d`. All extractors have to agree
    /// on it. Default `1m`.
    #[serde(with = "runtime::config::duration")]
    pub window: Duration,
    /// Networks of proxies that are believed what they write into `X-Forwarded-For`. Default: none.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            listen: None,
            connections: 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            patience: Duration::from_secs(5),
            retry_after: Duration::from_secs(5),
            memory: 128 * 1024 * 1024,
            group_requests: 256,
            group_wait: Duration::from_millis(5),
            remembered_ids: 1_000_000,
            window: Duration::from_secs(60),
            trusted_proxies: Vec::new(),
        }
    }
}

impl PushConfig {
    pub(crate) fn validate(&self) -> Result<(), InvalidConfig> {
        const MIB: usize = 1024 * 1024;
        let ranges = [
            ("push.connections", self.connections, 1, 65_536),
            ("push.memory", self.memory, 64 * MIB, 1024 * 1024 * MIB),
            ("push.group_requests", self.group_requests, 1, 4_096),
            ("push.group_wait (in milliseconds)", milliseconds(self.group_wait), 0, 1_000),
            ("push.remembered_ids", self.remembered_ids, 1_000, 100_000_000),
        ];
        for (key, found, least, most) in ranges {
            if !(least..=most).contains(&found) {
                return Err(InvalidConfig::Range { key, found, least, most });
            }
        }
        let seconds = usize::try_from(self.window.as_secs()).unwrap_or(usize::MAX);
        if !(1..=86_400).contains(&seconds) || self.window.subsec_nanos() != 0 {
            let (key, least, most) = ("push.window (in whole seconds)", 1, 86_400);
            return Err(InvalidConfig::Range { key, found: seconds, least, most });
        }
        Ok(())
    }

    /// Length of a window in milliseconds.
    pub(crate) fn window_ms(&self) -> i64 {
        i64::try_from(self.window.as_millis()).expect("a window is at most a day")
    }
}

fn milliseconds(duration: Duration) -> usize {
    usize::try_from(duration.as_millis()).unwrap_or(usize::MAX)
}

/// How gRPC ingest is served.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Address of the gRPC server, such as `0.0.0.0:7011`. Default: none, gRPC ingest is not served;
    /// `tributary up` takes a free port of this machine and tells it.
    pub listen: Option<SocketAddr>,
    /// TLS of the gRPC server. Default: none.
    pub tls: Option<TlsConfig>,
}
