//! Webhooks that are durable before they are answered, next to a bare server that awaits one publish
//! per request; and how long an event takes until its row is written.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, ensure};
use async_nats::jetstream;
use serde_json::{Value, json};
use tests::{Layout, Sender, System};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const CONNECTIONS: usize = 64;
const SPAN: Duration = Duration::from_secs(5);
/// Events per second of the second measurement.
const RATE: u64 = 1_000;

/// Measures both and returns what `bench.json` keeps.
#[expect(clippy::print_stdout, reason = "the figures are the result")]
pub(crate) async fn measure() -> anyhow::Result<Value> {
    let system = System::start(Layout::default().durable()).await;
    system.client.apply(&pipeline(&system)).await;
    let intake = system.intakes[0].0;
    Sender::new(vec![intake], 0).deliver("events", "first", "{\"id\":0,\"sent_us\":0}").await;
    let ours = flood(intake).await?;
    let bare = flood(bare_server(&system.nats.url()).await?).await?;
    drop(system);
    let latency = event_to_row().await?;
    let (rate, bare_rate) = (ours.per_second(), bare.per_second());
    println!(
        "webhooks, {CONNECTIONS} connections, durable before 2xx: {rate:.0}/s, median {:.1} ms, 99 % \
         {:.1} ms; bare server {bare_rate:.0}/s, median {:.1} ms, 99 % {:.1} ms",
        ours.quantile(0.5),
        ours.quantile(0.99),
        bare.quantile(0.5),
        bare.quantile(0.99),
    );
    println!(
        "event to row at {RATE}/s: median {:.1} ms, 99 % {:.1} ms",
        latency.quantile(0.5),
        latency.quantile(0.99)
    );
    Ok(json!({
        "case": "webhooks, durable before 2xx",
        "connections": CONNECTIONS,
        "webhooks_per_s": rate,
        "webhook_median_ms": ours.quantile(0.5),
        "webhook_p99_ms": ours.quantile(0.99),
        "bare_per_s": bare_rate,
        "bare_median_ms": bare.quantile(0.5),
        "bare_p99_ms": bare.quantile(0.99),
        "event_to_row_rate_per_s": RATE,
        "event_to_row_median_ms": latency.quantile(0.5),
        "event_to_row_p99_ms": latency.quantile(0.99),
    }))
}

/// Times in milliseconds, sorted.
struct Times {
    sorted: Vec<f64>,
    seconds: f64,
}

impl Times {
    fn new(mut times: Vec<f64>, seconds: f64) -> Self {
        times.sort_by(f64::total_cmp);
        Self { sorted: times, seconds }
    }

    fn per_second(&self) -> f64 {
        u32::try_from(self.sorted.len()).map_or(f64::INFINITY, f64::from) / self.seconds
    }

    fn quantile(&self, share: f64) -> f64 {
        let last = u32::try_from(self.sorted.len().saturating_sub(1)).map_or(0.0, f64::from);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index within the list"
        )]
        let index = (last * share).round() as usize;
        self.sorted.get(index).copied().unwrap_or(f64::NAN)
    }
}

fn pipeline(system: &System) -> String {
    format!(
        "pipeline: events\nsource: {{push: {{}}}}\n\
         triggers: {{push: {{webhook: {{verify: none, id: {{header: X-Delivery}}}}}}}}\n\
         schema: {{id: integer, sent_us: integer, name: text, email: text, city: text}}\nkey: [id]\n\
         targets: {{store: {{postgres: {{url: \"{}\", table: events}}}}}}\n",
        system.target
    )
}

fn body(id: u64, sent_us: u64) -> String {
    format!(
        "{{\"id\":{id},\"sent_us\":{sent_us},\"name\":\"Ada Lovelace\",\
         \"email\":\"ada{id}@mail.example\",\"city\":\"London\"}}"
    )
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Every connection sends the next request as soon as the last one is answered.
async fn flood(address: SocketAddr) -> anyhow::Result<Times> {
    let begun = Instant::now();
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS as u64 {
        connections.spawn(async move {
            let mut sender = Sender::new(vec![address], 0);
            let mut times = Vec::new();
            for number in 0_u64.. {
                let id = 1 + connection * 10_000_000 + number;
                let sent = Instant::now();
                let status = sender.post("events", &format!("{id}"), &body(id, 0)).await;
                ensure!(status == Some(200), "a request is answered {status:?}");
                times.push(sent.elapsed().as_secs_f64() * 1e3);
                if begun.elapsed() > SPAN {
                    break;
                }
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(connection) = connections.join_next().await {
        times.extend(connection??);
    }
    Ok(Times::new(times, begun.elapsed().as_secs_f64()))
}

/// A server that publishes every request by itself and answers when that is acknowledged.
async fn bare_server(nats: &str) -> anyhow::Result<SocketAddr> {
    let jetstream = jetstream::new(async_nats::connect(nats).await?);
    let config = jetstream::stream::Config {
        name: "BARE".to_owned(),
        subjects: vec!["bare".to_owned()],
        ..jetstream::stream::Config::default()
    };
    jetstream.create_stream(config).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, jetstream.clone()));
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, jetstream: jetstream::Context) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = vec![0; 4096];
    loop {
        let mut length = 0;
        let body = loop {
            let read = stream.read(&mut buffer[length..]).await.ok().filter(|read| *read > 0)?;
            length += read;
            let text = std::str::from_utf8(&buffer[..length]).ok()?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let expected = head.split_once("content-length: ")?.1.lines().next()?;
            if body.len() >= expected.parse::<usize>().ok()? {
                break body.to_owned();
            }
        };
        jetstream.publish("bare", body.into()).await.ok()?.await.ok()?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()?;
    }
}

/// Sends events at a steady rate and compares when each was sent with when its row was written.
async fn event_to_row() -> anyhow::Result<Times> {
    let system = System::start(Layout::default().durable()).await;
    system.client.apply(&pipeline(&system)).await;
    let intake = system.intakes[0].0;
    Sender::new(vec![intake], 0).deliver("events", "first", &body(0, 0)).await;
    until(&system, 1).await?;
    system.sql("alter table events add column arrived timestamptz default clock_timestamp()");
    let begun = Instant::now();
    let senders = 20_u64;
    let total = RATE * SPAN.as_secs();
    let mut tasks = JoinSet::new();
    for sender in 0..senders {
        tasks.spawn(async move {
            let mut client = Sender::new(vec![intake], 0);
            let mut number = sender;
            while number < total {
                let due = begun + Duration::from_micros(number * 1_000_000 / RATE);
                tokio::time::sleep_until(due.into()).await;
                let id = number + 1;
                client.deliver("events", &format!("{id}"), &body(id, now_us())).await;
                number += senders;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task?;
    }
    until(&system, total + 1).await?;
    let times = system.sql(
        "select (extract(epoch from arrived) * 1000000 - sent_us) / 1000 from events where id > 0",
    );
    let times: Result<Vec<f64>, _> = times.lines().map(str::parse).collect();
    Ok(Times::new(times.context("times are numbers")?, SPAN.as_secs_f64()))
}

async fn until(system: &System, rows: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let table = "select count(*) from pg_tables where tablename = 'events'";
    loop {
        if system.sql(table) == "1" && system.sql("select count(*) from events") == rows.to_string()
        {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the events do not arrive");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
