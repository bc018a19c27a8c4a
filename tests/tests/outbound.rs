//! Records leave to HTTP APIs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::Duration,
};

use testkit::http::{Reply, Request, Server};
use tests::{Layout, Role, Sender, System};
use tokio::time::{Instant, sleep};

const RECORDS: usize = 600;
const SECOND: Duration = Duration::from_secs(1);

/// A server that takes a while, so that it is what limits the calls.
async fn slow_api() -> Server {
    Server::start(|_, _| Reply::Slow(Duration::from_millis(20), Box::new(Reply::new(200, ""))))
        .await
}

/// Writes the records, and returns a pipeline that sends them to these URLs.
fn pipeline(system: &System, name: &str, urls: &[(&str, &str)]) -> String {
    let mut csv = "id,name\n".to_owned();
    for id in 0..RECORDS {
        writeln!(csv, "{id},n{id}").unwrap();
    }
    let path = system.folder().join(format!("{name}.csv"));
    std::fs::write(&path, csv).unwrap();
    let targets: String = urls
        .iter()
        .map(|(target, url)| {
            format!(
                "  {target}:\n    http:\n      base_url: {url}\n      allow_private: true\n      \
                 upsert: {{method: PUT, path: \"/people/{{{{ key }}}}\"}}\n"
            )
        })
        .collect();
    format!(
        "pipeline: {name}\nsource: {{csv: {{path: \"{}\"}}}}\n\
         schema: {{id: integer, name: text}}\nkey: [id]\ntargets:\n{targets}",
        path.display()
    )
}

fn calls(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| request.method == "PUT").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_that_dies_between_call_and_acknowledgement_leaves_one_effect_per_record() {
    let mut system = System::prepare(Layout::for_faults());
    system.service(Role::Loader).process.set("TRIBUTARY_CRASH_AT", "loader.written");
    system.start_roles(&Role::ALL).await;
    let api = slow_api().await;
    system.client.apply(&pipeline(&system, "people", &[("api", &api.url())])).await;
    let run = system.client.start("people").await;
    // Once with calls in flight, once with all of them made and nothing acknowledged.
    api.wait_for(|requests| calls(requests).len() >= RECORDS / 3).await;
    let process = &mut system.service(Role::Loader).process;
    process.kill().await;
    process.start().await;
    process.ended(Duration::from_secs(60)).await;
    assert!(process.log().contains("crash point `loader.written` reached"));
    process.unset("TRIBUTARY_CRASH_AT");
    process.start().await;
    let books = system.client.succeeded(&run).await.ledger.unwrap();
    assert_eq!(books.extracted, RECORDS as u64);

    let requests = api.requests();
    let mut effects: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for call in calls(&requests) {
        effects.entry(&call.path).or_default().insert(call.header("idempotency-key").unwrap());
    }
    assert_eq!(effects.len(), RECORDS);
    assert!(effects.values().all(|keys| keys.len() == 1), "an API that knows its keys acts once");
    let repeated = calls(&requests).len() - RECORDS;
    assert!(repeated <= 16, "{repeated} calls were made twice, and 8 were in flight");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_target_holds_up_no_other() {
    let system = System::start(Layout::default()).await;
    let mut dead = Server::always(200).await;
    let dead_url = dead.url();
    dead.stop().await;
    let api = Server::always(200).await;
    let urls = [("api", api.url()), ("dead", dead_url)];
    let urls = urls.each_ref().map(|(target, url)| (*target, url.as_str()));
    system.client.apply(&pipeline(&system, "people", &urls)).await;
    system.client.start("people").await;
    api.wait_for(|requests| calls(requests).len() >= RECORDS).await;
    // When it is back, it gets everything.
    dead.restart().await;
    dead.wait_for(|requests| calls(requests).len() >= RECORDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_piled_up_in_an_outage_is_sent_at_a_multiple_of_the_live_rate() {
    const LIVE: usize = 300;
    const PILED_UP: usize = 200;
    let mut system =
        System::start(Layout::default().with(Role::Extractor, "push.window", "1s")).await;
    let mut api = Server::always(200).await;
    system
        .client
        .apply(&format!(
            "pipeline: people\nsource: {{push: {{}}}}\n\
             triggers:\n  push:\n    webhook: {{verify: none, id: {{header: X-Delivery}}}}\n\
             schema: {{id: integer}}\nkey: [id]\n\
             targets:\n  api:\n    http:\n      base_url: {}\n      allow_private: true\n      \
             upsert: {{method: PUT, path: \"/people/{{{{ key }}}}\"}}\n      drain: 4\n",
            api.url()
        ))
        .await;
    let mut sender = Sender::new(vec![system.intakes[0].0], 0);
    let mut push = async |ids: std::ops::Range<usize>| {
        for id in ids {
            sender.deliver("people", &id.to_string(), &format!("{{\"id\":{id}}}")).await;
        }
    };
    push(0..LIVE).await;
    api.wait_for(|requests| calls(requests).len() >= LIVE).await;
    // The rate is that of the minute before, so this is 5 calls a second, and 20 of what piles up.
    let pace = 4.0 * LIVE as f64 / 60.0;
    api.stop().await;
    push(LIVE..LIVE + PILED_UP).await;
    let loader = system.service(Role::Loader);
    let deadline = Instant::now() + Duration::from_secs(60);
    while loader.logged("the target is away") == 0 {
        assert!(Instant::now() < deadline, "{}", loader.process.log());
        sleep(Duration::from_millis(50)).await;
    }
    // The shortest outage that is one.
    sleep(Duration::from_secs(3)).await;
    api.restart().await;
    let requests = api.wait_for(|requests| calls(requests).len() >= LIVE + PILED_UP).await;
    let sent: Vec<_> = calls(&requests)[LIVE..].iter().map(|call| call.at).collect();
    let taken = *sent.last().unwrap() - sent[0];
    let most = sent
        .iter()
        .map(|from| sent.iter().filter(|at| **at >= *from && **at < *from + SECOND).count())
        .max()
        .unwrap();
    eprintln!("{PILED_UP} calls in {taken:?}, at most {most} in a second, the pace is {pace}");
    assert!(taken.as_secs_f64() > 0.8 * PILED_UP as f64 / pace, "{taken:?}");
    // A busy machine lets calls slip a little.
    assert!((most as f64) < pace + 6.0, "{most} calls in a second");
    assert_eq!(system.service(Role::Loader).logged("calls_per_second"), 1);
}
