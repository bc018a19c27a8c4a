//! The server `json-server`.

use crate::{npm::NpmServer, support::*};

fn json_server(folder: &std::path::Path, orders: u64) -> NpmServer {
    let orders: Vec<String> = (1..=orders)
        .map(|id| format!("{{\"id\":\"{id}\",\"customer\":{},\"total\":{id}.50}}", id % 7))
        .collect();
    let file = folder.join("db.json");
    std::fs::write(&file, format!("{{\"orders\":[{}]}}", orders.join(","))).unwrap();
    let file = file.display().to_string();
    let arguments =
        |port: &str| ["--host", "127.0.0.1", "--port", port, &file].map(Into::into).into();
    NpmServer::start("json-server", arguments, "http://")
}

#[tokio::test]
async fn its_pages_are_recognised_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let server = json_server(folder.path(), 95);
    for (settings, calls) in [
        (
            "query: {_page: \"{{ page.number }}\", _limit: \"20\"}\npaginate: {page: {}, size: 20}",
            5,
        ),
        ("query: {_page: \"1\", _limit: \"20\"}\npaginate: auto", 5),
        (
            "query: {_start: \"{{ page.offset }}\", _limit: \"20\"}\npaginate: {offset: {}, size: 20}",
            5,
        ),
        ("", 1),
    ] {
        let source = source(&server.url, &format!("path: /orders\nkey: [id]\n{settings}"));
        let reading = run(&*source, "").await;
        let expected: Vec<String> = (1..=95).map(|id| format!("\"{id}\"")).collect();
        assert_eq!(reading.rows, expected, "{settings}");
        assert_eq!(reading.usage.calls, calls, "{settings}");
        // It knows what has not changed.
        let again = run(&*source, reading.end()).await;
        assert!(again.rows.is_empty(), "{settings}");
        assert_eq!(again.usage.not_modified, calls, "{settings}");
    }
}
