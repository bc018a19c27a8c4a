//! How long 200 pages of 500 records take, next to a client that only reads them and `psql` that only
//! copies them.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testkit::http::{Reply, Server};
use tests::{Layout, System};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{limit::Psql, report::median};

const PAGES: usize = 200;
const RECORDS: usize = 500;
const ROUNDS: usize = 3;

/// Returns what the API answers, and the same records as CSV.
fn pages() -> (Vec<String>, String) {
    let mut csv = String::new();
    let pages = (0..PAGES).map(|page| {
        let mut text = "{\"orders\":[".to_owned();
        for index in 0..RECORDS {
            let id = page * RECORDS + index + 1;
            let comma = if index == 0 { "" } else { "," };
            let (customer, total) = (format!("c{:05}", id % 23_570), format!("{}.{:02}", id % 500, id % 100));
            write!(
                text,
                "{comma}{{\"id\":{id},\"customer\":\"{customer}\",\"city\":\"London\",\"total\":{total}}}"
            )
            .expect("a text can be written to");
            writeln!(csv, "{id},{customer},London,{total}").expect("a text can be written to");
        }
        let next = if page + 1 < PAGES { format!("{}", page + 1) } else { "null".to_owned() };
        write!(text, "],\"next\":{next}}}").expect("a text can be written to");
        text
    });
    (pages.collect(), csv)
}

#[expect(clippy::print_stdout, reason = "it is the result of the program")]
pub(crate) async fn measure() -> anyhow::Result<Value> {
    let (pages, csv) = pages();
    let bytes: usize = pages.iter().map(String::len).sum();
    let api = Server::start(move |request, _| {
        let page = request.path.rsplit_once("page=").and_then(|(_, page)| page.parse().ok());
        let page: usize = page.unwrap_or(0);
        Reply::new(200, pages[page].clone()).with("content-type", "application/json")
    })
    .await;
    let system = System::start(Layout::default().durable()).await;
    let file = system.folder().join("orders.csv");
    std::fs::write(&file, csv)?;
    let table = "(id bigint primary key, customer text, city text, total numeric(12,2))";
    let psql = Psql::new();
    let (mut ours, mut reading, mut copying) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("polled-{round}");
        let yaml = format!(
            "pipeline: {name}\n\
             source:\n  http:\n    base_url: {}\n    allow_private: true\n    path: /orders\n    \
             records: orders\n    key: [id]\n    paginate: {{cursor: {{body: next, param: page}}}}\n\
             schema: {{id: integer, customer: text, city: text, total: \"decimal(12,2)\"}}\n\
             key: [id]\n\
             targets:\n  store:\n    postgres: {{url: \"{}\", table: polled_{round}}}\n",
            api.url(),
            system.target
        );
        system.client.apply(&yaml).await;
        let begun = Instant::now();
        let run = system.client.start(&name).await;
        system.client.succeeded(&run).await;
        ours.push(begun.elapsed().as_secs_f64());
        let rows = system.sql(&format!("select count(*) from polled_{round}"));
        ensure!(rows == (PAGES * RECORDS).to_string(), "{rows} rows arrived");

        reading.push(read_all(&api).await?.as_secs_f64());
        system.sql(&format!("create table copied_{round} {table}"));
        let begun = Instant::now();
        let copy = format!("\\copy copied_{round} from '{}' with (format csv)", file.display());
        psql.run(&system.target, &[&copy])?;
        copying.push(begun.elapsed().as_secs_f64());
    }
    let (ours, reading, copying) =
        (median(ours.into_iter()), median(reading.into_iter()), median(copying.into_iter()));
    println!(
        "polling {PAGES} pages of {RECORDS} into PostgreSQL: {ours:.2} s; reading them alone \
         {reading:.3} s, and psql \\copy {copying:.2} s"
    );
    Ok(json!({
        "case": "polling 200 pages of 500",
        "rows": PAGES * RECORDS,
        "received_bytes": bytes,
        "ours_s": ours,
        "limit_s": reading + copying,
        "limit": "read the pages one after the other, psql \\copy",
        "ratio": ours / (reading + copying),
    }))
}

/// Reads all pages one after the other over one connection, and does nothing with them.
async fn read_all(api: &Server) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(api.address()).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 1 << 20];
    for page in 0..PAGES {
        let request = format!("GET /orders?page={page} HTTP/1.1\r\nhost: bench\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut length = 0;
        loop {
            let read = stream.read(&mut buffer[length..]).await?;
            ensure!(read > 0, "the server hung up");
            length += read;
            let text = String::from_utf8_lossy(&buffer[..length]);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let expected = head.to_lowercase();
            let expected = expected.split_once("content-length: ").context("a length")?.1;
            let expected: usize = expected.lines().next().unwrap_or_default().trim().parse()?;
            if body.len() >= expected {
                break;
            }
        }
    }
    Ok(begun.elapsed())
}
