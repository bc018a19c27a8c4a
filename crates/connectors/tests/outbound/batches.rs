use std::sync::Arc;

use model::RunId;
use serde_json::{Value, json};
use testkit::http::{Reply, Request, Server};

use crate::support::{api, batch, counts};

const RESULTS: &str = "batch: {size: 3, method: POST, path: /batch, \
                       body: {json: {items: \"{{ records }}\", n: \"{{ count }}\"}}, \
                       results: {list: results, key: id, status: status}}";

fn ids(request: &Request) -> Vec<i64> {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let items = body.get("items").unwrap_or(&body).as_array().unwrap();
    items.iter().map(|item| item["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn each_record_of_a_batch_has_its_own_result() {
    let server = Server::start(|request, _| {
        let status = |id: i64| if id == 2 { 422 } else { 200 };
        let mut results: Vec<Value> =
            ids(request).into_iter().map(|id| json!({"id": id, "status": status(id)})).collect();
        results.reverse();
        Reply::new(207, json!({"results": results}).to_string())
    })
    .await;
    let target = api(&Arc::default(), &server.url(), RESULTS);
    let rows: Vec<_> = (0..7).map(|id| (id, None, None)).collect();
    let written = target.write(&[batch(RunId::generate(), 1, &rows)]).await.unwrap();
    assert_eq!(counts(&written), (6, 0, 1));
    assert_eq!(written[0].refused[0].index, 2);
    let mut sizes: Vec<_> = server.requests().iter().map(|request| ids(request).len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 3, 3]);
    assert!(server.requests().iter().all(|request| request.path == "/batch"));
}

#[tokio::test]
async fn a_batch_that_is_refused_is_halved_until_the_record_is_alone() {
    let server = Server::start(|request, _| {
        Reply::new(if ids(request).contains(&5) { 400 } else { 200 }, "")
    })
    .await;
    let more = "batch: {size: 8, method: POST, path: /batch}";
    let target = api(&Arc::default(), &server.url(), more);
    let rows: Vec<_> = (0..8).map(|id| (id, None, None)).collect();
    let written = target.write(&[batch(RunId::generate(), 1, &rows)]).await.unwrap();
    assert_eq!(counts(&written), (7, 0, 1));
    assert_eq!(written[0].refused[0].index, 5);
    assert_eq!(server.count(), 7, "1 of 8, 2 of 4, 2 of 2, 2 of 1");
}

#[tokio::test]
async fn records_of_one_key_go_in_different_calls_one_after_the_other() {
    let server = Server::always(200).await;
    let more = "batch: {size: 10, method: POST, path: /batch}";
    let target = api(&Arc::default(), &server.url(), more);
    let rows = [(1, Some("a"), None), (2, Some("b"), None), (1, Some("c"), None)];
    let written = target.write(&[batch(RunId::generate(), 1, &rows)]).await.unwrap();
    assert_eq!(counts(&written), (3, 0, 0));
    let calls: Vec<_> = server.requests().iter().map(ids).collect();
    assert_eq!(calls, [vec![1, 2], vec![1]]);
}

#[tokio::test]
async fn a_result_that_is_missing_is_no_success() {
    let server = Server::start(|_, _| Reply::new(200, r#"{"results": []}"#)).await;
    let memory = Arc::default();
    let target = api(&memory, &server.url(), RESULTS);
    let rows = [(1, None, None), (2, None, None)];
    target.write(&[batch(RunId::generate(), 1, &rows)]).await.unwrap_err();

    let more = format!("{RESULTS}\nidempotent: no");
    let target = api(&Arc::default(), &server.url(), &more);
    let written = target.write(&[batch(RunId::generate(), 1, &rows)]).await.unwrap();
    assert_eq!(counts(&written), (0, 0, 2));
    assert_eq!(written[0].refused[0].code, "unknown_outcome");
}
