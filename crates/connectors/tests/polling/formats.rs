//! Answers in every format, compressed or not.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use testkit::http::{Reply, Server};

use crate::support::*;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn every_format_is_read_and_numbers_keep_their_digits() {
    for (settings, body, expected) in [
        ("records: d", r#"{"d":[{"id":1,"n":1.10},{"id":2}]}"#, ["1:1.10", "2"]),
        ("format: ndjson", "{\"id\":1,\"n\":1.10}\n\n{\"id\":2}\r\n", ["1:1.10", "2"]),
        ("format: csv", "id,n\n1,1.10\n2,\n", ["1:1.10", "2"]),
        ("csv: {delimiter: \";\"}", "id;n\n1;1.10\n2;\n", ["1:1.10", "2"]),
        (
            "format: xml\nrecords: i",
            "<r><i id='1'><n>1.10</n></i><i id='2'/></r>",
            ["\"1\":\"1.10\"", "\"2\""],
        ),
    ] {
        let plain = Server::start(move |_, _| Reply::new(200, body)).await;
        let packed =
            Server::start(move |_, _| Reply::new(200, gzip(body)).with("Content-Encoding", "gzip"))
                .await;
        for server in [&plain, &packed] {
            let reading = run(&*source(&server.url(), &format!("path: /a\n{settings}")), "").await;
            assert_eq!(reading.rows, expected, "{settings}");
            assert_eq!(reading.positions, [1, 2]);
        }
        assert_eq!(packed.requests()[0].header("accept-encoding"), Some("gzip"));
    }
}

#[tokio::test]
async fn a_gzip_that_unpacks_to_more_than_allowed_stops() {
    let bomb = gzip(&" ".repeat(10_000_000));
    let server = Server::start(move |_, _| Reply::new(200, bomb.clone())).await;
    let error = failure(&*source(&server.url(), "path: /a\nmax_answer: 1MiB")).await;
    assert!(error.what.contains("1048576 bytes"), "{}", error.what);
}

#[tokio::test]
async fn a_schema_is_guessed_from_the_first_answers() {
    let server = Server::start(|_, _| {
        json(r#"[{"id":1,"at":"2026-01-01T00:00:00Z","total":"12.50","o":{"x":1}},{"id":2}]"#)
    })
    .await;
    let source = source(&server.url(), "path: /a\nkey: [id]");
    let schema = source.infer().await.unwrap();
    let types: Vec<String> =
        schema.fields.iter().map(|field| format!("{} {}", field.name, field.field_type)).collect();
    assert_eq!(types[0], "id integer");
    assert_eq!(types[1], "at timestamp");
    assert_eq!(types[3], "o json");
    assert_eq!(source.discover().await.unwrap()[0].key, ["id"]);
    assert!(source.check().await.unwrap().contains("2 records"));
}

#[tokio::test]
async fn single_objects_are_fetched_and_what_is_gone_is_deleted() {
    let server = Server::start(|request, number| match path(request) {
        "/orders/7%2F1" if number == 0 => Reply::new(503, ""),
        "/orders/7%2F1" => json(r#"{"order":{"id":"7/1","n":1.10}}"#),
        _ => Reply::new(404, ""),
    })
    .await;
    let settings = "path: /orders\nkey: [id]\nfetch: {path: \"/orders/{{ id }}\", records: order}";
    let source = source(&server.url(), settings);
    let ids = ["7/1".to_owned(), "8".to_owned()];
    let chunks = source.fetch(&ids, 5, connect::Limits::default()).await.unwrap();
    assert_eq!(chunks.len(), 1);
    let records = &chunks[0].records;
    records.validate().unwrap();
    assert_eq!(records.operations, Some(vec![model::Operation::Upsert, model::Operation::Delete]));
    assert_eq!((records.positions.as_slice(), records.extraction_base), (&[0, 1][..], 5));
    assert!(records.id(1).starts_with("/orders/8#"), "{}", records.id(1));
}
