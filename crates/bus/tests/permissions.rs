//! What each service may do on the broker is what it needs.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerError};
use bus::{LoginKey, Names, Permissions, Service, authorization};
use secrecy::ExposeSecret;
use testkit::nats::Nats;
use tokio::{sync::mpsc, time::timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// What no service may do, beside what others may.
const NOBODY: [&str; 9] = [
    "$JS.API.STREAM.DELETE.TRIBUTARY_READY",
    "$JS.API.STREAM.DELETE.KV_tributary_pipelines",
    "$JS.API.STREAM.SNAPSHOT.TRIBUTARY_RAW",
    "$JS.API.STREAM.MSG.DELETE.TRIBUTARY_QUARANTINE",
    "$JS.API.STREAM.CREATE.COPY",
    "$SYS.REQ.SERVER.PING",
    "other.raw.shop",
    "$KV.other_pipelines.shop",
    "_INBOX.somebody",
];

/// Who may not publish what, in words of its own, so that a mistake in the table shows.
const DENIED: [(Service, &[&str]); 4] = [
    (Service::Scheduler, &["tributary.quarantine.shop", "tributary.deliveries"]),
    (
        Service::Extractor,
        &[
            "tributary.ready.shop.store",
            "tributary.task.plan.shop",
            "tributary.task.sweep.shop",
            "tributary.ask.extract",
            "tributary.ask.load",
            "$KV.tributary_pipelines.shop",
            "$KV.tributary_sent.shop",
            "$JS.API.STREAM.PURGE.TRIBUTARY_RAW",
            "$JS.API.STREAM.UPDATE.TRIBUTARY_RAW",
            "$JS.API.CONSUMER.CREATE.TRIBUTARY_RAW.spy.tributary.raw.shop",
            "$JS.API.CONSUMER.CREATE.TRIBUTARY_TASKS.spy.tributary.task.sweep.shop",
            "$JS.API.CONSUMER.CREATE.TRIBUTARY_QUARANTINE.spy",
        ],
    ),
    (
        Service::Transformer,
        &[
            "tributary.raw.shop",
            "tributary.task.extract.shop",
            "tributary.ask.load",
            "tributary.deliveries",
            "$KV.tributary_progress.run",
            "$KV.tributary_quotas.crm",
            "$JS.API.CONSUMER.CREATE.TRIBUTARY_READY.spy.tributary.ready.shop.store",
            "$JS.API.CONSUMER.MSG.NEXT.TRIBUTARY_TASKS.plan=shop",
            "$JS.API.DIRECT.GET.KV_tributary_sent.$KV.tributary_sent.shop",
        ],
    ),
    (
        Service::Loader,
        &[
            "tributary.raw.shop",
            "tributary.ready.shop.store",
            "tributary.task.sweep.shop",
            "$KV.tributary_pipelines.shop",
            "$KV.tributary_progress.run",
            "$JS.API.STREAM.MSG.GET.TRIBUTARY_QUARANTINE",
            "$JS.API.CONSUMER.CREATE.TRIBUTARY_RAW.spy.tributary.raw.shop",
            "$JS.API.CONSUMER.DELETE.TRIBUTARY_READY.load=shop=store",
        ],
    ),
];

/// A user of the broker and what the server refused it.
struct User {
    client: Client,
    refusals: mpsc::UnboundedReceiver<String>,
}

impl User {
    async fn of(nats: &Nats, key: &LoginKey) -> Self {
        let (sender, refusals) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_nkey(key.seed.expose_secret().to_owned());
        let options = options.event_callback(move |event| {
            let sender = sender.clone();
            async move {
                if let Event::ServerError(ServerError::Other(text)) = event {
                    sender.send(text).ok();
                }
            }
        });
        let client = options.connect(nats.url()).await.unwrap();
        Self { client, refusals }
    }

    async fn refusal(&mut self) -> String {
        timeout(PATIENCE, self.refusals.recv()).await.expect("the server refuses").unwrap()
    }

    /// The server answers in order: what is refused is before the refusal of what comes last.
    async fn may_publish(&mut self, subject: &str) -> bool {
        self.client.publish(subject.to_owned(), "{}".into()).await.unwrap();
        self.client.publish("nobody.may", "".into()).await.unwrap();
        let first = self.refusal().await;
        if first.contains("nobody.may") {
            return true;
        }
        assert!(first.to_lowercase().contains(&subject.to_lowercase()), "{first}");
        assert!(self.refusal().await.contains("nobody.may"));
        false
    }

    async fn may_subscribe(&mut self, subject: &str) -> bool {
        let _subscriber = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.client.publish("nobody.may", "".into()).await.unwrap();
        let first = self.refusal().await;
        if first.contains("nobody.may") {
            return true;
        }
        assert!(self.refusal().await.contains("nobody.may"), "{first}");
        false
    }
}

/// A subject that a pattern stands for.
fn example(pattern: &str) -> String {
    pattern.replace('*', "x").replace('>', "x.y")
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => return false,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_may_do_what_it_needs_and_nothing_else() {
    let names = Names::new("tributary").unwrap();
    let keys = Service::ALL.map(|service| (service, LoginKey::random()));
    let users: Vec<_> = keys.iter().map(|(service, key)| (*service, key.public.clone())).collect();
    let nats = Nats::start_configured(&authorization(&names, &users));
    assert!(async_nats::connect(nats.url()).await.is_err(), "nobody comes in without a key");

    let all = Service::ALL.map(|service| (service, Permissions::of(&names, service)));
    for ((service, key), (_, own)) in keys.iter().zip(&all) {
        let mut user = User::of(&nats, key).await;
        for subject in own.publish.iter().map(|pattern| example(pattern)) {
            assert!(user.may_publish(&subject).await, "{service:?} needs {subject}");
        }
        for subject in own.subscribe.iter().map(|pattern| example(pattern)) {
            assert!(user.may_subscribe(&subject).await, "{service:?} needs to hear {subject}");
        }
        let of_others = all.iter().flat_map(|(_, other)| other.publish.iter());
        let of_others = of_others
            .map(|pattern| example(pattern))
            .filter(|subject| !own.publish.iter().any(|pattern| matches(pattern, subject)));
        let (_, denied) = DENIED.iter().find(|(of, _)| of == service).unwrap();
        let fixed = NOBODY.iter().chain(denied.iter()).map(|subject| (*subject).to_owned());
        for subject in of_others.chain(fixed) {
            assert!(!user.may_publish(&subject).await, "{service:?} may publish {subject}");
        }
        let others = all.iter().filter(|(other, _)| other != service);
        let heard = others.flat_map(|(_, other)| other.subscribe.iter().map(String::as_str));
        for subject in heard.chain([">", "tributary.>", "$KV.>", "_INBOX.>", "$JS.>"]) {
            assert!(!user.may_subscribe(subject).await, "{service:?} may hear {subject}");
        }
    }
}
