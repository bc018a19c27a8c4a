//! A scenario of the mock server Mockoon: an API whose calls are too many, and whose login expires.

use crate::{npm::NpmServer, support::*};

#[tokio::test]
async fn an_api_that_holds_back_and_forgets_the_login_is_read_whole() {
    let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/polling/mockoon.json");
    let arguments = |port: &str| {
        ["start", "--data", scenario, "--port", port, "--hostname", "127.0.0.1"]
            .into_iter()
            .chain(["--disable-log-to-file"])
            .map(Into::into)
            .collect()
    };
    let server = NpmServer::start("mockoon-cli", arguments, "Server started");
    let settings = format!(
        "auth: {{oauth2: {{token_url: \"{}/token\", client_id: us, client_secret: \"${{env:SECRET}}\"}}}}\n\
         path: /orders\nrecords: items\nkey: [id]\n\
         paginate: {{cursor: {{body: next, param: cursor}}}}",
        server.url
    );
    let source = source(&server.url, &settings);
    let begun = std::time::Instant::now();
    let reading = run(&*source, "").await;
    assert_eq!(reading.rows, ["1", "2", "3"]);
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1), "it asked for a second");
    // Two pages; one call was too many, and one came with a login that had expired.
    assert_eq!(reading.usage.calls, 4);
    let again = run(&*source, reading.end()).await;
    assert!(again.rows.is_empty());
    assert_eq!(again.usage.not_modified, 2);
}
