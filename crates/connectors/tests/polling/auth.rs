//! How calls prove who makes them.

use connect::Limits;
use testkit::http::{Reply, Server};

use crate::support::*;

#[tokio::test]
async fn credentials_stand_where_they_are_asked_for() {
    let server = Server::start(|_, _| json("[]")).await;
    let wanted = [
        ("{api_key: {header: X-Key, value: \"${env:K}\"}}", "x-key", "secret-k"),
        ("{api_key: {cookie: sid, value: \"${env:K}\"}}", "cookie", "sid=secret-k"),
        ("{basic: {user: me, password: \"${env:P}\"}}", "authorization", "Basic bWU6c2VjcmV0LXA="),
        ("{bearer: \"${env:T}\"}", "authorization", "Bearer secret-t"),
    ];
    for (index, (auth, header, value)) in wanted.iter().enumerate() {
        run(&*source(&server.url(), &format!("path: /a\nauth: {auth}")), "").await;
        assert_eq!(server.requests()[index].header(header), Some(*value), "{auth}");
    }
    let key = "path: /a\nauth: {api_key: {query: key, value: \"${env:K}\"}}\nquery: {a: 1}";
    run(&*source(&server.url(), key), "").await;
    assert_eq!(server.requests()[4].path, "/a?a=1&key=secret-k");
}

#[tokio::test]
async fn a_key_that_a_link_repeats_stays_out_of_the_cursor() {
    let server = Server::start(|request, number| match number {
        0 => json(format!("{{\"data\":[{{\"id\":1}}],\"next\":\"{}&p=2\"}}", request.path)),
        _ => json("{\"data\":[]}"),
    })
    .await;
    let key = "path: /a\nrecords: data\nauth: {api_key: {query: key, value: \"${env:K}\"}}";
    let reading = run(&*source(&server.url(), key), "").await;
    assert!(reading.cursors.iter().all(|(cursor, _)| !cursor.contains("secret")));
    assert_eq!(server.requests()[1].path, "/a?p=2&key=secret-k");
}

/// Gives tokens `t0`, `t1`, … and takes only the last one.
async fn token_server(expires_in: u64) -> Server {
    let last = std::sync::Mutex::new(String::new());
    Server::start(move |request, number| {
        let mut last = last.lock().unwrap();
        if path(request) == "/token" {
            *last = format!("t{number}");
            return json(format!(
                "{{\"access_token\":\"{last}\",\"expires_in\":{expires_in},\"refresh_token\":\"r{number}\"}}"
            ));
        }
        match request.header("authorization") == Some(&format!("Bearer {last}")) {
            true => json("[{\"id\":1}]"),
            false => Reply::new(401, ""),
        }
    })
    .await
}

fn oauth(url: &str, more: &str) -> String {
    format!("path: /a\nauth: {{oauth2: {{token_url: {url}/token, client_id: me, {more}}}}}")
}

#[tokio::test]
async fn a_token_is_got_once_and_renewed_after_it_was_refused() {
    let server = token_server(3_600).await;
    let settings = oauth(&server.url(), "client_secret: \"${env:S}\", scope: a b");
    let context = context();
    for _ in 0..3 {
        run(&*source_in(&context, &server.url(), &settings), "").await;
    }
    let asked: Vec<String> = server.requests().iter().map(|r| path(r).to_owned()).collect();
    assert_eq!(asked, ["/token", "/a", "/a", "/a"]);
    let token = &server.requests()[0];
    assert_eq!(token.text(), "grant_type=client_credentials&scope=a+b");
    assert_eq!(token.header("authorization"), Some("Basic bWU6c2VjcmV0LXM="));
    // Somebody else gets a token, which ends ours.
    run(&*source(&server.url(), &settings), "").await;
    let before = server.count();
    assert_eq!(run(&*source_in(&context, &server.url(), &settings), "").await.rows, ["1"]);
    let asked: Vec<String> =
        server.requests()[before..].iter().map(|r| path(r).to_owned()).collect();
    assert_eq!(asked, ["/a", "/token", "/a"]);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let server = token_server(0).await;
    let settings = oauth(&server.url(), "client_secret: \"${env:S}\"");
    let context = context();
    run(&*source_in(&context, &server.url(), &settings), "").await;
    run(&*source_in(&context, &server.url(), &settings), "").await;
    let asked: Vec<String> = server.requests().iter().map(|r| path(r).to_owned()).collect();
    assert_eq!(asked, ["/token", "/a", "/token", "/a"]);
}

#[tokio::test]
async fn a_refresh_token_that_is_replaced_is_remembered_sealed() {
    use std::sync::Arc;

    use connect::{LocalMemory, Memory, Unlimited};

    let server = token_server(3_600).await;
    let settings = oauth(&server.url(), "refresh_token: \"${env:R}\"");
    let memory = Arc::new(LocalMemory::default());
    for _ in 0..2 {
        // Another process with the same memory.
        let variables: connectors::Variables = Arc::new(|_| Some("first".to_owned()));
        let context = connectors::Context::new(
            variables,
            Arc::new(Unlimited),
            Arc::clone(&memory) as Arc<dyn Memory>,
        );
        run(&*source_in(&context, &server.url(), &settings), "").await;
    }
    let sent: Vec<String> = server
        .requests()
        .iter()
        .filter(|request| path(request) == "/token")
        .map(testkit::http::Request::text)
        .collect();
    assert_eq!(
        sent,
        [
            "grant_type=refresh_token&refresh_token=first&client_id=me",
            "grant_type=refresh_token&refresh_token=r0&client_id=me"
        ]
    );
}

#[tokio::test]
async fn a_refused_client_stops_without_showing_its_secret() {
    let server = Server::start(|_, _| Reply::new(400, r#"{"error":"invalid_client"}"#)).await;
    let settings = oauth(&server.url(), "client_secret: \"${env:S}\"");
    let error = failure(&*source(&server.url(), &settings)).await;
    assert!(error.what.contains("invalid_client"), "{}", error.what);
    assert!(!error.chain().contains("secret-s"));
    assert_eq!(error.remedy, model::Remedy::Stop);
}

#[tokio::test]
async fn a_signature_covers_what_it_names() {
    let server = Server::start(|_, _| json("[]")).await;
    let settings = r#"path: /a
method: POST
query: {b: "1"}
body: {json: {x: 1}}
auth:
  hmac:
    secret: "${env:S}"
    header: X-Signature
    prefix: "v1="
    timestamp_header: X-Time
    message: "{{ timestamp }}.{{ method }} {{ path }}?{{ query }} {{ body }}""#;
    run(&*source(&server.url(), settings), "").await;
    let request = &server.requests()[0];
    let time = request.header("x-time").unwrap();
    let message = format!("{time}.POST /a?b=1 {{\"x\":1}}");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret-s");
    let signature = request.header("x-signature").unwrap().strip_prefix("v1=").unwrap();
    let tag: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap())
        .collect();
    ring::hmac::verify(&key, message.as_bytes(), &tag).unwrap();
}

#[tokio::test]
async fn a_login_is_renewed_where_a_rule_says_so() {
    let server = Server::start(|request, number| match path(request) {
        "/token" => json(format!("{{\"access_token\":\"t{number}\"}}")),
        _ if request.header("authorization") == Some("Bearer t2") => json("[{\"id\":1}]"),
        _ => Reply::new(200, r#"{"error":"session expired"}"#),
    })
    .await;
    let settings = format!(
        "{}\nerrors: [{{body: {{path: error, matches: \"session.*\"}}, then: refresh_login}}]",
        oauth(&server.url(), "client_secret: \"${env:S}\"")
    );
    let source = source(&server.url(), &settings);
    let begun = source.parts(&[], false).await.unwrap().with_news[0].cursor.clone();
    let (reading, error) = open(&*source, &begun, Limits::default()).await;
    assert!(error.is_none(), "{}", error.unwrap().chain());
    assert_eq!(reading.rows, ["1"]);
}
