//! What a target that refuses connections takes from one beside it.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};
use testkit::http::{Reply, Request, Server};
use tests::{Layout, System};

use crate::report::median;

const RECORDS: usize = 2_000;
const ROUNDS: usize = 5;
/// So long that the target, and not this machine, is what limits the calls.
const ANSWER: Duration = Duration::from_millis(20);

#[expect(clippy::print_stdout, reason = "it is the result of the program")]
pub(crate) async fn measure() -> anyhow::Result<Value> {
    let system = System::start(Layout::default().durable()).await;
    let mut csv = "id,name\n".to_owned();
    for id in 0..RECORDS {
        writeln!(csv, "{id},n{id}")?;
    }
    std::fs::write(system.folder().join("people.csv"), csv)?;
    let mut dead = Server::always(200).await;
    let dead_url = dead.url();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        alone.push(send(&system, &format!("alone-{round}"), &[]).await);
        dead.stop().await;
        beside.push(send(&system, &format!("beside-{round}"), &[&dead_url]).await);
        // Nothing of it is left for the next round.
        dead.restart().await;
        dead.wait_for(|requests| calls(requests).len() >= RECORDS * (round + 1)).await;
    }
    let (alone, beside) = (median(alone.into_iter()), median(beside.into_iter()));
    println!(
        "{RECORDS} records to an HTTP API that answers after {} ms: {alone:.2} s alone, {beside:.2} s \
         beside a target that refuses connections ({:.1} % of the throughput)",
        ANSWER.as_millis(),
        100.0 * alone / beside
    );
    Ok(json!({
        "case": "HTTP API beside a dead target",
        "rows": RECORDS,
        "rounds": ROUNDS,
        "ours_s": beside,
        "limit_s": alone,
        "limit": "the same target alone",
        "throughput_kept": alone / beside,
    }))
}

/// Sends the records to a new API and to the others. Returns the seconds from the first call of the API
/// to its last.
async fn send(system: &System, name: &str, others: &[&str]) -> f64 {
    let api = Server::start(|_, _| Reply::Slow(ANSWER, Box::new(Reply::new(200, "")))).await;
    let url = api.url();
    let targets: String = std::iter::once(url.as_str())
        .chain(others.iter().copied())
        .enumerate()
        .map(|(index, url)| {
            format!(
                "  api{index}:\n    http:\n      base_url: {url}\n      allow_private: true\n      \
                 upsert: {{method: PUT, path: \"/people/{{{{ key }}}}\"}}\n"
            )
        })
        .collect();
    let path = system.folder().join("people.csv");
    let yaml = format!(
        "pipeline: {name}\nsource: {{csv: {{path: \"{}\"}}}}\n\
         schema: {{id: integer, name: text}}\nkey: [id]\ntargets:\n{targets}",
        path.display()
    );
    system.client.apply(&yaml).await;
    system.client.start(name).await;
    let requests = api.wait_for(|requests| calls(requests).len() >= RECORDS).await;
    let calls = calls(&requests);
    (calls[RECORDS - 1].at - calls[0].at).as_secs_f64()
}

fn calls(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| request.method == "PUT").collect()
}
