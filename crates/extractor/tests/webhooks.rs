//! Webhooks against a real broker.

use std::{
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use wire::ledger::ledger_entry::Event;

use crate::{
    intake::{Intake, read_answer, secret},
    stage::within,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Lets an official library sign a body.
fn signed(program: &str, arguments: &[&str]) -> Vec<(String, String)> {
    // A program of the tree has a path, others are looked for.
    let path = if program.contains('/') { root().join(program) } else { program.into() };
    let output = Command::new(path).args(arguments).current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; see `make test`"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}; see `make test`");
    let headers: HashMap<String, String> = serde_json::from_slice(&output.stdout).unwrap();
    headers.into_iter().collect()
}

fn pairs(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn seconds_ago(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    (now.as_secs() - seconds).to_string()
}

const BODY: &str = r#"{"id": 7, "name": "Zoë €"}"#;

/// Sends what a library has signed, and the same with one thing wrong. `settings` are those of the
/// scheme besides its secrets.
async fn right_and_wrong(
    (scheme, settings): (&str, &str),
    secret_text: &str,
    sign: impl Fn(&str) -> Vec<(String, String)>,
) {
    let (old, current) = (secret("whsec_b2xkb2xkb2xkb2xkb2xkb2xkb2xk"), secret(secret_text));
    let push = format!(
        "{{webhook: {{verify: {{{scheme}: {{secrets: [{}, {}]{settings}}}}}}}}}",
        old.reference, current.reference
    );
    let mut intake = Intake::new(&push).await;
    let running = intake.start().await;
    let headers = sign(BODY);
    let right = pairs(&headers);
    for (body, headers) in [
        (BODY.replace('7', "8"), right.clone()),
        (BODY.to_owned(), Vec::new()),
        (BODY.to_owned(), pairs(&sign("{}"))),
    ] {
        let answer = running.post(&headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, "the request is not authorized"));
    }
    assert_eq!(intake.stored().await, 0, "nothing of it is stored");
    assert_eq!(running.post(&right, BODY.as_bytes()).await.status, 200);
    let batch = intake.batch().await;
    assert_eq!((batch.records.len(), batch.header.extracted), (1, 1));
    running.stop().await;
}

#[tokio::test]
async fn standard_webhooks_of_the_official_library_are_verified() {
    let python = ".tools/peers/bin/python";
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let sign = |scheme: &'static str| {
        move |body: &str| signed(python, &["tests/peers/sign.py", scheme, key, body])
    };
    Box::pin(right_and_wrong(("standard_webhooks", ""), key, sign("standard_webhooks"))).await;
    Box::pin(right_and_wrong(("standard_webhooks", ""), key, sign("svix"))).await;
}

#[tokio::test]
async fn stripe_signatures_of_the_official_library_are_verified() {
    let sign = |body: &str| {
        signed(".tools/peers/bin/python", &["tests/peers/sign.py", "stripe", "whsec_x1", body])
    };
    Box::pin(right_and_wrong(("stripe", ""), "whsec_x1", sign)).await;
}

#[tokio::test]
async fn github_signatures_of_the_official_library_are_verified() {
    let sign = |body: &str| signed("node", &["tests/peers/sign.mjs", "s3cret", body]);
    Box::pin(right_and_wrong(("github", ""), "s3cret", sign)).await;
}

#[tokio::test]
async fn public_keys_of_standard_webhooks_verify() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let sign = |body: &str| signed("node", &["tests/peers/ed25519.mjs", seed, body]);
    let headers: HashMap<_, _> = sign("").into_iter().collect();
    let key = &headers["x-public-key"];
    Box::pin(right_and_wrong(("standard_webhooks", ""), key, sign)).await;
}

#[tokio::test]
async fn slack_signatures_of_the_official_library_are_verified() {
    Box::pin(right_and_wrong(("slack", ""), "s3cret", python("slack"))).await;
}

#[tokio::test]
async fn shopify_and_plain_signatures_are_verified() {
    Box::pin(right_and_wrong(("shopify", ""), "s3cret", python("shopify"))).await;
    let settings = ", header: X-Tag, algorithm: sha512, encoding: hex, prefix: \"v=1;\"";
    Box::pin(right_and_wrong(("hmac", settings), "s3cret", python("hmac"))).await;
}

/// Signs by a script in Python.
fn python(scheme: &'static str) -> impl Fn(&str) -> Vec<(String, String)> {
    move |body| {
        let arguments = ["tests/peers/sign.py", scheme, "s3cret", body];
        signed(".tools/peers/bin/python", &arguments)
    }
}

#[tokio::test]
async fn slack_is_told_that_somebody_is_there() {
    let file = secret("s3cret");
    let push = format!("{{webhook: {{verify: {{slack: {{secrets: [{}]}}}}}}}}", file.reference);
    let intake = Intake::new(&push).await;
    let running = intake.start().await;
    let body = r#"{"type": "url_verification", "challenge": "3eZbrw1a"}"#;
    let answer = running.post(&[], body.as_bytes()).await;
    assert_eq!(answer.status, 401, "whoever asks has to sign");
    let answer = running.post(&pairs(&python("slack")(body)), body.as_bytes()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "3eZbrw1a"));
    assert_eq!(intake.stored().await, 0);
    running.stop().await;
}

#[tokio::test]
async fn a_request_that_somebody_kept_is_not_believed() {
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let file = secret(key);
    let scheme = format!("{{standard_webhooks: {{secrets: [{}], tolerance: 1m}}}}", file.reference);
    let intake = Intake::new(&format!("{{webhook: {{verify: {scheme}}}}}")).await;
    let running = intake.start().await;
    for (age, status) in [(120, 401), (10, 200)] {
        let arguments = ["tests/peers/sign.py", "standard_webhooks", key, BODY, &seconds_ago(age)];
        let headers = signed(".tools/peers/bin/python", &arguments);
        assert_eq!(running.post(&pairs(&headers), BODY.as_bytes()).await.status, status);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_repeated_delivery_is_counted_once_by_all_extractors() {
    let mut intake = Intake::new("{webhook: {verify: none, id: {header: X-Id}}}").await;
    let (one, other) = (intake.start().await, intake.start().await);
    let id = [("x-id", "d-1")];
    assert_eq!(one.post(&id, BODY.as_bytes()).await.status, 200);
    let batch = intake.batch().await;
    assert_eq!(batch.records.id(0), "d-1");
    let entries = intake.ledger().await;
    let Some(Event::BatchExtracted(extracted)) = &entries[0].event else { panic!("{entries:?}") };
    assert_eq!(extracted.batch, batch.header.batch.to_string());
    assert_eq!(entries[0].push.unwrap().window_start_ms, batch.header.push.unwrap().start_ms);
    // The other one is told when the batch is entered in the ledger.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for running in [&one, &other, &one] {
        assert_eq!(running.post(&id, BODY.as_bytes()).await.status, 200);
    }
    assert_eq!(intake.stored().await, 0);
    let answer = one.post(&[], BODY.as_bytes()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("`x-id`"), "{}", answer.body);
    assert_eq!(other.post(&[("x-id", "d-2")], BODY.as_bytes()).await.status, 200);
    assert_eq!(intake.batch().await.records.id(0), "d-2");
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn the_same_content_without_an_id_is_pushed_each_time() {
    let mut intake = Intake::new("{webhook: {verify: none}}").await;
    let running = intake.start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        assert_eq!(running.post(&[], BODY.as_bytes()).await.status, 200);
        ids.push(intake.batch().await.records.id(0));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    running.stop().await;
}

#[tokio::test]
async fn requests_that_come_together_share_messages_and_are_ordered_by_time() {
    let mut intake = Intake::with("{webhook: {verify: none}}", |config| {
        config.push.group_wait = Duration::from_millis(200);
    })
    .await;
    let running = intake.start().await;
    // Somebody is connected who asks for nothing, so that the others wait, however slowly they come.
    let _idle = TcpStream::connect(("127.0.0.1", running.webhooks)).await.unwrap();
    let posts = (0..300).map(|number| {
        let (running, body) = (&running, format!("{{\"id\":{number}}}"));
        async move { running.post(&[], body.as_bytes()).await.status }
    });
    let statuses = futures::future::join_all(posts).await;
    assert!(statuses.iter().all(|status| *status == 200));
    let (mut records, mut messages, mut times) = (0, 0, Vec::new());
    while records < 300 {
        let batch = intake.batch().await;
        records += batch.records.len();
        messages += 1;
        times.extend((0..batch.records.len()).map(|index| batch.records.version(index)));
    }
    assert_eq!(records, 300);
    assert!(messages < 100, "{messages} messages");
    assert!(times.is_sorted_by(|one, next| one < next), "no two are of one time");
    running.stop().await;
}

#[tokio::test]
async fn what_breaks_the_limits_is_refused_by_its_own_code() {
    let push = "{webhook: {verify: none, limits: {body: 2KiB}, records: data}}";
    let intake = Intake::with(push, |config| {
        config.push.header_timeout = Duration::from_millis(300);
        config.push.body_timeout = Duration::from_millis(300);
        config.push.connections = 3;
    })
    .await;
    let running = intake.start().await;
    let large = format!("{{\"data\":{{\"id\":1,\"name\":\"{}\"}}}}", "x".repeat(3_000));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(large.as_bytes()).unwrap();
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 200);
    let gzip = ("content-encoding", "gzip");
    let chunked = ("transfer-encoding", "chunked");
    for (headers, body, status) in [
        (vec![], large.as_bytes(), 413),
        (vec![gzip], bomb.as_slice(), 413),
        (vec![gzip], b"no gzip", 400),
        (vec![("content-encoding", "br")], b"{}", 415),
        (vec![("content-type", "text/xml")], b"<a/>", 415),
        (vec![], b"", 400),
        (vec![], b"{\"data\":{\"id\":1}", 400),
        (vec![], b"{\"data\":{\"id\":1,\"id\":2}}", 400),
        (vec![], b"{\"data\":7}", 400),
        (vec![], b"{\"other\":{}}", 400),
        (vec![], b"\xff\xfe", 400),
    ] {
        let answer = running.post(&headers, body).await;
        assert_eq!(answer.status, status, "{headers:?} {}", answer.body);
    }
    assert_eq!(running.request("POST", "/hooks/other", &[], b"{}").await.status, 404);
    assert_eq!(running.request("POST", "/", &[], b"{}").await.status, 404);
    let answer = running.request("PUT", "/hooks/shop", &[], b"{}").await;
    assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "POST"));

    // A body without a length is cut off at the limit, a body that does not come at its time.
    let mut stream = TcpStream::connect(("127.0.0.1", running.webhooks)).await.unwrap();
    let head = "POST /hooks/shop HTTP/1.1\r\nhost: a\r\n";
    stream
        .write_all(format!("{head}{}: {}\r\n\r\n", chunked.0, chunked.1).as_bytes())
        .await
        .unwrap();
    for _ in 0..3 {
        stream.write_all(format!("400\r\n{}\r\n", "x".repeat(1024)).as_bytes()).await.ok();
    }
    assert_eq!(read_answer(stream).await.status, 413);
    let mut stream = TcpStream::connect(("127.0.0.1", running.webhooks)).await.unwrap();
    stream.write_all(format!("{head}content-length: 9\r\n\r\n{{").as_bytes()).await.unwrap();
    assert_eq!(read_answer(stream).await.status, 408);
    // A head that does not come ends the connection.
    let mut stream = TcpStream::connect(("127.0.0.1", running.webhooks)).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_answer(stream).await;
    assert!(answer.status == 0 || answer.status == 408, "{answer:?}");

    // Connections have a number.
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", running.webhooks)).await.unwrap();
        stream.write_all(b"POST ").await.unwrap();
        idle.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = running.post(&[], b"{\"data\":{}}").await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"));
    drop(idle);
    assert_eq!(intake.stored().await, 0, "nothing of all this is stored");
    running.stop().await;
}

#[tokio::test]
async fn a_full_stream_and_a_broker_that_is_away_are_answered_503() {
    let mut intake = Intake::with("{webhook: {verify: none}}", |config| {
        config.bus.max_bytes.raw = 1024 * 1024;
    })
    .await;
    let running = intake.start().await;
    let body = format!("{{\"id\":1,\"name\":\"{}\"}}", "x".repeat(200_000));
    let mut taken = 0;
    let refused = loop {
        let answer = running.post(&[], body.as_bytes()).await;
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken < 20, "the stream is never full");
    };
    assert_eq!(refused.status, 503);
    let seconds: u64 = refused.headers["retry-after"].parse().unwrap();
    assert!((1..60).contains(&seconds));
    for _ in 0..taken {
        intake.batch().await;
    }
    assert_eq!(running.post(&[], body.as_bytes()).await.status, 200);
    intake.batch().await;

    intake.nats.kill();
    let answer = running.post(&[], BODY.as_bytes()).await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"));
    intake.nats.restart();
    within(async { while running.post(&[], BODY.as_bytes()).await.status != 200 {} }).await;
    running.stop().await;
}

#[tokio::test]
async fn operations_patches_and_lists_are_read_as_declared() {
    let push = "{webhook: {verify: none, records: data.object, id: {field: id}, operation: \
                {field: type, delete: [customer.deleted], patch: [customer.updated], \
                ignore: [ping], other: upsert}}}";
    let mut intake = Intake::new(push).await;
    let running = intake.start().await;
    for (body, operations, presence) in [
        (
            r#"{"id":"e1","type":"customer.updated","data":{"object":{"id":1}}}"#,
            vec![model::Operation::Patch],
            1,
        ),
        (
            r#"{"id":"e2","type":"customer.deleted","data":{"object":[{"id":1},{"id":2}]}}"#,
            vec![model::Operation::Delete; 2],
            1,
        ),
        (
            r#"{"id":"e3","data":{"object":{"id":1,"name":null}}}"#,
            vec![model::Operation::Upsert],
            2,
        ),
    ] {
        assert_eq!(running.post(&[], body.as_bytes()).await.status, 200, "{body}");
        let batch = intake.batch().await;
        let found: Vec<_> =
            (0..batch.records.len()).map(|index| batch.records.operation(index)).collect();
        assert_eq!((found, batch.records.columns.num_columns()), (operations, presence), "{body}");
    }
    assert_eq!(running.post(&[], br#"{"id":"e4","type":"ping"}"#).await.status, 200);
    assert_eq!(intake.stored().await, 0);
    running.stop().await;
}

#[tokio::test]
async fn basic_bearer_and_addresses_are_checked() {
    let token = secret("t0ken");
    let bearer = format!("{{webhook: {{verify: {{bearer: {{tokens: [{}]}}}}}}}}", token.reference);
    let intake = Intake::new(&bearer).await;
    let running = intake.start().await;
    for (authorization, status) in
        [("", 401), ("Bearer t0ke", 401), ("Basic t0ken", 401), ("bearer t0ken", 200)]
    {
        let answer = running.post(&[("authorization", authorization)], BODY.as_bytes()).await;
        assert_eq!(answer.status, status, "{authorization}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
    }
    running.stop().await;

    let basic = format!(
        "{{webhook: {{verify: {{basic: {{user: shop, passwords: [{}]}}}}, \
         allow_addresses: [127.0.0.0/8]}}}}",
        token.reference
    );
    let intake = Intake::new(&basic).await;
    let running = intake.start().await;
    // shop:t0ken and shop:token
    for (credentials, status) in [("c2hvcDp0MGtlbg==", 200), ("c2hvcDp0b2tlbg==", 401)] {
        let authorization = format!("Basic {credentials}");
        let answer = running.post(&[("authorization", &authorization)], BODY.as_bytes()).await;
        assert_eq!(answer.status, status);
    }
    running.stop().await;

    let elsewhere = "{webhook: {verify: none, allow_addresses: [192.0.2.0/24]}}";
    let intake = Intake::with(elsewhere, |config| {
        config.push.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let running = intake.start().await;
    for (forwarded, status) in [
        ("", 401),
        ("192.0.2.7", 200),
        ("192.0.2.7, 198.51.100.1", 401),
        ("198.51.100.1, 192.0.2.7", 200),
        ("192.0.2.7, nonsense", 401),
    ] {
        let answer = running.post(&[("x-forwarded-for", forwarded)], BODY.as_bytes()).await;
        assert_eq!(answer.status, status, "{forwarded}");
    }
    running.stop().await;
}
