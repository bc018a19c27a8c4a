//! Any answer of an API is read, the same however it is cut, or refused, and leads to a next page or to
//! none.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spec::{HttpSource, Source};

static SOURCES: LazyLock<Vec<HttpSource>> = LazyLock::new(|| {
    [
        "records: data.items, paginate: auto",
        "records: \"$.data[*].order\", paginate: {next_link: links.next, size: 2}",
        "paginate: link_header",
        "format: ndjson, paginate: {page: {param: page, first: 1}, more: meta.more}",
        "format: csv, paginate: {cursor: {header: X-Next, param: cursor}}",
        "format: xml, records: orders.order, paginate: {offset: {param: offset}, size: 2}",
    ]
    .into_iter()
    .map(source)
    .collect()
});

fuzz_target!(
    init: assert_eq!(SOURCES.len(), 6),
    |content: &[u8]| {
        let (headers, body) = fuzz::message(content);
        SOURCES.iter().for_each(|source| connectors::fuzz::read_answer(source, &headers, &body));
    }
);

fn source(settings: &str) -> HttpSource {
    let yaml = format!(
        "pipeline: fuzz\nsource: {{http: {{base_url: \"https://api.example\", auth: none, path: /orders, \
         key: [id], {settings}}}}}\n\
         schema: {{id: integer, name: text}}\nkey: [id]\n\
         targets: {{store: {{sqlite: {{path: store.db, table: t}}}}}}\n"
    );
    match spec::parse("fuzz.yaml", &yaml).expect("the pipeline is right").source {
        Source::Http(source) => *source,
        other => panic!("it is an HTTP source, not {other:?}"),
    }
}
