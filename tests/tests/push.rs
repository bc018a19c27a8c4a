//! Records come by webhook: every one that was answered 2xx arrives, whatever dies on the way, and the
//! books of the runs that account for them balance.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use testkit::http::{Reply, Server};
use tests::{Layout, Role, Seed, Sender, System};
use tokio::{task::JoinSet, time::Instant};
use wire::control::{Run, RunState};

const PATIENCE: Duration = Duration::from_secs(90);
const VARIABLE: &str = "TRIBUTARY_CRASH_AT";
const SENDERS: u64 = 16;

fn layout() -> Layout {
    Layout::for_faults().with(Role::Extractor, "push.window", "3s")
}

fn pipeline(system: &System) -> String {
    format!(
        "pipeline: events\n\
         source: {{push: {{}}}}\n\
         triggers:\n  push:\n    webhook: {{verify: none, id: {{header: X-Delivery}}}}\n\
         schema: {{id: integer, step: integer, name: text}}\n\
         key: [id]\n\
         newest_by: step\n\
         targets:\n  store:\n    postgres: {{url: \"{}\", table: events}}\n",
        system.target
    )
}

/// Senders that deliver `each` events, until all are answered 2xx.
fn deliver(system: &System, each: u64, taken: &Arc<AtomicU64>) -> JoinSet<()> {
    let addresses: Vec<_> = system.intakes.iter().map(|(webhooks, _)| *webhooks).collect();
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (addresses, taken) = (addresses.clone(), Arc::clone(taken));
        senders.spawn(async move {
            let turn = usize::try_from(sender).unwrap();
            let mut client = Sender::new(addresses, turn);
            for number in 0..each {
                let id = sender * each + number;
                let body = format!("{{\"id\":{id},\"step\":1,\"name\":\"n{id}\"}}");
                client.deliver("events", &format!("d{id}"), &body).await;
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    senders
}

async fn finished(mut senders: JoinSet<()>) {
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
}

/// Waits until all runs of pushes have succeeded, and returns them.
async fn settled(system: &System) -> Vec<Run> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let runs = system.client.latest("events").await;
        if !runs.is_empty() && runs.iter().all(|run| run.state() == RunState::Succeeded) {
            return runs;
        }
        assert!(Instant::now() < deadline, "waited too long for {runs:#?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Asserts that everything that was taken is there and in the books, which balance.
async fn complete(system: &System, events: u64, counted_twice: u64) {
    let runs = settled(system).await;
    let mut extracted = 0;
    for run in &runs {
        tests::assert_balanced(run);
        extracted += run.ledger.as_ref().unwrap().extracted;
    }
    assert_eq!(system.sql("select count(*) from events"), events.to_string());
    assert!(
        (events..=events + counted_twice).contains(&extracted),
        "{extracted} records in the books of {events}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_to_two_extractors_arrives_once() {
    let system = System::start(layout().with_replicas(2)).await;
    system.client.apply(&pipeline(&system)).await;
    let taken = Arc::new(AtomicU64::new(0));
    finished(deliver(&system, 200, &taken)).await;
    // Every delivery once more, to whichever extractor.
    finished(deliver(&system, 200, &taken)).await;
    // An extractor hears of what another one took a moment later.
    complete(&system, SENDERS * 200, SENDERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_may_die_at_every_step() {
    let points =
        ["intake.received:40", "intake.published:5", "intake.answered:9", "intake.ledgered:6"];
    dies(Role::Extractor, &points).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stages_behind_an_intake_may_die_at_every_step() {
    let points = ["transformer.published:4", "transformer.ledgered:5"];
    dies(Role::Transformer, &points).await;
    let points = ["loader.written:2", "loader.ledgered:2"];
    dies(Role::Loader, &points).await;
    dies(Role::Scheduler, &["scheduler.recorded:3", "scheduler.recorded:5"]).await;
}

async fn dies(role: Role, points: &[&str]) {
    let mut system = System::prepare(layout());
    system.service(role).process.set(VARIABLE, points[0]);
    system.start_roles(&Role::ALL).await;
    system.client.apply(&pipeline(&system)).await;
    let taken = Arc::new(AtomicU64::new(0));
    let senders = deliver(&system, 400, &taken);
    for (index, point) in points.iter().enumerate() {
        let process = &mut system.service(role).process;
        let status = process.ended(PATIENCE).await;
        let name = point.split(':').next().expect("a name");
        let said = format!("crash point `{name}` reached");
        assert!(process.log().contains(&said) && status.contains("signal"), "{status}");
        match points.get(index + 1) {
            Some(next) => process.set(VARIABLE, next),
            None => process.unset(VARIABLE),
        }
        process.start().await;
    }
    finished(senders).await;
    assert_eq!(taken.load(Ordering::Relaxed), SENDERS * 400);
    // What was safe when an intake died was not answered, and is sent again.
    let again = if role == Role::Extractor { points.len() as u64 * SENDERS } else { 0 };
    complete(&system, SENDERS * 400, again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_pushes_that_come_late_change_nothing() {
    let system = System::start(layout()).await;
    system.client.apply(&pipeline(&system)).await;
    let addresses: Vec<_> = system.intakes.iter().map(|(webhooks, _)| *webhooks).collect();
    let mut sender = Sender::new(addresses, 0);
    // Ten steps of fifty records, each step of a record at another time.
    for round in 0..10 {
        for id in 0..50 {
            let step = (round * 7 + id) % 10;
            let body = format!("{{\"id\":{id},\"step\":{step},\"name\":\"step {step}\"}}");
            sender.deliver("events", &format!("{id}.{step}"), &body).await;
        }
    }
    complete_with(&system, 500).await;
    let newest = "select count(*) from events where step = 9 and name = 'step 9'";
    assert_eq!(system.sql(newest), "50");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_count_field_by_field_in_whatever_order_they_come() {
    const CUSTOMERS: u64 = 50;
    let system = System::start(layout().with_replicas(2)).await;
    let patched =
        "id: {header: X-Delivery}, operation: {field: kind, upsert: [new], patch: [changed]}";
    let yaml = pipeline(&system)
        .replace("id: {header: X-Delivery}", patched)
        .replace("name: text}", "name: text, mail: text, city: text, kind: text}");
    system.client.apply(&yaml).await;
    let addresses: Vec<_> = system.intakes.iter().map(|(webhooks, _)| *webhooks).collect();
    let mut seed = Seed::of_test("patches in any order");
    let mut deliveries = Vec::new();
    for id in 0..CUSTOMERS {
        let mut add = |step: u64, kind: &str, fields: &str| {
            let body = format!("{{\"id\":{id},\"step\":{step},\"kind\":\"{kind}\",{fields}}}");
            deliveries.push((seed.number(), format!("{id}.{step}"), body));
        };
        add(1, "new", "\"name\":\"n1\",\"mail\":\"m1\",\"city\":\"c1\"");
        add(2, "changed", "\"mail\":\"m2\"");
        add(3, "changed", "\"city\":\"c3\"");
        add(4, "changed", "\"mail\":\"m4\"");
    }
    deliveries.sort();
    let mut senders = [Sender::new(addresses.clone(), 0), Sender::new(addresses, 1)];
    for (index, (_, id, body)) in deliveries.iter().enumerate() {
        senders[index % 2].deliver("events", id, body).await;
    }
    complete_with(&system, 4 * CUSTOMERS).await;
    let right = "select count(*) from events \
                 where step = 4 and name = 'n1' and mail = 'm4' and city = 'c3'";
    assert_eq!(system.sql(right), CUSTOMERS.to_string());
}

async fn complete_with(system: &System, extracted: u64) {
    let runs = settled(system).await;
    let books = runs.iter().map(|run| run.ledger.as_ref().unwrap());
    assert_eq!(books.map(|books| books.extracted).sum::<u64>(), extracted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_and_read_arrives_once_in_effect() {
    let system = System::start(layout()).await;
    let file = system.folder().join("events.csv");
    let rows: String = (0..100).map(|id| format!("{id},1,read\n")).collect();
    std::fs::write(file, format!("id,step,name\n{rows}")).unwrap();
    let both = pipeline(&system).replace("{push: {}}", "{csv: {path: events.csv}}");
    system.client.apply(&both).await;
    let addresses: Vec<_> = system.intakes.iter().map(|(webhooks, _)| *webhooks).collect();
    let mut sender = Sender::new(addresses, 0);
    for id in 0..20 {
        // Some as they are in the file, some newer, and one that only the push knows.
        let (id, step) = if id == 19 { (1000, 1) } else { (id, 1 + id % 2) };
        let name = if step == 1 { "read" } else { "pushed" };
        let body = format!("{{\"id\":{id},\"step\":{step},\"name\":\"{name}\"}}");
        sender.deliver("events", &format!("{id}.{step}"), &body).await;
    }
    let run = system.client.start("events").await;
    let run = system.client.succeeded(&run).await;
    assert_eq!(run.ledger.unwrap().extracted, 100);
    let runs = settled(&system).await;
    assert!(runs.len() >= 2, "pushes have runs of their own");
    assert_eq!(system.sql("select count(*) from events"), "101");
    assert_eq!(system.sql("select count(*) from events where name = 'pushed' and step = 2"), "9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hinted_objects_are_fetched_and_a_poll_finds_what_was_never_hinted() {
    let json = |text: String| Reply::new(200, text).with("content-type", "application/json");
    let shop = Server::start(move |request, _| {
        let event = |id: u64| format!("{{\"id\":{id},\"step\":1,\"name\":\"n{id}\"}}");
        match request.path.strip_prefix("/events/").map(str::parse::<u64>) {
            // The last one is gone by the time somebody asks for it.
            Some(Ok(id)) if id < 30 => json(event(id)),
            Some(_) => Reply::new(404, ""),
            None => {
                let all: Vec<_> = (0..30).map(event).collect();
                json(format!("[{}]", all.join(",")))
            }
        }
    })
    .await;
    let system = System::start(layout()).await;
    let source = format!(
        "{{http: {{base_url: \"{}\", allow_private: true, path: /events, key: [id], \
         fetch: {{path: \"/events/{{{{ id }}}}\"}}}}}}",
        shop.url()
    );
    let yaml = pipeline(&system)
        .replace("{push: {}}", &source)
        .replace("id: {header: X-Delivery}", "id: {header: X-Delivery}, hint: {field: id}");
    system.client.apply(&yaml).await;
    let addresses: Vec<_> = system.intakes.iter().map(|(webhooks, _)| *webhooks).collect();
    let mut sender = Sender::new(addresses, 0);
    for id in (0..20).chain([99]) {
        sender.deliver("events", &format!("d{id}"), &format!("{{\"id\":{id}}}")).await;
    }
    let asked = |path: &str| shop.requests().iter().any(|request| request.path == path);
    let deadline = Instant::now() + PATIENCE;
    while system.client.latest("events").await.is_empty() || !asked("/events/99") {
        assert!(Instant::now() < deadline, "the hints are not followed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    settled(&system).await;
    assert!(!asked("/events") && !asked("/events/25"), "nothing but what was hinted is read");
    assert_eq!(system.sql("select count(*) from events where name = 'n' || id"), "20");
    let run = system.client.start("events").await;
    let run = system.client.succeeded(&run).await;
    assert_eq!(run.ledger.unwrap().extracted, 30);
    let found = system.sql("select count(*), count(distinct id), max(id) from events");
    assert_eq!(found, "30|30|29");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushed_records_that_stop_a_stage_are_set_aside_and_can_be_replayed() {
    let system = System::start(layout()).await;
    let frozen = format!("{}contract: {{columns: freeze}}\n", pipeline(&system));
    system.client.apply(&frozen).await;
    let addresses: Vec<_> = system.intakes.iter().map(|(webhooks, _)| *webhooks).collect();
    let mut sender = Sender::new(addresses, 0);
    sender.deliver("events", "a", "{\"id\":1,\"step\":1,\"name\":\"a\"}").await;
    settled(&system).await;
    sender.deliver("events", "b", "{\"id\":2,\"step\":1,\"surprise\":1}").await;
    let deadline = Instant::now() + PATIENCE;
    while system.client.quarantined("events").await.is_empty() {
        assert!(Instant::now() < deadline, "nothing is set aside");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    settled(&system).await;
    assert_eq!(system.sql("select count(*) from events"), "1");
    system.client.apply(&pipeline(&system)).await;
    for run in system.client.replay("events").await {
        system.client.succeeded(&run).await;
    }
    assert_eq!(system.sql("select count(*) from events"), "2");
}
