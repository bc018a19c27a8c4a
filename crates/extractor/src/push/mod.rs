//! Takes in what other systems push, by webhook and by gRPC.
//!
//! - A request is answered 2xx, or a record acknowledged, only after JetStream has acknowledged the
//!   message that holds it. What comes while a publish is in flight shares the next one.
//! - A request that is not believed leaves nothing behind but a count.
//! - Memory is bounded by settings: connections, bytes of bodies, waiting requests. What is more is
//!   answered 503.
//! - Pushes of a span of time belong to one run, which every process names alike. Its books are kept
//!   from what the stages tell; nobody is asked.

mod answer;
mod body;
mod config;
mod fetch;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod gather;
mod grpc;
mod hook;
mod inlet;
mod intake;
mod item;
mod metrics;
mod seen;
mod server;
mod verify;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use bus::{Bus, LedgerWriter};
use connectors::Variables;
use runtime::tls::Tls;
use stage::Pipelines;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{IngestConfig, PushConfig};
pub(crate) use fetch::fetch;

use intake::Intake;

/// Where pushes are taken in. A listener that is missing is bound as the settings say.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For webhooks.
    pub webhooks: Option<TcpListener>,
    /// For gRPC ingest.
    pub ingest: Option<TcpListener>,
}

impl Listeners {
    /// Binds what is missing and wanted.
    pub(crate) async fn bind(
        mut self,
        push: &PushConfig,
        ingest: &IngestConfig,
    ) -> anyhow::Result<Self> {
        for (listener, address, what) in [
            (&mut self.webhooks, push.listen, "push.listen"),
            (&mut self.ingest, ingest.listen, "ingest.listen"),
        ] {
            let (None, Some(address)) = (&listener, address) else { continue };
            let bound = TcpListener::bind(address).await;
            *listener =
                Some(bound.with_context(|| format!("`{what}` cannot listen on {address}"))?);
        }
        Ok(self)
    }

    fn is_empty(&self) -> bool {
        self.webhooks.is_none() && self.ingest.is_none()
    }
}

/// What a process needs to take pushes in.
pub(crate) struct Intakes {
    pub(crate) listeners: Listeners,
    pub(crate) config: PushConfig,
    /// TLS of gRPC ingest.
    pub(crate) tls: Option<Tls>,
    pub(crate) grace: Duration,
    pub(crate) bus: Bus,
    pub(crate) ledger: LedgerWriter,
    pub(crate) pipelines: Pipelines,
    pub(crate) variables: Variables,
}

impl Intakes {
    /// Serves until `shutdown`, then ends what is in hand.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        if self.listeners.is_empty() {
            shutdown.cancelled().await;
            return Ok(());
        }
        let config = Arc::new(self.config);
        let intake = Intake::new(self.bus, self.ledger, self.pipelines, self.variables, config);
        let intake = Arc::new(intake);
        let Listeners { webhooks, ingest } = self.listeners;
        let webhooks = async {
            let Some(listener) = webhooks else { return Ok(()) };
            tracing::info!(address = %listener.local_addr()?, "serving webhooks");
            server::serve(listener, Arc::clone(&intake), self.grace, shutdown.clone()).await
        };
        let ingest = async {
            let Some(listener) = ingest else { return Ok(()) };
            let (address, tls) = (listener.local_addr()?, self.tls.clone());
            tracing::info!(%address, tls = tls.is_some(), "serving gRPC ingest");
            grpc::serve(listener, tls, Arc::clone(&intake), shutdown.clone()).await
        };
        let certificates = async {
            if let Some(tls) = self.tls.clone() {
                tls.follow("ingest", shutdown.clone()).await;
            }
            Ok(())
        };
        let deliveries = async {
            intake.follow(shutdown.clone()).await;
            Ok(())
        };
        // The first that fails ends all.
        let served = futures::future::try_join4(webhooks, ingest, certificates, deliveries);
        let served = served.await.map(drop);
        intake.close().await;
        served
    }
}
