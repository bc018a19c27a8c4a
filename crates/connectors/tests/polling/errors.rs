//! What answers that are no good lead to.

use std::time::{Duration, Instant};

use model::Remedy;
use testkit::http::{Reply, Server};

use crate::support::*;

#[tokio::test]
async fn what_passes_is_tried_again() {
    let server = Server::start(|_, number| match number {
        0 => Reply::new(500, ""),
        1 => Reply::Cut,
        2 => Reply::Half,
        3 => Reply::new(429, ""),
        4 => Reply::Silence,
        _ => json(list(0..2)),
    })
    .await;
    let source = source(&server.url(), "path: /a\ntimeout: 200ms");
    let reading = run(&*source, "").await;
    assert_eq!(reading.rows, texts(0..2));
    assert_eq!(reading.usage.calls, 6);
}

#[tokio::test]
async fn calls_end_when_there_were_enough() {
    let server = Server::always(503).await;
    let error = failure(&*source(&server.url(), "path: /a")).await;
    assert_eq!(server.count(), 6);
    assert!(matches!(error.remedy, Remedy::Retry { .. }), "{error:?}");
}

#[tokio::test]
async fn the_wait_that_an_answer_asks_for_is_honoured_and_cut() {
    let server = Server::start(|_, number| match number {
        0 => Reply::new(429, "").with("Retry-After", "1"),
        1 => Reply::new(429, "").with("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"),
        _ => json("[]"),
    })
    .await;
    let url = server.url();
    let yaml = format!(
        "pipeline: shop\nsource: {{http: {{base_url: {url}, allow_private: true, path: /a, \
         retry: {{first: 1ms, most: 5ms, most_asked: 1500ms}}}}}}\nkey: [id]\n\
         targets: {{store: {{sqlite: {{path: x, table: t}}}}}}\n"
    );
    let pipeline = spec::parse("test", &yaml).unwrap();
    let source = connectors::source(&pipeline, None, &[], &context()).unwrap();
    let began = Instant::now();
    run(&*source, "").await;
    let at: Vec<_> = server.requests().iter().map(|request| request.at).collect();
    assert!(at[1] - at[0] >= Duration::from_millis(990));
    assert!(at[2] - at[1] >= Duration::from_millis(1_490));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn what_will_not_pass_stops_at_once() {
    for (status, hint) in [(400, "errors"), (401, "credentials"), (404, "path"), (301, "redirects")]
    {
        let server = Server::always(status).await;
        let error = failure(&*source(&server.url(), "path: /a")).await;
        assert_eq!((server.count(), error.remedy), (1, Remedy::Stop), "{status}");
        assert!(error.hint.contains(hint), "{status}: {}", error.hint);
    }
}

#[tokio::test]
async fn rules_say_what_answers_mean() {
    let server = Server::start(|request, number| match path(request) {
        "/ignored" => Reply::new(404, ""),
        "/failing" => Reply::new(200, r#"{"ok":false,"data":[{"id":1}]}"#),
        _ if number == 3 => Reply::new(410, r#"{"error":"cursor_expired"}"#),
        _ => {
            let page: u64 = query(request)["page"].parse().unwrap();
            json(if page < 3 { list([page]) } else { "[]".to_owned() })
        }
    })
    .await;
    let ignored = source(&server.url(), "path: /ignored\nerrors: [{status: 404, then: ignore}]");
    assert!(run(&*ignored, "").await.rows.is_empty());
    let failing = "path: /failing\nrecords: data\nerrors: [{body: {path: ok, equals: \"false\"}, then: fail}]";
    assert!(failure(&*source(&server.url(), failing)).await.what.contains("200"));
    let restarting = "path: /pages\npaginate: {page: {param: page}}\n\
                      errors: [{status: 400-499, body: {path: error, equals: cursor_expired}, then: restart_paging}]";
    let reading = run(&*source(&server.url(), restarting), "").await;
    assert_eq!(reading.rows, ["1", "1", "2"]);
    assert_eq!(reading.ids[0], reading.ids[1]);
}

#[tokio::test]
async fn what_cannot_be_read_stops_with_its_place() {
    let server = Server::start(|_, _| Reply::new(200, "<html>sorry</html>")).await;
    let error = failure(&*source(&server.url(), "path: /a\nrecords: data")).await;
    assert!(error.what.contains("127.0.0.1"), "{}", error.what);
    assert!(!error.chain().contains("sorry"));
}

#[tokio::test]
async fn a_bad_record_is_refused_and_its_neighbours_are_read() {
    let server = Server::start(|_, _| json(r#"[{"id":1},7,{"id":2,"id":3},{"id":4}]"#)).await;
    let reading = run(&*source(&server.url(), "path: /a"), "").await;
    assert_eq!(reading.rows, ["1", "4"]);
    assert_eq!(reading.positions, [1, 4]);
    let refused: Vec<_> = reading.refused.iter().map(|r| (r.code, r.position)).collect();
    assert_eq!(refused, [("shape", 2), ("duplicate_key", 3)]);
}
