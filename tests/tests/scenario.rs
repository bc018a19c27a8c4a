//! The tenth order brings a coupon: a shop, Tributary, and an e-mail provider with a strict quota.
//! CDNOW's purchases come by polling, by webhooks, by a nightly batch, and by webhooks of which some
//! are lost together with polling. Each way the provider sends one coupon to each customer with ten orders
//! and is never called over its quota, while services are killed.

use std::{fmt::Write, time::Duration};

use serde_json::json;
use tests::{History, Layout, Peer, Report, Role, System};
use tokio::time::{Instant, sleep};

/// The provider's quota: calls in any window of so many seconds.
const CALLS: u32 = 60;
const SECONDS: u32 = 1;

/// How long the last coupon may take, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Secret of the shop's webhooks.
const SECRET: &str = "whsec_c2hvcC1zZWNyZXQtb2YtdGhlLXN0b3J5LTAxMjM0NTY=";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_brings_each_coupon_on_the_tenth_order() {
    let mut story =
        Story::begin(&|shop, store| orders(&polled(shop), "triggers: {every: 1s}", store)).await;
    // Orders come to light in steps. After each, exactly those have a coupon who have ten orders.
    let mut before = 0;
    for released in [20_000, 45_000, story.history.len()] {
        story.shop.release(released - before).await;
        if before == 0 {
            story.kill_one_of_each(Duration::from_millis(700)).await;
        } else {
            let faults = json!({"statuses": [500, "hang up", "sent, hang up", 503]});
            story.provider.post("/admin/faults", &faults).await;
        }
        story.until_coupons(released).await;
        before = released;
    }
    let repeats = story.provider.report().await.repeats;
    assert!(repeats > 0, "a call whose answer was lost is repeated under its key");
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_bring_each_coupon_through_kills_and_repetitions() {
    let trigger = push_trigger("");
    let mut story = Story::begin(&|_, store| orders("push: {}", &trigger, store)).await;
    story.send_webhooks(json!({"repeat_percent": 2})).await;
    story.kill_each_while_pushing().await;
    story.until_coupons(story.history.len()).await;
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nightly_batch_brings_each_coupon() {
    let mut story = Story::begin(&|_, store| {
        orders("csv: {path: \"orders.csv\"}", "triggers: {every: 1h}", store)
    })
    .await;
    story.kill_one_of_each(Duration::from_millis(700)).await;
    story.until_coupons(story.history.len()).await;
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_finds_what_webhooks_lost() {
    let trigger = push_trigger("every: 2s, ");
    let mut story = Story::begin(&|shop, store| orders(&polled(shop), &trigger, store)).await;
    story.send_webhooks(json!({"lose_percent": 5})).await;
    story.kill_each_while_pushing().await;
    let lost = story.shop.get("/admin/push").await["lost"].as_u64().unwrap();
    assert!(lost > 3_000, "about 5 % of the webhooks are lost, not {lost}");
    story.until_coupons(story.history.len()).await;
    story.ends().await;
}

/// The shop's API as a source.
fn polled(shop: &str) -> String {
    format!(
        "http:\n    base_url: \"{shop}\"\n    allow_private: true\n    path: /orders\n    \
         query: {{limit: \"1000\"}}\n    records: orders\n    key: [number]\n    \
         paginate: {{last_key: {{field: number, param: after}}, more: more}}\n    \
         incremental: {{field: number, type: number, param: after, start: 0}}"
    )
}

fn push_trigger(more: &str) -> String {
    format!(
        "triggers: {{{more}push: {{webhook: {{verify: {{standard_webhooks: \
         {{secrets: [\"${{env:SHOP_SECRET}}\"]}}}}, records: data}}}}}}"
    )
}

/// The pipeline that brings the orders into the store.
fn orders(source: &str, triggers: &str, store: &str) -> String {
    format!(
        "pipeline: orders\nsource:\n  {source}\n{triggers}\n\
         schema:\n  number: integer\n  customer: {{type: text, required: true}}\n  \
         ordered_on: date\n  cds: integer\n  dollars: \"decimal(12,2)\"\n\
         key: [number]\nnewest_by: number\n\
         targets:\n  store:\n    postgres: {{url: \"{store}\", table: orders}}\n"
    )
}

/// The pipeline that tells the provider who has ten orders.
fn coupons(store: &str, provider: &str) -> String {
    format!(
        "pipeline: coupons\n\
         source:\n  postgres:\n    url: \"{store}\"\n    \
         query: select customer, count(*) as orders from orders group by customer having count(*) >= 10\n    \
         key: [customer]\n\
         triggers: {{every: 1s}}\n\
         key: [customer]\n\
         targets:\n  provider:\n    http:\n      base_url: \"{provider}\"\n      \
         allow_private: true\n      quota: provider\n      mode: once\n      \
         upsert: {{method: POST, path: /coupons, body: \
         {{json: {{customer: \"{{{{ customer }}}}\", orders: \"{{{{ orders }}}}\"}}}}}}\n"
    )
}

struct Story {
    system: System,
    history: History,
    shop: Peer,
    provider: Peer,
}

impl Story {
    /// Starts everything, with the pipeline of the orders as `orders` makes it of the addresses of
    /// the shop and the store.
    async fn begin(orders: &dyn Fn(&str, &str) -> String) -> Self {
        let history = History::read();
        let layout = Layout::for_faults().with_environment("SHOP_SECRET", SECRET);
        let system = System::start(layout).await;
        let folder = system.folder();
        let shop = Peer::shop(folder, &history).await;
        let provider = Peer::provider(folder, CALLS, SECONDS).await;
        system.sql("create table orders (number bigint primary key, customer text)");
        history.write_csv(&folder.join("orders.csv"));
        let quotas = format!("quotas: {{provider: {{limits: [{CALLS}/{SECONDS}s]}}}}");
        system.client.apply(&quotas).await;
        system.client.apply(&orders(shop.url(), &system.target)).await;
        system.client.apply(&coupons(&system.target, provider.url())).await;
        Self { system, history, shop, provider }
    }

    async fn send_webhooks(&self, more: serde_json::Value) {
        let mut asked = json!({
            "url": format!("http://{}/hooks/orders", self.system.intakes[0].0),
            "secret": SECRET,
            "connections": 32,
        });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.shop.post("/admin/push", &asked).await;
    }

    async fn until_pushed(&self) {
        self.wait_for("the shop to have sent its webhooks", || async {
            self.shop.get("/admin/push").await["done"] == json!(true)
        })
        .await;
    }

    /// Kills one process of each service while webhooks come in, and starts it again.
    async fn kill_each_while_pushing(&mut self) {
        self.kill_one_of_each(Duration::from_secs(2)).await;
        assert_eq!(self.shop.get("/admin/push").await["done"], json!(false), "killed too late");
        self.until_pushed().await;
    }

    async fn kill_one_of_each(&mut self, pause: Duration) {
        for role in Role::ALL {
            // A moment of work between two faults.
            sleep(pause).await;
            let service = self.system.service(role);
            assert!(service.process.kill().await.is_some(), "the {} ran", role.name());
            service.start().await;
        }
    }

    /// Waits until exactly those have a coupon who have ten of the first `orders` orders.
    async fn until_coupons(&self, orders: usize) -> Report {
        let due = self.history.coupons(orders);
        let what = format!("{} coupons", due.len());
        self.wait_for(&what, || async { self.provider.report().await.coupons.len() >= due.len() })
            .await;
        let report = self.provider.report().await;
        assert_eq!(report.coupons, due);
        report
    }

    /// Everything is in the store, each customer with ten orders has one coupon, nobody else has,
    /// and the quota held.
    async fn ends(&self) {
        assert_eq!(self.system.sql("select count(*) from orders"), self.history.len().to_string());
        let report = self.provider.report().await;
        eprintln!("{} calls, at most {} a second", report.calls, report.busiest);
        assert_eq!(report.coupons.len(), 1_154);
        assert!(report.coupons.values().all(|coupons| *coupons == 1));
        assert_eq!(report.violations, 0, "the quota was exceeded");
        assert!(report.busiest <= u64::from(CALLS));
    }

    async fn wait_for<F: Future<Output = bool>>(&self, what: &str, is_there: impl Fn() -> F) {
        let deadline = Instant::now() + PATIENCE;
        while !is_there().await {
            let mut said = String::new();
            for run in self.system.client.latest("coupons").await.iter().take(3) {
                write!(said, "\n{run:?}").unwrap();
            }
            assert!(Instant::now() < deadline, "waited too long for {what}{said}");
            // The servers send no event.
            sleep(Duration::from_millis(200)).await;
        }
    }
}
