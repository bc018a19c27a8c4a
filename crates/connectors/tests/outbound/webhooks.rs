use std::sync::Arc;

use connect::{LocalMemory, Target};
use model::{Remedy, RunId};
use serde_json::{Value, json};
use testkit::http::{Reply, Server};

use crate::support::{batch, counts, deletes, target};

const VERSION: i64 = 1_700_000_000_000_000_000;

fn hook(memory: &Arc<LocalMemory>, url: &str, more: &str) -> Arc<dyn Target> {
    let system = format!(
        "webhook:\n  url: {url}/hook\n  allow_private: true\n  secrets: [\"${{env:SECRET}}\"]\n{}",
        more.lines().map(|line| format!("  {line}\n")).collect::<String>()
    );
    target(memory, &system)
}

#[tokio::test]
async fn a_webhook_tells_everything_what_changed_or_the_key_only() {
    for (payload, data) in [
        (
            "full",
            [
                json!({"id": 7, "name": "A", "city": "C"}),
                json!({"id": 7, "name": "B", "city": "C"}),
                json!({"id": 7, "name": "B", "city": "C"}),
            ],
        ),
        (
            "changed",
            [
                json!({"id": 7, "changes": {"id": {"old": null, "new": 7},
                    "name": {"old": null, "new": "A"}, "city": {"old": null, "new": "C"}}}),
                json!({"id": 7, "changes": {"name": {"old": "A", "new": "B"}}}),
                json!({"id": 7, "changes": {"id": {"old": 7, "new": null},
                    "name": {"old": "B", "new": null}, "city": {"old": "C", "new": null}}}),
            ],
        ),
        ("thin", [json!({"id": 7}), json!({"id": 7}), json!({"id": 7})]),
    ] {
        let server = Server::always(204).await;
        let hook = hook(&Arc::default(), &server.url(), &format!("payload: {payload}"));
        let run = RunId::generate();
        for (offset, name) in [(0, "A"), (1, "A"), (2, "B")] {
            hook.write(&[batch(run, VERSION + offset, &[(7, Some(name), Some("C"))])])
                .await
                .unwrap();
        }
        let gone = deletes(batch(run, VERSION + 3, &[(7, Some("B"), Some("C"))]));
        hook.write(&[gone]).await.unwrap();
        let told: Vec<Value> = server
            .requests()
            .iter()
            .map(|request| serde_json::from_slice(&request.body).unwrap())
            .collect();
        let events = ["shop.created", "shop.updated", "shop.deleted"];
        assert_eq!(told.len(), 3, "what has not changed is not told");
        for ((told, data), event) in told.iter().zip(data).zip(events) {
            assert_eq!(told["data"], data, "{payload}");
            assert_eq!(told["type"], event);
            assert_eq!(told["timestamp"], "2023-11-14T22:13:20.000Z");
        }
    }
}

#[tokio::test]
async fn a_webhook_is_repeated_under_its_id_until_it_is_accepted() {
    let server = Server::start(|_, before| match before {
        0 => Reply::new(500, ""),
        1 => Reply::Cut,
        _ => Reply::new(204, ""),
    })
    .await;
    let hook = hook(&Arc::default(), &server.url(), "");
    let rows = batch(RunId::generate(), VERSION, &[(7, Some("A"), None)]);
    for _ in 0..2 {
        hook.write(std::slice::from_ref(&rows)).await.unwrap_err();
    }
    assert_eq!(counts(&hook.write(std::slice::from_ref(&rows)).await.unwrap()), (1, 0, 0));
    assert_eq!(counts(&hook.write(&[rows]).await.unwrap()), (1, 0, 0));
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    let same = |read: fn(&testkit::http::Request) -> String| {
        requests.iter().all(|request| read(request) == read(&requests[0]))
    };
    assert!(same(|request| request.header("webhook-id").unwrap().to_owned()));
    assert!(same(testkit::http::Request::text));
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", "/hook"));
}

#[tokio::test]
async fn a_receiver_that_has_moved_or_gone_stops_the_run() {
    let elsewhere = Server::always(200).await;
    for status in [302, 404, 410] {
        let url = elsewhere.url();
        let server = Server::start(move |_, _| Reply::new(status, "").with("Location", &url)).await;
        let hook = hook(&Arc::default(), &server.url(), "");
        let rows = batch(RunId::generate(), VERSION, &[(7, None, None)]);
        assert_eq!(hook.write(&[rows]).await.unwrap_err().remedy, Remedy::Stop, "{status}");
    }
    assert_eq!(elsewhere.count(), 0);
}

/// The secret of the helper, and a message of Standard Webhooks' own documentation.
#[tokio::test]
async fn a_signature_is_that_of_the_id_the_time_and_the_body() {
    let server = Server::always(204).await;
    let hook = hook(&Arc::default(), &server.url(), "");
    let rows = batch(RunId::generate(), VERSION, &[(7, Some("A"), None)]);
    hook.write(&[rows]).await.unwrap();
    let request = server.requests().remove(0);
    let verifier = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/peers/bin/python");
    let Some(python) = std::path::Path::new(verifier).exists().then_some(verifier) else { return };
    let program = "import sys, json\nfrom standardwebhooks.webhooks import Webhook\n\
                   h = json.loads(sys.argv[1])\nb = sys.argv[2]\n\
                   Webhook('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw').verify(b, h)\n\
                   try:\n    Webhook('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx').verify(b, h)\n\
                   except Exception: sys.exit(0)\nsys.exit(2)";
    let headers: serde_json::Map<String, Value> = request
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("webhook-"))
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    let checked = std::process::Command::new(python)
        .args(["-c", program, &Value::Object(headers).to_string(), &request.text()])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[tokio::test]
async fn what_does_not_get_through_for_too_long_is_set_aside_with_few_calls() {
    let server = Server::start(|_, before| match before {
        0..2 => Reply::new(503, ""),
        _ => Reply::new(204, ""),
    })
    .await;
    let memory = Arc::default();
    let wait = std::time::Duration::from_millis(300);
    let hook = hook(&memory, &server.url(), "retry: [300ms, 1h]");
    let rows = |version: i64| {
        batch(RunId::generate(), VERSION + version, &[(7, Some("A"), None), (8, Some("B"), None)])
    };
    let kept_in_hand = hook.write(&[rows(0)]).await.unwrap_err();
    assert!(matches!(kept_in_hand.remedy, Remedy::Retry { .. }));
    tokio::time::sleep(wait).await;
    hook.check().await.unwrap();
    let written = hook.write(&[rows(0)]).await.unwrap();
    assert_eq!(counts(&written), (0, 0, 2));
    let refused: Vec<_> = written[0].refused.iter().map(|refused| refused.code).collect();
    assert_eq!(refused, ["undelivered", "undelivered"]);
    assert!(written[0].refused[0].message.contains("503"), "{written:?}");
    assert_eq!(
        server.count(),
        2,
        "the second record is not tried, since the first has just failed"
    );
}

#[tokio::test]
async fn a_disabled_receiver_is_not_called() {
    let server = Server::always(204).await;
    let memory: Arc<LocalMemory> = Arc::default();
    let disabled = connect::Memory::put(&*memory, "shop.api.disabled", vec![1], None);
    disabled.await.unwrap();
    let hook = hook(&memory, &server.url(), "");
    let rows = batch(RunId::generate(), VERSION, &[(7, Some("A"), None)]);
    let written = hook.write(&[rows]).await.unwrap();
    assert_eq!(counts(&written), (0, 0, 1));
    assert!(written[0].refused[0].message.contains("disabled"), "{written:?}");
    assert_eq!(server.count(), 0);
}
