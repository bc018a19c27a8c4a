//! Any request to a webhook is read or refused, and nobody is believed who does not know the secret.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spec::Pipeline;

static HOOKS: LazyLock<Vec<Pipeline>> = LazyLock::new(|| {
    [
        "verify: {standard_webhooks: {secrets: [\"${env:S}\"]}}",
        "verify: {stripe: {secrets: [\"${env:S}\"]}}, records: data.object",
        "verify: {slack: {secrets: [\"${env:S}\"]}}",
        "verify: {github: {secrets: [\"${env:S}\"]}}, operation: {field: action, delete: [deleted]}",
        "verify: {shopify: {secrets: [\"${env:S}\"]}}, id: {field: a.b}",
        "verify: {basic: {user: ada, passwords: [\"${env:S}\"]}}, limits: {body: 1KiB}",
        "verify: {bearer: {tokens: [\"${env:S}\"]}}, id: {header: X-Delivery}",
    ]
    .into_iter()
    .map(pipeline)
    .collect()
});

fuzz_target!(
    init: assert_eq!(HOOKS.len(), 7),
    |content: &[u8]| {
        let (headers, body) = fuzz::message(content);
        for pipeline in HOOKS.iter() {
            let push = pipeline.triggers.push.as_ref().expect("it is declared");
            let webhook = push.webhook.as_ref().expect("it is declared");
            let is_believed =
                extractor::fuzz::read_request(&pipeline.name, webhook, &headers, &body);
            assert!(!is_believed, "nothing was signed: {webhook:?}");
        }
    }
);

fn pipeline(webhook: &str) -> Pipeline {
    let yaml = format!(
        "pipeline: fuzz\nsource: {{push: {{}}}}\ntriggers: {{push: {{webhook: {{{webhook}}}}}}}\n\
         schema: {{id: integer, name: text}}\nkey: [id]\n\
         targets: {{store: {{sqlite: {{path: store.db, table: t}}}}}}\n"
    );
    spec::parse("fuzz.yaml", &yaml).expect("the pipeline is right")
}
