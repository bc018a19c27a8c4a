use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use connect::{Call, Error, Permit, Throttle};
use model::{Remedy, RunId};
use testkit::http::{Reply, Server};

use crate::support::{api, batch, counts, throttled};

#[tokio::test]
async fn a_call_that_failed_is_repeated_under_the_same_key_and_others_are_not() {
    let server = Server::start(|request, _| {
        Reply::new(if request.path.ends_with("/2") { 500 } else { 200 }, "")
    })
    .await;
    let memory = Arc::default();
    let target = api(&memory, &server.url(), "");
    let rows = batch(RunId::generate(), 1, &[(1, None, None), (2, None, None), (3, None, None)]);
    let error = target.write(std::slice::from_ref(&rows)).await.unwrap_err();
    assert_eq!(error.remedy, Remedy::RETRY);
    server.answer(|_, _| Reply::new(200, ""));
    assert_eq!(counts(&target.write(&[rows]).await.unwrap()), (3, 0, 0));
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    let keys: Vec<_> = requests
        .iter()
        .filter(|request| request.path.ends_with("/2"))
        .map(|request| request.header("idempotency-key").unwrap())
        .collect();
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn a_record_that_fails_where_others_succeed_is_set_aside_in_the_end() {
    let server = Server::start(|request, _| {
        Reply::new(if request.path.ends_with("/2") { 500 } else { 200 }, "")
    })
    .await;
    let memory = Arc::default();
    let target = api(&memory, &server.url(), "attempts: 3");
    let run = RunId::generate();
    let mut tries = 0;
    let written = loop {
        tries += 1;
        // Others go on succeeding meanwhile.
        let other = batch(run, 100 + tries, &[(100 + tries, None, None)]);
        let rows = batch(run, 1, &[(1, None, None), (2, None, None)]);
        match target.write(&[rows, other]).await {
            Ok(written) => break written,
            Err(error) => assert_eq!(error.remedy, Remedy::RETRY),
        }
        assert!(tries < 10, "it is never set aside");
    };
    assert_eq!(tries, 3);
    assert_eq!(written[0].refused[0].code, "failing");
    assert_eq!(counts(&written), (2, 0, 1));
}

#[tokio::test]
async fn an_api_that_asks_for_a_pause_gets_it_and_no_further_call() {
    let server = Server::start(|_, _| Reply::new(429, "").with("Retry-After", "7")).await;
    let memory = Arc::default();
    let target = api(&memory, &server.url(), "in_flight: 1");
    let rows: Vec<_> = (0..50).map(|id| (id, None, None)).collect();
    let error = target.write(&[batch(RunId::generate(), 1, &rows)]).await.unwrap_err();
    assert_eq!(error.remedy, Remedy::Retry { after: Some(Duration::from_secs(7)) });
    assert_eq!(server.count(), 1);
}

/// A quota that counts calls, and lets all through.
#[derive(Default)]
struct Counting {
    told: Arc<AtomicUsize>,
}

#[async_trait]
impl Throttle for Counting {
    async fn acquire(&self, _: Call<'_>) -> Result<Permit, Error> {
        let told = Arc::clone(&self.told);
        Ok(Permit::new(Instant::now() + Duration::from_secs(1), move |feedback| {
            let refused = usize::from(feedback.status == Some(429));
            told.fetch_add(refused, Ordering::SeqCst);
        }))
    }
}

#[tokio::test]
async fn a_call_too_many_under_a_quota_is_repeated_when_the_quota_lets_it() {
    let server = Server::start(|_, before| match before % 3 {
        2 => Reply::new(200, ""),
        _ => Reply::new(429, "").with("Retry-After", "7"),
    })
    .await;
    let quota = Counting::default();
    let told = Arc::clone(&quota.told);
    let api = format!(
        "http:\n  base_url: {}\n  allow_private: true\n  quota: api\n  in_flight: 1\n  \
         upsert: {{method: PUT, path: \"/customers/{{{{ id }}}}\"}}",
        server.url()
    );
    let target = throttled(&Arc::default(), &api, Arc::new(quota));
    let rows: Vec<_> = (0..10).map(|id| (id, None, None)).collect();
    let batch = batch(RunId::generate(), 1, &rows);
    assert_eq!(counts(&target.write(std::slice::from_ref(&batch)).await.unwrap()), (10, 0, 0));
    assert_eq!((server.count(), told.load(Ordering::SeqCst)), (30, 20));
    // An API that never takes a call is not asked for ever.
    server.answer(|_, _| Reply::new(429, ""));
    let rows = [(99, None, None)];
    let batch = self::batch(RunId::generate(), 1, &rows);
    target.write(std::slice::from_ref(&batch)).await.unwrap_err();
    assert_eq!(server.count(), 30 + 9);
}

#[tokio::test]
async fn an_api_in_trouble_gets_one_call_at_a_time() {
    let server = Server::start(|_, _| Reply::new(503, "")).await;
    let memory = Arc::default();
    let target = api(&memory, &server.url(), "");
    let rows: Vec<_> = (0..50).map(|id| (id, None, None)).collect();
    let rows = batch(RunId::generate(), 1, &rows);
    target.write(std::slice::from_ref(&rows)).await.unwrap_err();
    let before = server.count();
    assert!(before <= 8, "{before} calls at once");
    target.write(std::slice::from_ref(&rows)).await.unwrap_err();
    assert_eq!(server.count(), before + 1);
    server.answer(|_, _| Reply::new(200, ""));
    assert_eq!(counts(&target.write(&[rows]).await.unwrap()), (50, 0, 0));
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_never_comes_is_asked_for_again_under_the_same_key() {
    for fault in [Reply::Half, Reply::Cut, Reply::Silence] {
        let server = Server::start(
            move |_, before| {
                if before == 0 { fault.clone() } else { Reply::new(200, "") }
            },
        )
        .await;
        let memory = Arc::default();
        let target = api(&memory, &server.url(), "");
        let rows = batch(RunId::generate(), 1, &[(1, None, None)]);
        let error = target.write(std::slice::from_ref(&rows)).await.unwrap_err();
        assert_eq!(error.remedy, Remedy::RETRY);
        assert_eq!(counts(&target.write(&[rows]).await.unwrap()), (1, 0, 0));
        let requests = server.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
    }
}

#[tokio::test]
async fn a_call_whose_outcome_is_unknown_is_parked_where_a_second_one_could_do_harm() {
    for fault in [Reply::Half, Reply::Cut, Reply::Silence, Reply::new(500, "")] {
        let server = Server::start(move |request, _| {
            if request.path.ends_with("/1") { fault.clone() } else { Reply::new(200, "") }
        })
        .await;
        let memory = Arc::default();
        let target = api(&memory, &server.url(), "idempotent: no");
        let rows = batch(RunId::generate(), 1, &[(1, None, None), (2, None, None)]);
        // A message may come twice: the second time nothing is sent.
        for _ in 0..2 {
            let written = target.write(std::slice::from_ref(&rows)).await.unwrap();
            assert_eq!(counts(&written), (1, 0, 1));
            assert_eq!(written[0].refused[0].code, "unknown_outcome");
        }
        assert_eq!(server.count(), 2);
        // A replay is a run of its own, and a decision to send it.
        server.answer(|_, _| Reply::new(200, ""));
        let replayed = batch(RunId::generate(), 1, &[(1, None, None)]);
        assert_eq!(counts(&target.write(&[replayed]).await.unwrap()), (1, 0, 0));
        assert_eq!(server.count(), 3);
    }
}

#[tokio::test]
async fn what_nobody_can_get_through_stops_the_run() {
    for (status, word) in [(301, "redirects"), (401, "credentials")] {
        let server = Server::start(move |_, _| {
            Reply::new(status, "").with("Location", "http://127.0.0.1:1/elsewhere")
        })
        .await;
        let target = api(&Arc::default(), &server.url(), "");
        let rows = batch(RunId::generate(), 1, &[(1, None, None)]);
        let error = target.write(&[rows]).await.unwrap_err();
        assert_eq!(error.remedy, Remedy::Stop);
        assert!(error.hint.contains(word), "{}", error.hint);
    }
}

#[tokio::test]
async fn success_is_what_the_rules_say() {
    let server = Server::start(|request, _| match &*request.path {
        "/customers/1" => Reply::new(409, ""),
        "/customers/2" => Reply::new(200, r#"{"error": {"code": "invalid"}}"#),
        "/customers/3" => Reply::new(422, ""),
        _ => Reply::new(200, r#"{"ok": true}"#),
    })
    .await;
    let more = "answers: [{status: 409, then: success}, \
                {status: 200, body: {path: error.code}, then: reject}]";
    let target = api(&Arc::default(), &server.url(), more);
    let rows: Vec<_> = (1..=4).map(|id| (id, None, None)).collect();
    let written = target.write(&[batch(RunId::generate(), 1, &rows)]).await.unwrap();
    assert_eq!(counts(&written), (2, 0, 2));
    let refused: Vec<_> = written[0].refused.iter().map(|r| (r.index, r.code)).collect();
    assert_eq!(refused, [(1, "rejected"), (2, "rejected")]);
}
