use std::sync::Arc;

use model::RunId;
use serde_json::{Value, json};
use testkit::http::{Reply, Server};

use crate::support::{api, batch, counts, deletes};

fn body(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_record_is_one_call_and_its_repetition_none() {
    let server = Server::always(204).await;
    let memory = Arc::default();
    let more = "headers: {X-Fixed: yes}\n\
                upsert: {method: POST, path: \"/c/{{ name }}/x\", query: {city: \"{{ city }}\"}, \
                headers: {X-Id: \"{{ record.id }}\"}, \
                body: {json: {id: \"{{ id }}\", label: \"{{ name }} of {{ city }}\", tags: [new]}}}";
    // The later key replaces the one that the helper writes.
    let system = format!(
        "http:\n  base_url: {}/base\n  allow_private: true\n{}",
        server.url(),
        more.lines().map(|line| format!("  {line}\n")).collect::<String>()
    );
    let target = crate::support::target(&memory, &system);
    let batch = batch(RunId::generate(), 10, &[(7, Some("A/B"), Some("Köln"))]);
    assert_eq!(counts(&target.write(std::slice::from_ref(&batch)).await.unwrap()), (1, 0, 0));
    assert_eq!(counts(&target.write(std::slice::from_ref(&batch)).await.unwrap()), (1, 0, 0));
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/base/c/A%2FB/x?city=K%C3%B6ln");
    assert_eq!(request.header("x-fixed"), Some("yes"));
    assert_eq!(request.header("x-id"), Some("f@10:0"));
    assert_eq!(request.header("idempotency-key").map(str::len), Some(32));
    assert_eq!(body(&request.text()), json!({"id": 7, "label": "A/B of Köln", "tags": ["new"]}));
}

#[tokio::test]
async fn records_of_a_key_are_sent_in_order_and_an_older_one_never_after_a_newer() {
    let server = Server::always(200).await;
    let memory = Arc::default();
    let target = api(&memory, &server.url(), "");
    let run = RunId::generate();
    let rows: Vec<_> = (0..40)
        .map(|n| (n % 4, Some(["a", "b", "c"][usize::try_from(n % 3).unwrap()]), None))
        .collect();
    target.write(&[batch(run, 1_000, &rows)]).await.unwrap();
    let names = |id: i64| -> Vec<String> {
        let path = format!("/customers/{id}");
        let requests = server.requests();
        let own = requests.iter().filter(|request| request.path == path);
        own.map(|request| body(&request.text())["name"].as_str().unwrap().to_owned()).collect()
    };
    for id in 0..4 {
        let expected: Vec<&str> =
            rows.iter().filter(|row| row.0 == id).map(|row| row.1.unwrap()).collect();
        assert_eq!(names(id), expected);
    }
    let sent = server.count();
    let older = batch(run, 500, &[(0, Some("older"), None)]);
    assert_eq!(counts(&target.write(&[older]).await.unwrap()), (0, 1, 0));
    assert_eq!(server.count(), sent);
}

#[tokio::test]
async fn nulls_are_sent_left_out_or_cleared_as_the_field_wants() {
    let server = Server::always(200).await;
    let memory = Arc::default();
    let more = "nulls: {default: send, fields: {city: clear}}";
    let target = api(&memory, &server.url(), more);
    let run = RunId::generate();
    target.write(&[batch(run, 1, &[(1, None, None)])]).await.unwrap();
    target.write(&[deletes(batch(run, 2, &[(1, Some("A"), Some("B"))]))]).await.unwrap();
    let bodies: Vec<Value> = server.requests().iter().map(|r| body(&r.text())).collect();
    assert_eq!(bodies, [json!({"id": 1, "name": null}), json!({"id": 1, "city": null})]);
}

#[tokio::test]
async fn only_what_changed_is_sent() {
    let server = Server::always(200).await;
    let memory = Arc::default();
    let target = api(&memory, &server.url(), "only_changed: true");
    let run = RunId::generate();
    for (version, name) in [(1, "A"), (2, "A"), (3, "B")] {
        target.write(&[batch(run, version, &[(1, Some(name), Some("C"))])]).await.unwrap();
    }
    let bodies: Vec<Value> = server.requests().iter().map(|r| body(&r.text())).collect();
    assert_eq!(bodies, [json!({"id": 1, "name": "A", "city": "C"}), json!({"id": 1, "name": "B"})]);
}

#[tokio::test]
async fn a_delete_is_a_call_of_its_own_and_gone_is_gone() {
    let server = Server::start(|request, _| {
        Reply::new(if request.method == "DELETE" { 404 } else { 200 }, "")
    })
    .await;
    let memory = Arc::default();
    let target =
        api(&memory, &server.url(), "delete: {method: DELETE, path: \"/customers/{{ key }}\"}");
    let gone = deletes(batch(RunId::generate(), 2, &[(5, None, None)]));
    assert_eq!(counts(&target.write(&[gone]).await.unwrap()), (1, 0, 0));
    let requests = server.requests();
    assert_eq!(
        (requests[0].method.as_str(), requests[0].path.as_str()),
        ("DELETE", "/customers/5")
    );
    assert!(requests[0].body.is_empty());
}

#[tokio::test]
async fn a_key_is_sent_once_for_all_time() {
    let server = Server::always(200).await;
    let memory = Arc::default();
    let target = api(&memory, &server.url(), "mode: once");
    for version in 1..4 {
        let again =
            batch(RunId::generate(), version, &[(1, Some("A"), None), (1, Some("B"), None)]);
        target.write(&[again]).await.unwrap();
    }
    assert_eq!(server.count(), 1);
    // What the memory has lost, the idempotency key still tells.
    let another = api(&Arc::default(), &server.url(), "mode: once");
    another.write(&[batch(RunId::generate(), 9, &[(1, Some("C"), None)])]).await.unwrap();
    let keys: Vec<_> =
        server.requests().iter().map(|r| r.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn an_address_inside_of_a_network_is_refused() {
    let server = Server::always(200).await;
    let url = server.url();
    let system =
        format!("http:\n  base_url: {url}\n  upsert: {{method: PUT, path: \"/{{{{ id }}}}\"}}\n");
    let target = crate::support::target(&Arc::default(), &system);
    let rows = batch(RunId::generate(), 1, &[(1, None, None)]);
    let error = target.write(&[rows]).await.unwrap_err();
    assert!(error.hint.contains("allow_private"), "{}", error.chain());
    assert_eq!(server.count(), 0);
}
