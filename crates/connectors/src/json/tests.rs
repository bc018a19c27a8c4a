//! JSON texts, bad ones first.

use connect::{Limits, Source as _};
use model::{Contract, Remedy};
use rand::{Rng, SeedableRng, rngs::StdRng};
use spec::JsonLayout;

use super::Source;
use crate::files::reading::{
    Folder, ONE_BY_ONE, Reading, check_resuming, gzip, read_all, read_news, try_read,
};

fn lines(path: &str) -> Source {
    source(path, JsonLayout::Lines)
}

fn array(path: &str, keys: &[&str]) -> Source {
    source(path, JsonLayout::Array(keys.iter().map(|key| (*key).to_owned()).collect()))
}

fn source(path: &str, layout: JsonLayout) -> Source {
    let config = spec::JsonSource { path: path.to_owned(), layout };
    Source::new(&config, Contract::default(), None, &[])
}

async fn read_lines(text: impl AsRef<[u8]>) -> Reading {
    let folder = Folder::new();
    let path = folder.write("f.ndjson", text);
    read_all(&lines(&path), Limits::default()).await
}

async fn read_array(text: impl AsRef<[u8]>, keys: &[&str]) -> (Reading, Option<connect::Error>) {
    let folder = Folder::new();
    let path = folder.write("f.json", text);
    try_read(&array(&path, keys), &path, "", ONE_BY_ONE).await
}

const BAD: [(&str, &str); 10] = [
    (r#"{"a":1,"a":2}"#, "duplicate_key"),
    (r#"{"a":{"b":1,"b":1}}"#, "duplicate_key"),
    (r#"{"a":1 "b":2}"#, "syntax"),
    (r#"{"a":01}"#, "syntax"),
    (r#"{"a":"x	y"}"#, "syntax"),
    ("nothing", "syntax"),
    ("7", "shape"),
    ("[1]", "shape"),
    ("null", "shape"),
    ("\"{}\"", "shape"),
];

#[tokio::test]
async fn a_bad_line_is_refused_and_its_neighbours_are_read() {
    let more = [
        (&b"{\"a\":1"[..], "syntax"),
        (b"{\"a\":\"\xFF\"}", "encoding"),
        (b"{\"a\":1}{\"a\":2}", "syntax"),
        (b"{\"a\":\"x", "syntax"),
    ];
    let bad = BAD.iter().map(|(text, code)| (text.as_bytes(), *code));
    for (bad, code) in bad.chain(more) {
        for end in [&b"\n"[..], b"\r\n"] {
            let text = [b"{\"a\":1}", end, end, bad, end, b"  {\"a\":2}", end].concat();
            let reading = read_lines(&text).await;
            assert_eq!(reading.codes(), [(code, 3)], "{}", text.escape_ascii());
            assert_eq!(reading.refused[0].raw, bad);
            assert!(reading.refused[0].message.contains("line 3, column"));
            assert_eq!(reading.texts(), [["1"], ["2"]]);
            assert_eq!(reading.positions(), [1, 4]);
        }
    }
}

#[tokio::test]
async fn a_bad_element_is_refused_and_its_neighbours_are_read() {
    for (bad, code) in BAD {
        let text = format!("[{{\"a\":1}},\n  {bad}\n, {{\"a\":2}} ]\n");
        let (reading, error) = read_array(&text, &[]).await;
        assert!(error.is_none(), "{bad}: {}", error.unwrap());
        assert_eq!(reading.codes(), [(code, 2)], "{bad}");
        assert_eq!(reading.refused[0].raw, bad.as_bytes());
        let message = &reading.refused[0].message;
        assert!(message.starts_with("line 2, column"), "{message}");
        assert_eq!(reading.positions(), [1, 3]);
    }
}

#[tokio::test]
async fn a_broken_document_stops_the_run_at_its_place() {
    for (text, keys, place) in [
        ("", &[][..], "line 1, column 1"),
        ("{\"a\":1}", &[], "line 1, column 1"),
        ("[{\"a\":1}", &[], "line 1, column 9"),
        ("[{\"a\":1},\n{\"a\":", &[], "line 2, column 6"),
        ("[{\"a\":1},\n {\"a\":\"x]\n", &[], "line 3, column 1"),
        ("[{\"a\":1}\n {\"a\":2}]", &[], "line 2, column 2"),
        ("[{\"a\":1},]", &[], "line 1, column 10"),
        ("[,{\"a\":1}]", &[], "line 1, column 2"),
        ("[{\"a\":1}}", &[], "line 1, column 9"),
        ("[{\"a\":1}]\n[{\"a\":2}]", &[], "line 2, column 1"),
        ("[{\"a\":1}] x", &[], "line 1, column 11"),
        ("{\"b\":[{\"a\":1}]}", &["c"], "line 1, column 15"),
        ("{\"b\":7}", &["b"], "line 1, column 6"),
        ("{\"b\":{\"c\":{}}}", &["b", "c"], "line 1, column 11"),
        ("{\"b\":[{\"a\":1}]", &["b"], "line 1, column 15"),
        ("{\"b\":[{\"a\":1}],\"b\":[]}", &["b"], "line 1, column 20"),
        ("{\"b\" [{\"a\":1}]}", &["b"], "line 1, column 6"),
        ("{\"x\":1,", &["b"], "line 1, column 8"),
    ] {
        let (_, error) = read_array(text, keys).await;
        let error = error.unwrap_or_else(|| panic!("{text} is broken"));
        assert_eq!(error.remedy, Remedy::Stop);
        assert!(error.what.contains(&format!("f.json` {place}:")), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused_alone() {
    let limits = Limits { record_bytes: 1_000, ..Limits::default() };
    let folder = Folder::new();
    for size in [1_001, 300_000] {
        let large = format!("{{\"a\":\"{}\"}}", "}\\\"".repeat((size - 8) / 3 + 1));
        let path = folder.write("f.ndjson", format!("{{\"a\":1}}\n{large}\n{{\"a\":2}}\n"));
        let reading = read_all(&lines(&path), limits).await;
        assert_eq!(reading.codes(), [("size", 2)]);
        assert_eq!(reading.refused[0].raw, large.as_bytes()[..1_000]);
        assert_eq!(reading.positions(), [1, 3]);

        let path = folder.write("f.json", format!("[{{\"a\":1}},\n{large}, {{\"a\":2}}]"));
        let reading = read_all(&array(&path, &[]), limits).await;
        assert_eq!(reading.codes(), [("size", 2)]);
        assert_eq!(reading.refused[0].raw, large.as_bytes()[..1_000]);
        assert!(reading.refused[0].message.starts_with("line 2:"));
        assert_eq!(reading.positions(), [1, 3]);
    }
    let right = format!("{{\"a\":\"{}\"}}", "x".repeat(992));
    let path = folder.write("f.ndjson", format!("{right}\r\n{right}"));
    assert_eq!(read_all(&lines(&path), limits).await.rows.len(), 2, "right at the limit");
}

#[tokio::test]
async fn columns_are_what_the_records_of_a_chunk_have() {
    let reading =
        read_lines("{\"b\":1,\"a\":null}\n{}\n{\"a\":{\"x\": 1.50},\"c\":\"\\u0000\"}\n").await;
    let rows: Vec<Vec<_>> = reading
        .rows
        .iter()
        .map(|row| {
            row.values.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect()
        })
        .collect();
    assert_eq!(
        rows,
        [
            vec![("b", Some("1")), ("a", None)],
            vec![],
            vec![("a", Some("{\"x\": 1.50}")), ("c", Some("\"\\u0000\""))]
        ],
        "absent is not null, and values stay as they are written"
    );
    assert_eq!(read_lines("{}\n").await.rows.len(), 1, "a record without fields is a record");
}

#[tokio::test]
async fn numbers_keep_their_digits() {
    for number in ["12345678901234567890123", "0.10000000000000000000000001", "1e400", "-0.0"] {
        let reading = read_lines(format!("{{\"n\": {number} }}")).await;
        assert_eq!(reading.texts(), [[number]]);
    }
}

#[tokio::test]
async fn fields_that_differ_from_record_to_record_do_not_make_a_chunk_large() {
    let text: String = (0..5_000).map(|row| format!("{{\"k{row}\":{row}}}\n")).collect();
    let folder = Folder::new();
    let path = folder.write("f.ndjson", text);
    let reading = read_all(&lines(&path), Limits::default()).await;
    assert_eq!(reading.rows.len(), 5_000);
    assert!(reading.cursors.len() > 5);
}

#[tokio::test]
async fn an_array_is_found_at_its_path_and_the_rest_is_passed() {
    let large = "[{\"x\":\"]}\"}],".repeat(30_000);
    let text = format!(
        "\u{FEFF}{{\"meta\":{{\"items\":[{{}}]}},\n \"junk\":[{large}0],\"d\\u0061ta\":{{\"n\":1,\"items\":\
         [ {{\"a\":1}},{{\"a\":2}}\n] , \"next\":null }},\"z\":[1]}}\n"
    );
    let (reading, error) = read_array(&text, &["data", "items"]).await;
    assert!(error.is_none(), "{}", error.unwrap());
    assert_eq!(reading.texts(), [["1"], ["2"]]);
    assert!(reading.rows[1].id.ends_with(":2"));
    let (reading, error) = read_array(" [ ] ", &[]).await;
    assert!(error.is_none() && reading.rows.is_empty());
}

#[tokio::test]
async fn every_encoding_can_be_resumed() {
    let document = "[{\"a\":\"Zoë\"}, {\"a\":2},\n7 ,{\"b\":\"€\"},{\"a\":[1,{}]}\n ]\n";
    let ndjson = "{\"a\":\"Zoë\"}\r\n\r\n{\"a\":2}\n7\n{\"b\":\"€\"}\n{\"a\":[1,{}]}";
    let utf16 = |text: &str| -> Vec<u8> {
        std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect()
    };
    let folder = Folder::new();
    for pack in [<[u8]>::to_vec, gzip as fn(&[u8]) -> Vec<u8>] {
        for encode in [|text: &str| text.as_bytes().to_vec(), utf16 as fn(&str) -> Vec<u8>] {
            let path = folder.write("f.json", pack(&encode(document)));
            let ndjson_path = folder.write("f.ndjson", pack(&encode(ndjson)));
            for source in [array(&path, &[]), lines(&ndjson_path)] {
                let reading = read_all(&source, Limits::default()).await;
                assert_eq!(reading.texts(), [["\"Zoë\""], ["2"], ["\"€\""], ["[1,{}]"]]);
                assert_eq!(reading.refused.len(), 1);
                check_resuming(&source, ONE_BY_ONE).await;
            }
        }
    }
}

#[tokio::test]
async fn an_array_that_has_grown_gives_its_new_elements_only() {
    for (before, after) in [
        ("[{\"a\":1}\n]", "[{\"a\":1},\n{\"a\":2}\n]\n"),
        ("{\"r\":[{\"a\":1}],\"total\":1}", "{\"r\":[{\"a\":1},{\"a\":2}],\"total\":2}"),
    ] {
        let folder = Folder::new();
        let path = folder.write("f.json", before);
        let keys = if before.starts_with('{') { &["r"][..] } else { &[] };
        let source = array(&path, keys);
        let first = read_all(&source, Limits::default()).await;
        folder.write_at("f.json", before, 30);
        let (none, ..) = read_news(&source, &path, first.last_cursor()).await;
        assert_eq!(none, None, "a touched file has no news");
        folder.write_at("f.json", after, 60);
        let (_, news, notes) = read_news(&source, &path, first.last_cursor()).await;
        assert_eq!((news.texts(), news.positions()), (vec![vec!["2"]], vec![2]));
        assert!(notes.is_empty());
        folder.write_at("f.json", after.replace("\"a\":1", "\"a\":3"), 90);
        let (_, news, notes) = read_news(&source, &path, first.last_cursor()).await;
        assert_eq!(news.texts(), [["3"], ["2"]]);
        assert_eq!(notes.len(), 1);
    }
}

#[tokio::test]
async fn lines_that_have_grown_give_the_new_ones_only() {
    for (before, after, expected) in [
        ("{\"a\":1}\n", "{\"a\":1}\n{\"a\":2}\n", vec![vec!["2"]]),
        ("{\"a\":1}", "{\"a\":1}\r\n\n{\"a\":2}", vec![vec!["2"]]),
        ("{\"a\":1}\r", "{\"a\":1}\r\n{\"a\":2}", vec![vec!["2"]]),
        // The only line was not complete, which refused it.
        ("{\"a\":1", "{\"a\":12}\n", vec![vec!["12"]]),
    ] {
        let folder = Folder::new();
        let path = folder.write("f.ndjson", before);
        let first = read_all(&lines(&path), Limits::default()).await;
        folder.write_at("f.ndjson", after, 60);
        let (_, news, _) = read_news(&lines(&path), &path, first.last_cursor()).await;
        assert_eq!(news.texts(), expected, "{before:?}");
        let whole = read_all(&lines(&path), Limits::default()).await.positions();
        assert_eq!(news.positions().last(), whole.last());
    }
}

#[tokio::test]
async fn what_is_read_does_not_depend_on_the_size_of_chunks() {
    let mut random = StdRng::seed_from_u64(9);
    let mut records = Vec::new();
    for row in 0..3_000 {
        let text = "x\\n\\\"]}".repeat(random.random_range(0..60));
        records.push(match row % 50 {
            7 => "{\"broken\":}".to_owned(),
            _ => format!("{{\"row\":{row},\"text\":\"{text}\",\"list\":[[{row}],{{\"a\":null}}]}}"),
        });
    }
    let folder = Folder::new();
    let path = folder.write("f.json", format!("[{}]", records.join(" ,\n")));
    let ndjson = folder.write("f.ndjson", records.join("\n"));
    let limits = Limits { chunk_bytes: 3_000, ..Limits::default() };
    for source in [array(&path, &[]), lines(&ndjson)] {
        let small = read_all(&source, limits).await;
        let large = read_all(&source, Limits::default()).await;
        assert!(small.cursors.len() > 10 * large.cursors.len());
        assert!(small.rows == large.rows);
        assert_eq!((small.rows.len(), small.refused.len()), (2_940, 60));
    }
}

#[tokio::test]
async fn a_schema_is_inferred_and_the_menu_names_files() {
    let folder = Folder::new();
    folder.write("1.ndjson", "{\"id\":1,\"tags\":[],\"at\":\"2024-01-05T10:00:00Z\"}\n");
    folder.write("2.ndjson", "{\"id\":2.5,\"name\":\"007\",\"at\":null}\n");
    let source = lines(&folder.path("*.ndjson"));
    let schema = source.infer().await.unwrap();
    let types: Vec<_> =
        schema.fields.iter().map(|field| format!("{} {}", field.name, field.field_type)).collect();
    assert_eq!(types, ["id decimal(18,1)", "tags json", "at timestamp", "name text"]);
    let streams = source.discover().await.unwrap();
    assert_eq!(streams[1].name, folder.path("2.ndjson"));
    assert_eq!(source.check().await.unwrap(), "2 files");
    assert!(lines(&folder.path("*.json")).check().await.is_err());
}
