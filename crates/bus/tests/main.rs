//! The bus against a real nats-server.
#![allow(clippy::unwrap_used, reason = "a test may end where it does not find what it expects")]

mod cluster;
mod connecting;
mod consuming;
mod faults;
mod inspecting;
mod permissions;
mod publishing;
mod questions;
mod quotas;
mod sealing;
mod state;

use std::time::Duration;

use bus::{Bus, Config, Consumer, ConsumerOptions, Delivery, Outgoing, Queue};
use bytes::Bytes;
use model::PipelineName;
use testkit::nats::Nats;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of the test's own and a way to it.
struct Broker {
    server: Nats,
    bus: Bus,
    shutdown: CancellationToken,
}

impl Broker {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let server = Nats::start();
        let mut config = Config { servers: vec![server.url()], ..Config::default() };
        change(&mut config);
        let shutdown = CancellationToken::new();
        let bus = Bus::connect(&config, &shutdown).await.unwrap();
        bus.provision().await.unwrap();
        Self { server, bus, shutdown }
    }

    fn consumer(&self, queue: Queue) -> Consumer {
        self.bus.consumer(ConsumerOptions::new(queue))
    }

    fn raw(&self, payload: impl Into<Bytes>) -> Outgoing {
        Outgoing::new(self.bus.names().raw(&shop()), payload.into())
    }

    async fn next(&self, consumer: &mut Consumer) -> Delivery {
        within(consumer.next(&self.shutdown)).await.unwrap()
    }

    /// Tells that nothing more is delivered for a moment.
    async fn assert_nothing_comes(&self, consumer: &mut Consumer) {
        let next = tokio::time::timeout(Duration::from_millis(500), consumer.next(&self.shutdown));
        assert!(next.await.is_err());
    }
}

fn shop() -> PipelineName {
    "shop".parse().unwrap()
}

fn raw_queue() -> Queue {
    Queue::Raw { pipeline: shop() }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes less than a minute")
}
