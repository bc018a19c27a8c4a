//! An extractor that takes pushes, with what it needs, and requests to it.

use std::{collections::HashMap, io::Write, time::Duration};

use bus::{Bucket, Bus, Consumer, ConsumerOptions, Queue};
use extractor::Listeners;
use model::{Batch, PipelineName};
use testkit::nats::Nats;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use wire::{
    Message,
    ledger::{LedgerEntries, LedgerEntry},
};

use crate::stage::within;

/// A broker, a pipeline that takes pushes, and an extractor.
pub(crate) struct Intake {
    pub(crate) bus: Bus,
    pub(crate) raw: Consumer,
    pub(crate) ledger: Consumer,
    pub(crate) config: extractor::Config,
    pub(crate) never: CancellationToken,
    pub(crate) nats: Nats,
}

/// A running extractor.
pub(crate) struct Running {
    pub(crate) webhooks: u16,
    pub(crate) ingest: u16,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Intake {
    pub(crate) async fn new(push: &str) -> Self {
        Self::with(push, |_| {}).await
    }

    pub(crate) async fn with(push: &str, change: impl FnOnce(&mut extractor::Config)) -> Self {
        let nats = Nats::start();
        let bus_config = bus::Config {
            servers: vec![nats.url()],
            ack_wait: Duration::from_secs(2),
            ..bus::Config::default()
        };
        let mut config = extractor::Config { bus: bus_config, ..extractor::Config::default() };
        config.shutdown_grace = Duration::from_secs(2);
        config.push.patience = Duration::from_secs(1);
        change(&mut config);
        let never = CancellationToken::new();
        let bus = Bus::connect(&config.bus, &never).await.unwrap();
        bus.provision().await.unwrap();
        let pipeline: PipelineName = "shop".parse().unwrap();
        let yaml = format!(
            "pipeline: shop\nsource: {{push: {{}}}}\ntriggers:\n  push: {push}\n\
             schema: {{id: integer, name: text}}\nkey: [id]\n\
             targets: {{store: {{sqlite: {{path: store.db, table: t}}}}}}\n"
        );
        let schema = spec::parse("shop.yaml", &yaml).unwrap().schema;
        let stored = spec::Revision { name: pipeline.clone(), revision: 1, yaml, schema };
        let value = serde_json::to_vec(&stored).unwrap();
        bus.key_value(Bucket::Pipelines).put("shop", value).await.unwrap();
        let consumer = |queue| bus.consumer(ConsumerOptions::new(queue));
        Self {
            raw: consumer(Queue::Raw { pipeline }),
            ledger: consumer(Queue::Ledger),
            bus,
            config,
            never,
            nats,
        }
    }

    pub(crate) async fn start(&self) -> Running {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let (webhooks, ingest) = (bind().await.unwrap(), bind().await.unwrap());
        let ports = (webhooks.local_addr().unwrap().port(), ingest.local_addr().unwrap().port());
        let listeners = Listeners { webhooks: Some(webhooks), ingest: Some(ingest) };
        let shutdown = CancellationToken::new();
        let task =
            tokio::spawn(extractor::run_on(listeners, self.config.clone(), shutdown.clone()));
        let running = Running { webhooks: ports.0, ingest: ports.1, shutdown, task };
        // The pipeline is known when a method that is not allowed is not simply not found.
        while running.request("GET", "/hooks/shop", &[], b"").await.status != 405 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running
    }

    /// Returns the next batch.
    pub(crate) async fn batch(&mut self) -> Batch {
        let delivery = within(self.raw.next(&self.never)).await.unwrap();
        let batch = wire::decode(delivery.payload().unwrap()).unwrap();
        delivery.ack().await.unwrap();
        batch
    }

    pub(crate) async fn ledger(&mut self) -> Vec<LedgerEntry> {
        let delivery = within(self.ledger.next(&self.never)).await.unwrap();
        let entries = LedgerEntries::decode(delivery.payload().unwrap()).unwrap();
        delivery.ack().await.unwrap();
        entries.entries
    }

    pub(crate) async fn stored(&self) -> u64 {
        self.bus.pending(&"shop".parse().unwrap()).await.unwrap().raw
    }
}

impl Running {
    pub(crate) async fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.request("POST", "/hooks/shop", headers, body).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n");
        text.push_str(&format!("content-length: {}\r\nconnection: close\r\n", body.len()));
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", self.webhooks)).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        // What is refused by its head may be closed before the body is read.
        stream.write_all(body).await.ok();
        read_answer(stream).await
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        within(self.task).await.unwrap().unwrap();
    }
}

pub(crate) async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.ok();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer {
        status: status.map_or(0, |code| code.parse().unwrap()),
        headers,
        body: body.to_owned(),
    }
}

/// A secret in a file, as `${file:…}`.
pub(crate) struct Secret {
    pub(crate) reference: String,
    _file: tempfile::NamedTempFile,
}

pub(crate) fn secret(text: &str) -> Secret {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Secret { reference: format!("\"${{file:{}}}\"", file.path().display()), _file: file }
}
