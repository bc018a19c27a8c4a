//! Quotas with real processes, a real broker and a peer that counts by its own clock.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bus::{Bucket, Bus, Config, Quotas};
use connect::{Call, Feedback, Throttle};
use model::{Limit, Matching, Quota};
use testkit::provider::{Caller, Provider, Rules};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Broker, within};

const NAME: &str = "provider";

fn limited(limits: &[(u32, u64)]) -> Quota {
    let limit = |(calls, window_ms): &(u32, u64)| Limit { calls: *calls, window_ms: *window_ms };
    Quota { limits: limits.iter().map(limit).collect(), ..Quota::default() }
}

fn rules(quota: &Quota) -> Rules {
    let limits = quota.limits.iter().map(|limit| (limit.calls as usize, limit.window()));
    Rules { limits: limits.collect(), ..Rules::default() }
}

fn now_micros() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

impl Broker {
    async fn declare(&self, quota: &Quota) {
        self.bus.declare_quota(NAME, quota, true, now_micros()).await.unwrap();
    }

    /// A further process, as far as the broker can tell.
    async fn replica(&self) -> Quotas {
        let config = Config { servers: vec![self.server.url()], ..Config::default() };
        Quotas::new(&Bus::connect(&config, &self.shutdown).await.unwrap())
    }
}

fn call<'a>(pipeline: &'a str, path: &'a str) -> Call<'a> {
    Call { quota: NAME, pipeline, method: "POST", path }
}

/// Calls one after the other until told to stop. Returns how many calls were answered.
async fn work(
    quotas: Quotas,
    address: SocketAddr,
    pipeline: String,
    stop: CancellationToken,
) -> u64 {
    let mut caller = Caller::connect(address).await.unwrap();
    let mut answered = 0;
    let path = format!("/{pipeline}");
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => return answered,
            permit = quotas.acquire(call(&pipeline, &path)) => match permit {
                Ok(permit) => permit,
                Err(_) => return answered,
            }
        };
        if permit.start_by() <= Instant::now() {
            permit.give_back();
            continue;
        }
        let answer = caller.call(&path).await.unwrap();
        let seconds = |name| answer.number(name).map(Duration::from_secs);
        permit.finish(Feedback {
            status: Some(answer.status),
            retry_after: seconds("retry-after"),
            remaining: answer.number("ratelimit-remaining"),
            reset: seconds("ratelimit-reset"),
            sent: true,
        });
        answered += 1;
    }
}

/// Lets replicas work for a while, with so many callers each, and returns the rate of calls a
/// second after the first `settle`.
async fn load(
    replicas: Vec<Quotas>,
    provider: &Provider,
    callers: usize,
    settle: Duration,
    length: Duration,
) -> f64 {
    let stop = CancellationToken::new();
    let mut workers = JoinSet::new();
    for quotas in &replicas {
        for caller in 0..callers {
            let pipeline = ["first", "second"][caller % 2].to_owned();
            workers.spawn(work(quotas.clone(), provider.address(), pipeline, stop.clone()));
        }
    }
    tokio::time::sleep(settle).await;
    let from = Instant::now();
    tokio::time::sleep(length).await;
    let to = Instant::now();
    let calls = provider.calls_between(from, to);
    stop.cancel();
    while workers.join_next().await.is_some() {}
    for quotas in replicas {
        within(quotas.close()).await;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let calls = calls as f64;
    calls / to.duration_since(from).as_secs_f64()
}

/// Returns the share of a quota of `calls` in `window` that was used up to the end of `windows`: the call
/// after so many full windows could have come when the last of them ended.
fn share(provider: &Provider, calls: usize, window: Duration, windows: u32) -> f64 {
    let taken = provider.between(1, calls * windows as usize + 1);
    (window * windows).as_secs_f64() / taken.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_replicas_use_a_quota_and_never_exceed_it() {
    let broker = Broker::start().await;
    let quota = limited(&[(1_000, 10_000)]);
    broker.declare(&quota).await;
    let provider = Provider::start(rules(&quota)).await;
    let mut replicas = Vec::new();
    for _ in 0..8 {
        replicas.push(broker.replica().await);
    }
    load(replicas, &provider, 8, Duration::ZERO, Duration::from_secs(25)).await;
    let used = broker.bus.quota_use(NAME, now_micros()).await.unwrap().unwrap();
    let share = share(&provider, 1_000, Duration::from_secs(10), 2);
    eprintln!("{:.1} % used, {} calls, {used:?}", share * 100.0, provider.calls());
    assert_eq!(provider.violations(), 0);
    assert!(share >= 0.95, "{share:.3} of the quota is used");
    assert_eq!(used.outstanding, 0);
    assert_eq!(used.calls, provider.calls() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_is_a_window_as_well() {
    let broker = Broker::start().await;
    let quota = limited(&[(100, 1_000)]);
    broker.declare(&quota).await;
    let provider = Provider::start(rules(&quota)).await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(broker.replica().await);
    }
    load(replicas, &provider, 20, Duration::ZERO, Duration::from_secs(12)).await;
    let writes = broker.bus.key_value(Bucket::Quotas).read(NAME).await.unwrap().revision;
    let share = share(&provider, 100, Duration::from_secs(1), 9);
    eprintln!("{:.1} % used, {writes} writes in 12 seconds", share * 100.0);
    assert_eq!(provider.violations(), 0);
    assert!(share >= 0.9, "{share:.3} of the quota is used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_far_away_costs_few_writes() {
    let broker = Broker::start().await;
    let quota = limited(&[(1_000_000, 60_000)]);
    broker.declare(&quota).await;
    let provider = Provider::start(rules(&quota)).await;
    let replicas = vec![broker.replica().await];
    let (settle, length) = (Duration::from_secs(1), Duration::from_secs(3));
    let rate = load(replicas, &provider, 1, settle, length).await;
    let writes = broker.bus.key_value(Bucket::Quotas).read(NAME).await.unwrap().revision;
    eprintln!("{rate:.1} calls a second, {writes} writes for {} calls", provider.calls());
    assert!(writes * 20 < provider.calls() as u64, "{writes} for {}", provider.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_go_on_at_a_time_than_may() {
    let broker = Broker::start().await;
    let quota = Quota { concurrency: Some(4), ..Quota::default() };
    broker.declare(&quota).await;
    let latency = Duration::from_millis(20);
    let rules = Rules { concurrency: 4, latency, ..Rules::default() };
    let provider = Provider::start(rules).await;
    let replicas = vec![broker.replica().await, broker.replica().await];
    let length = Duration::from_secs(4);
    let rate = load(replicas, &provider, 6, Duration::from_secs(1), length).await;
    eprintln!("{rate:.1} calls a second of at most 200");
    assert_eq!(provider.violations(), 0);
    assert!(rate > 80.0, "{rate:.1} calls a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_peer_says_corrects_the_count() {
    let broker = Broker::start().await;
    broker.declare(&limited(&[(50, 1_000)])).await;
    // The peer takes less than was declared, and says for how long it wants to be left alone.
    let provider = Provider::start(Rules {
        limits: vec![(20, Duration::from_secs(2))],
        refuse_with: Some("retry-after: 2\r\n".to_owned()),
        ..Rules::default()
    })
    .await;
    let replicas = vec![broker.replica().await, broker.replica().await];
    let length = Duration::from_secs(9);
    load(replicas, &provider, 3, Duration::from_millis(10), length).await;
    let refused = provider.violations();
    eprintln!("{refused} of {} calls were refused", provider.calls());
    // Nine seconds hold three to four rounds; each refuses at most what was on its way.
    assert!(provider.calls() >= 60, "{} calls", provider.calls());
    assert!(refused <= 6 * 5, "{refused} refusals");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_do_not_match_are_not_held_back() {
    let broker = Broker::start().await;
    let mut quota = limited(&[(1, 60_000)]);
    quota.matching = Matching { methods: vec!["POST".into()], paths: vec!["/coupons/*".into()] };
    broker.declare(&quota).await;
    let quotas = broker.replica().await;
    within(quotas.acquire(call("shop", "/coupons/1"))).await.unwrap().finish(Feedback {
        status: Some(200),
        sent: true,
        ..Feedback::default()
    });
    for _ in 0..100 {
        within(quotas.acquire(call("shop", "/customers"))).await.unwrap().give_back();
    }
    let wait = quotas.acquire(call("shop", "/coupons/2"));
    assert!(tokio::time::timeout(Duration::from_secs(1), wait).await.is_err());
    within(quotas.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_nobody_declared_is_an_error_and_a_removed_one_lets_nobody_wait() {
    let broker = Broker::start().await;
    let quotas = broker.replica().await;
    let error = within(quotas.acquire(call("shop", "/"))).await.unwrap_err();
    assert!(error.to_string().contains("no quota `provider`"), "{error}");
    broker.declare(&limited(&[(1, 60_000)])).await;
    within(quotas.acquire(call("shop", "/"))).await.unwrap().give_back();
    within(quotas.acquire(call("shop", "/"))).await.unwrap().give_back();
}

#[tokio::test(flavor = "multi_thread")]
async fn use_outlives_the_broker_and_its_memory() {
    let mut broker = Broker::start().await;
    let quota = limited(&[(30, 6_000)]);
    broker.declare(&quota).await;
    let provider = Provider::start(rules(&quota)).await;
    let stop = CancellationToken::new();
    let quotas = [broker.replica().await, broker.replica().await];
    let mut workers = JoinSet::new();
    for quotas in &quotas {
        for _ in 0..3 {
            let (address, stop) = (provider.address(), stop.clone());
            workers.spawn(work(quotas.clone(), address, "shop".to_owned(), stop));
        }
    }
    let calls_reach = async |calls: usize| {
        while provider.calls() < calls {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(calls_reach(30)).await;
    assert_eq!(provider.violations(), 0);
    broker.server.kill();
    tokio::time::sleep(Duration::from_millis(500)).await;
    broker.server.restart();
    within(calls_reach(70)).await;
    assert_eq!(provider.violations(), 0);
    // A broker that has lost everything learns it again from those who know.
    broker.server.wipe();
    broker.server.restart();
    within(calls_reach(130)).await;
    stop.cancel();
    while workers.join_next().await.is_some() {}
    assert_eq!(provider.violations(), 0);
    for quotas in &quotas {
        within(quotas.close()).await;
    }
}

/// Not a test of its own: the process that others kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_its_own() {
    let Ok(address) = std::env::var("QUOTAS_PROVIDER") else { return };
    let servers = vec![std::env::var("QUOTAS_BROKER").unwrap()];
    let config = Config { servers, ..Config::default() };
    let quotas = Quotas::new(&Bus::connect(&config, &CancellationToken::new()).await.unwrap());
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let (address, stop) = (address.parse().unwrap(), CancellationToken::new());
        workers.spawn(work(quotas.clone(), address, "shop".to_owned(), stop));
    }
    while workers.join_next().await.is_some() {}
}

/// Starts this test program again, as the process above.
fn process(broker: &Broker, provider: &Provider) -> Child {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "quotas::a_process_of_its_own"])
        .env("QUOTAS_BROKER", broker.server.url())
        .env("QUOTAS_PROVIDER", provider.address().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_are_killed_do_not_break_the_promise() {
    let broker = Broker::start().await;
    let quota = limited(&[(200, 4_000)]);
    broker.declare(&quota).await;
    let provider = Provider::start(rules(&quota)).await;
    let mut processes: Vec<Child> = (0..4).map(|_| process(&broker, &provider)).collect();
    let from = Instant::now();
    for round in 0..12 {
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        let index = round % processes.len();
        processes[index].kill().unwrap();
        processes[index].wait().unwrap();
        processes[index] = process(&broker, &provider);
    }
    let calls = provider.calls();
    eprintln!("{calls} calls in {:?}, {} too many", from.elapsed(), provider.violations());
    for mut process in processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert_eq!(provider.violations(), 0);
    // 50 a second are allowed; what the killed ones held is lost for a while.
    assert!(calls > 700, "{calls} calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_windows_hold_at_once_for_one_replica() {
    let broker = Broker::start().await;
    let quota = limited(&[(50, 1_000), (200, 8_000)]);
    broker.declare(&quota).await;
    let provider = Provider::start(rules(&quota)).await;
    let replicas = vec![broker.replica().await];
    load(replicas, &provider, 10, Duration::ZERO, Duration::from_secs(20)).await;
    let share = share(&provider, 200, Duration::from_secs(8), 2);
    eprintln!("{:.1} % used", share * 100.0);
    assert_eq!(provider.violations(), 0);
    assert!(share >= 0.92, "{share:.3} of the quota is used");
}
