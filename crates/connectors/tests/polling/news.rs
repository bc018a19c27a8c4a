//! Only what is new.

use std::time::Duration;

use connect::{PartCursor, RunOptions};
use testkit::http::{Reply, Server};

use crate::support::*;

/// Gives the records whose time is not before `since`.
async fn since_server() -> Server {
    Server::start(|request, _| {
        let query = query(request);
        let since = query.get("since").cloned().unwrap_or_default();
        let until = query.get("until").cloned().unwrap_or("9".to_owned());
        let records: Vec<String> = (1..=5)
            .map(|day| (day, format!("2026-01-0{day}T00:00:00Z")))
            .filter(|(_, at)| *at >= since && *at < until)
            .map(|(day, at)| format!("{{\"id\":{day},\"at\":\"{at}\"}}"))
            .collect();
        json(format!("[{}]", records.join(",")))
    })
    .await
}

#[tokio::test]
async fn a_run_asks_from_the_greatest_value_less_the_lookback() {
    let server = since_server().await;
    let settings = "path: /a\nkey: [id]\nincremental: {field: at, param: since, start: 2026-01-02, lookback: 1d}";
    let source = source(&server.url(), settings);
    let first = run(&*source, "").await;
    assert_eq!(first.rows, ["2", "3", "4", "5"]);
    let second = run(&*source, first.end()).await;
    assert_eq!(second.rows, ["4", "5"]);
    assert_eq!(query(&server.requests()[1])["since"], "2026-01-04T00:00:00Z");
    assert_eq!(second.ids, first.ids[2..], "what is read again has the same ids");
    let full = source
        .parts(&[PartCursor { part: String::new(), cursor: second.end().to_owned() }], true)
        .await
        .unwrap();
    assert!(full.with_news[0].cursor.contains("1767312000000000"), "{:?}", full.with_news);
}

#[tokio::test]
async fn steps_cover_everything_once() {
    let server = since_server().await;
    let settings = "path: /a\nincremental: {field: at, param: since, until_param: until, start: 2026-01-01, end: 2026-01-05, step: 36h}";
    let reading = run(&*source(&server.url(), settings), "").await;
    assert_eq!(reading.rows, ["1", "2", "3", "4"]);
    let asked: Vec<String> = server
        .requests()
        .iter()
        .map(|request| format!("{}/{}", query(request)["since"], query(request)["until"]))
        .collect();
    assert_eq!(
        asked,
        [
            "2026-01-01T00:00:00Z/2026-01-02T12:00:00Z",
            "2026-01-02T12:00:00Z/2026-01-04T00:00:00Z",
            "2026-01-04T00:00:00Z/2026-01-05T00:00:00Z"
        ]
    );
    // The end is reached.
    let after = run(&*source(&server.url(), settings), reading.end()).await;
    assert!(after.rows.len() <= 1 && server.count() <= 4);
}

#[tokio::test]
async fn what_the_api_does_not_leave_out_is_left_out_here() {
    let body =
        r#"[{"id":1,"v":{"n":5}},{"id":2,"v":{"n":7}},{"id":3,"v":null},{"id":4,"v":{"n":9}}]"#;
    let server = Server::start(move |_, _| json(body)).await;
    let settings = "path: /a\nincremental: {field: v.n, type: number, filter: true, start: 6}";
    let source = source(&server.url(), settings);
    let first = run(&*source, "").await;
    assert_eq!(first.rows, ["2", "3", "4"]);
    assert_eq!(run(&*source, first.end()).await.rows, ["3", "4"]);
}

#[tokio::test]
async fn a_value_in_the_future_does_not_hide_what_comes_until_then() {
    let server = Server::start(|_, _| {
        json(r#"[{"id":1,"at":"9999-12-31T00:00:00Z"},{"id":2,"at":"2026-01-01T00:00:00Z"}]"#)
    })
    .await;
    let source = source(&server.url(), "path: /a\nincremental: {field: at, param: since}");
    let first = run(&*source, "").await;
    run(&*source, first.end()).await;
    let since = query(&server.requests()[1])["since"].clone();
    assert!(since.starts_with("20"), "{since}");
}

#[tokio::test]
async fn a_token_of_the_last_answer_is_sent_by_the_next_run() {
    let server = Server::start(|request, _| {
        let token: u64 = query(request).get("sync").map_or(0, |text| text.parse().unwrap());
        json(format!("{{\"items\":[{{\"id\":{token}}}],\"sync\":\"{}\"}}", token + 1))
    })
    .await;
    let settings = "path: /a\nrecords: items\nincremental: {token: {body: sync}, param: sync}";
    let source = source(&server.url(), settings);
    let mut cursor = String::new();
    for expected in ["0", "1", "2"] {
        let reading = run(&*source, &cursor).await;
        assert_eq!(reading.rows, [expected]);
        cursor = reading.end().to_owned();
    }
}

#[tokio::test]
async fn a_range_leaves_the_cursor_alone() {
    let server = since_server().await;
    let settings =
        "path: /a\nincremental: {field: at, param: since, until_param: until, filter: true}";
    let usual = source(&server.url(), settings);
    let first = run(&*usual, "").await;
    let options = RunOptions {
        from: Some("2026-01-02".to_owned()),
        to: Some("2026-01-04".to_owned()),
        ..RunOptions::default()
    };
    let backfill = source_with(&server.url(), settings, options);
    let range = run(&*backfill, first.end()).await;
    assert_eq!(range.rows, ["2", "3"]);
    assert_eq!(range.end(), first.end());
    let wrong = RunOptions { from: Some("soon".to_owned()), ..RunOptions::default() };
    let wrong = source_with(&server.url(), settings, wrong);
    assert!(wrong.parts(&[], false).await.unwrap_err().what.contains("soon"));
}

#[tokio::test]
async fn unchanged_pages_cost_nothing_and_keep_leading_on() {
    let server = Server::start(|request, _| {
        let page: u64 = query(request).get("p").map_or(0, |text| text.parse().unwrap());
        let tag = format!("\"v{page}\"");
        if request.header("if-none-match") == Some(&tag) {
            return Reply::new(304, "").with("ETag", &tag);
        }
        let next =
            if page < 2 { format!(",\"next\":\"/a?p={}\"", page + 1) } else { String::new() };
        json(format!("{{\"data\":{}{next}}}", list([page]))).with("ETag", &tag)
    })
    .await;
    let source = source(&server.url(), "path: /a\nrecords: data");
    let first = run(&*source, "").await;
    assert_eq!(first.rows, ["0", "1", "2"]);
    let second = run(&*source, first.end()).await;
    assert!(second.rows.is_empty());
    assert_eq!((second.usage.calls, second.usage.not_modified), (3, 3));
    assert_eq!(second.usage.received_bytes, 0);
    let third = run(&*source, second.end()).await;
    assert_eq!(third.usage.not_modified, 3);
    // A page that has changed is read.
    server.answer(|request, _| match request.header("if-none-match") {
        Some("\"v0\"") | Some("\"v2\"") => Reply::new(304, ""),
        _ => json("{\"data\":[{\"id\":7}],\"next\":\"/a?p=2\"}"),
    });
    assert_eq!(run(&*source, third.end()).await.rows, ["7"]);
}

#[tokio::test]
async fn a_mirror_is_never_told_that_nothing_has_changed() {
    let server = Server::start(|request, _| match request.header("if-modified-since") {
        Some(_) => Reply::new(304, ""),
        None => json(list(0..3)).with("Last-Modified", "Mon, 23 Nov 2026 22:00:00 GMT"),
    })
    .await;
    let mirror = format!(
        "pipeline: shop\nsource: {{http: {{base_url: {}, allow_private: true, path: /a}}}}\nkey: [id]\n\
         targets: {{store: {{sqlite: {{path: x, table: t}}, mode: snapshot}}}}\n",
        server.url()
    );
    let mirror = spec::parse("test", &mirror).unwrap();
    let mirror = connectors::source(&mirror, None, &[], &context()).unwrap();
    let usual = source(&server.url(), "path: /a");
    for (source, second) in [(usual, 0), (mirror, 3)] {
        let first = run(&*source, "").await;
        assert_eq!(run(&*source, first.end()).await.rows.len(), second);
    }
}

#[tokio::test]
async fn a_slow_source_is_read_more_slowly_and_faster_again() {
    let server = Server::start(|request, number| {
        let page: u64 = query(request)["page"].parse().unwrap();
        let reply = json(if page < 14 { list([page]) } else { "[]".to_owned() });
        match number {
            5..=7 => Reply::Slow(Duration::from_millis(200), Box::new(reply)),
            _ => reply,
        }
    })
    .await;
    let settings = "path: /a\npaginate: {page: {param: page}}\nslow_down_factor: 3";
    let reading = run(&*source(&server.url(), settings), "").await;
    let at: Vec<_> = server.requests().iter().map(|request| request.at).collect();
    let gap = |index: usize| at[index + 1] - at[index];
    assert!(gap(2) < Duration::from_millis(150), "{:?}", gap(2));
    assert!(gap(6) >= Duration::from_millis(400), "{:?}", gap(6));
    assert!(gap(12) < gap(7), "{:?} {:?}", gap(12), gap(7));
    assert!(reading.usage.slowed_ms >= 600, "{:?}", reading.usage);
    assert_eq!(reading.rows.len(), 13);
}
