//! From page to page, and on again after a crash.

use connect::Limits;
use testkit::http::{Reply, Server};

use crate::support::*;

const OFFSETS: &str =
    "path: /a\nkey: [id]\npaginate: {offset: {param: offset}, size: 5, size_param: limit}";

#[tokio::test]
async fn every_way_leads_through_all_pages() {
    let base = "path: /a\nrecords: data\n";
    let number = |text: Option<&String>| text.and_then(|text| text.parse::<u64>().ok());
    for (settings, way) in [
        ("paginate: {page: {param: p}}", "page"),
        ("paginate: {page: {param: p, first: 0}, size: 2, size_param: limit}", "page0"),
        ("paginate: {offset: {param: from}}", "offset"),
        ("paginate: {cursor: {body: meta.next, param: after}}", "token"),
        ("paginate: {cursor: {header: x-next, param: after}}", "token header"),
        ("paginate: {next_link: links.next}", "link"),
        ("paginate: link_header", "link header"),
        ("paginate: {last_key: {field: id, param: behind}}", "last"),
        ("paginate: {last_key: {field: id, param: behind}, more: more}", "last"),
        ("query: {page: \"{{ page.number }}\"}\npaginate: {page: {}, more: more}", "template"),
        ("", "auto link"),
        ("paginate: auto", "auto token"),
        ("paginate: auto", "auto numbers"),
        ("paginate: auto", "link header"),
    ] {
        let server = Server::start(move |request, _| {
            let query = query(request);
            let get = |name: &str| number(query.get(name));
            let page = match way {
                "page" => get("p").unwrap() - 1,
                "page0" => get("p").unwrap(),
                "offset" => get("from").unwrap().div_ceil(2),
                "token" | "token header" => get("after").unwrap_or(0),
                "auto token" => get("cursor").unwrap_or(0),
                "last" => get("behind").map_or(0, |last| last / 2 + 1),
                "template" => get("page").unwrap() - 1,
                "auto numbers" => get("page").map_or(0, |page| page - 1),
                _ => get("link").unwrap_or(0),
            };
            let records = list((page * 2)..(page * 2 + 2).min(5).max(page * 2));
            let more = page < 2;
            let next = page + 1;
            let link = format!("/a?link={next}");
            let body = match way {
                "token" if more => format!("\"meta\":{{\"next\":\"{next}\"}}"),
                "link" if more => format!("\"links\":{{\"next\":\"{link}\"}}"),
                "auto link" if more => format!("\"next\":\"{link}\""),
                "auto token" if more => format!("\"next_cursor\":\"{next}\""),
                "auto numbers" => format!("\"page\":{next},\"total_pages\":3"),
                _ => format!("\"more\":{more}"),
            };
            let reply = json(format!("{{\"data\":{records},{body}}}"));
            match way {
                "token header" if more => reply.with("X-Next", &next.to_string()),
                "link header" if more => {
                    reply.with("Link", &format!("<{link}>; rel=\"next\", </a>; rel=first"))
                }
                _ => reply,
            }
        })
        .await;
        let reading = run(&*source(&server.url(), &format!("{base}{settings}")), "").await;
        assert_eq!(reading.rows, texts(0..5), "{way}: {settings}");
        assert_eq!(reading.positions, [1, 2, 3, 4, 5], "{way}");
        assert!(server.count() <= 4, "{way}: {} calls", server.count());
    }
}

#[tokio::test]
async fn a_crash_at_any_page_goes_on_at_that_page_with_the_same_ids() {
    let server = offsets(1_000).await;
    let source = source(&server.url(), OFFSETS);
    let begun = source.parts(&[], false).await.unwrap().with_news[0].cursor.clone();
    let (whole, error) = open(&*source, &begun, Limits::default()).await;
    assert!(error.is_none());
    assert_eq!(whole.rows, texts(0..1_000));
    assert_eq!(server.count(), 201);
    for at in [0, 1, 99, 150, 198] {
        let (cursor, rows) = &whole.cursors[at];
        let before = server.count();
        let (rest, error) = open(&*source, cursor, Limits::default()).await;
        assert!(error.is_none());
        assert_eq!(rest.ids, whole.ids[*rows..], "from page {at}");
        assert_eq!(rest.positions, whole.positions[*rows..]);
        assert_eq!(server.count() - before, 200 - at, "no page is read again");
    }
    let again = run(&*source, whole.end()).await;
    assert_eq!(again.ids, whole.ids, "the same range gives the same ids");
}

#[tokio::test]
async fn a_crash_within_a_page_goes_on_within_it() {
    let server = offsets(10).await;
    let source = source(&server.url(), OFFSETS);
    let begun = source.parts(&[], false).await.unwrap().with_news[0].cursor.clone();
    let small = Limits { chunk_records: 2, ..Limits::default() };
    let (whole, _) = open(&*source, &begun, small).await;
    assert_eq!(whole.cursors.iter().filter(|(_, rows)| *rows > 0).count(), 7);
    for (cursor, rows) in &whole.cursors {
        let (rest, _) = open(&*source, cursor, Limits::default()).await;
        assert_eq!(rest.ids, whole.ids[*rows..]);
    }
}

#[tokio::test]
async fn a_way_that_leads_back_is_found() {
    for (settings, body) in [
        ("paginate: {next_link: next}", r#"{"data":[{"id":1}],"next":"/a?x=1"}"#),
        ("paginate: {cursor: {body: next, param: c}}", r#"{"data":[{"id":1}],"next":"same"}"#),
        ("paginate: {page: {param: ignored}}", r#"{"data":[{"id":1}]}"#),
    ] {
        let server = Server::start(move |_, _| json(body)).await;
        let source = source(&server.url(), &format!("path: /a\nrecords: data\n{settings}"));
        let error = failure(&*source).await;
        assert!(error.what.contains("read already"), "{settings}: {}", error.chain());
        assert!(server.count() <= 3, "{settings}: {}", server.count());
    }
}

#[tokio::test]
async fn a_link_to_another_server_gets_no_credentials() {
    let other = Server::always(200).await;
    let link = format!("{}/a", other.url());
    let server =
        Server::start(move |_, _| json(format!("{{\"data\":[{{\"id\":1}}],\"next\":\"{link}\"}}")))
            .await;
    let settings = "path: /a\nrecords: data\nauth: {bearer: \"${env:T}\"}";
    let error = failure(&*source(&server.url(), settings)).await;
    assert!(error.what.contains("another server"), "{}", error.what);
    assert_eq!(other.count(), 0);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let other = Server::always(200).await;
    let to = other.url();
    let server = Server::start(move |_, _| Reply::new(302, "").with("Location", &to)).await;
    let error = failure(&*source(&server.url(), "path: /a")).await;
    assert!(error.what.contains("302"), "{}", error.what);
    assert_eq!(other.count(), 0);
}

#[tokio::test]
async fn addresses_inside_are_refused_unless_allowed() {
    let server = offsets(3).await;
    let port = server.address().port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let settings = OFFSETS;
        let yaml = format!(
            "pipeline: shop\nsource:\n  http:\n    base_url: http://{host}:{port}\n{}key: [id]\n\
             targets: {{store: {{sqlite: {{path: x, table: t}}}}}}\n",
            settings.lines().map(|line| format!("    {line}\n")).collect::<String>()
        );
        let pipeline = spec::parse("test", &yaml).unwrap();
        let source = connectors::source(&pipeline, None, &[], &context()).unwrap();
        let error = failure(&*source).await;
        assert!(error.hint.contains("allow_private"), "{host}: {}", error.chain());
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn an_answer_larger_than_allowed_stops() {
    let server = Server::start(|_, _| json(vec![b' '; 100_000])).await;
    let error = failure(&*source(&server.url(), "path: /a\nmax_answer: 50KiB")).await;
    assert!(error.what.contains("51200 bytes"), "{}", error.what);
}

#[tokio::test]
async fn templates_are_filled_from_everywhere() {
    let server = Server::start(|_, _| json("[]")).await;
    let settings = r#"config: {region: "e/u"}
path: "/{{ config.region }}/{{ run.params.kind }}"
method: POST
query: {key: "${env:K}", none: "{{ run.params.none }}", a: "b c"}
headers: {X-Region: "{{ config.region }}"}
body: {json: {limit: 5, kind: "{{ run.params.kind }}", page: {number: "{{ page.number }}", of: ["x"]}, none: "{{ run.params.none }}"}}"#;
    let options = connect::RunOptions {
        parameters: [("kind".to_owned(), "new ones".to_owned())].into(),
        ..connect::RunOptions::default()
    };
    run(&*source_with(&server.url(), settings, options), "").await;
    let request = &server.requests()[0];
    assert_eq!(request.path, "/e%2Fu/new%20ones?key=secret-k&a=b+c");
    assert_eq!(request.header("x-region"), Some("e/u"));
    assert_eq!(request.text(), r#"{"limit":5,"kind":"new ones","page":{"number":1,"of":["x"]}}"#);
    let form = "path: /f\nmethod: POST\nbody: {form: {a: \"1&2\", page: \"{{ page.number }}\"}}";
    run(&*source(&server.url(), form), "").await;
    assert_eq!(server.requests()[1].text(), "a=1%262&page=1");
}
