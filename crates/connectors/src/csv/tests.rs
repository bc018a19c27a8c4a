//! CSV texts, bad ones first.

use connect::{Limits, Source as _};
use model::{ColumnPolicy, Contract, Field, FieldType, Remedy, Schema};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Source,
    scanner::{Dialect, Found, Kind, Scanner},
    table::unescape,
};
use crate::files::reading::{
    Folder, ONE_BY_ONE, Reading, check_resuming, gzip, read_all, try_read,
};

fn config(path: &str) -> spec::CsvSource {
    spec::CsvSource {
        path: path.to_owned(),
        delimiter: b',',
        quote: Some(b'"'),
        encoding: spec::Encoding::Utf8,
        null_values: Vec::new(),
    }
}

fn source(config: &spec::CsvSource) -> Source {
    Source::new(config, Contract::default(), None, &[])
}

async fn read_text(text: impl AsRef<[u8]>) -> Reading {
    let folder = Folder::new();
    let path = folder.write("f.csv", text);
    read_all(&source(&config(&path)), Limits::default()).await
}

async fn error_of(text: impl AsRef<[u8]>) -> (Reading, connect::Error) {
    let folder = Folder::new();
    let path = folder.write("f.csv", text);
    let (reading, error) = try_read(&source(&config(&path)), &path, "", ONE_BY_ONE).await;
    (reading, error.unwrap())
}

#[tokio::test]
async fn an_unclosed_quote_stops_the_run_and_swallows_nothing() {
    let rows: String = (0..200_000).map(|row| format!("{row},name {row}\n")).collect();
    let (reading, error) = error_of(format!("a,b\n1,\"x\n{rows}")).await;
    assert!(reading.rows.is_empty() && reading.refused.is_empty());
    assert_eq!(error.remedy, Remedy::Stop);
    assert!(error.what.contains("f.csv` line 2:"), "{error}");

    let (reading, error) = error_of(format!("a,b\n1,x\n2,\"y\nz\"\n3,\"{rows}")).await;
    assert_eq!(reading.rows.len(), 2);
    assert!(error.what.contains("line 5:"), "{error}");

    let (_, error) = error_of("a,b\n\"1\n2\n\",\"\n").await;
    assert!(error.what.contains("line 4:"), "the quote is named, not the record: {error}");
    let (_, error) = error_of("\"a,b\n1,2\n").await;
    assert!(error.what.contains("line 1:"), "{error}");
}

#[tokio::test]
async fn a_bad_record_is_refused_and_its_neighbours_are_read() {
    for (bad, code, lines) in [
        (&b"1"[..], "shape", 1),
        (b"1,2,3", "shape", 1),
        (b"1,2,", "shape", 1),
        (b"1,5\" pipe", "shape", 1),
        (b"\"1\"x,2", "shape", 1),
        (b"\"1\n1\" ,2", "shape", 2),
        (b" \"1\",2", "shape", 1),
        (b"1,\xFF", "encoding", 1),
        (b"1,Zo\xEB", "encoding", 1),
    ] {
        for end in [&b"\n"[..], b"\r\n", b"\r"] {
            let mut text = b"a,b".to_vec();
            for line in [&b""[..], b"x,1", bad, b"y,2", b""] {
                text.extend(line);
                text.extend(end);
            }
            let reading = read_text(&text).await;
            assert_eq!(reading.codes(), [(code, 3)], "{}", text.escape_ascii());
            assert_eq!(reading.texts(), [["x", "1"], ["y", "2"]]);
            assert_eq!(reading.positions(), [2, 3 + lines]);
            assert_eq!(reading.refused[0].raw, bad);
            assert!(reading.refused[0].message.contains("line 3"));
        }
    }
}

#[tokio::test]
async fn a_refused_record_tells_counts_and_field_but_no_value() {
    let reading = read_text("a,b\nsecret\nsecret,x\"y\n").await;
    assert_eq!(reading.refused[0].message, "line 2: 2 fields expected, 1 found");
    assert_eq!(reading.refused[1].field, "b");
    assert!(reading.refused.iter().all(|refused| !refused.message.contains("secret")));
    assert!(reading.refused[1].id.ends_with(":3"));
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused_alone() {
    let limits = Limits { record_bytes: 1_000, ..Limits::default() };
    let folder = Folder::new();
    for (large, lines) in [
        (format!("1,{}", "x".repeat(999)), 1),
        (format!("1,{}", "x".repeat(1_000_000)), 1),
        (format!("1,\"{}\"", "x\"\"\n".repeat(300_000)), 300_001),
        (",".repeat(1_001), 1),
        (format!("1,{}\"", "x".repeat(500_000)), 1),
    ] {
        for end in ["\n", "\r\n"] {
            let text = format!("a,b{end}x,1{end}{large}{end}y,2{end}");
            let path = folder.write("f.csv", text);
            let reading = read_all(&source(&config(&path)), limits).await;
            assert_eq!(reading.codes(), [("size", 3)]);
            assert_eq!(reading.refused[0].raw, large.as_bytes()[..1_000]);
            assert_eq!(reading.positions(), [2, 3 + lines]);
        }
    }
    let path = folder.write("f.csv", format!("a,b\r\n1,{}\r\n", "x".repeat(998)));
    assert_eq!(read_all(&source(&config(&path)), limits).await.rows.len(), 1, "right at the limit");
}

#[tokio::test]
async fn a_large_record_at_the_end_does_not_hide_an_unclosed_quote() {
    let (reading, error) = error_of(format!("a,b\nx,1\n1,\"{}", "x\n".repeat(1_000_000))).await;
    assert!(reading.refused.is_empty());
    assert!(error.what.contains("line 3:"), "{error}");
}

#[tokio::test]
async fn an_empty_field_is_null_and_a_quoted_one_is_text() {
    let folder = Folder::new();
    let path = folder.write("f.csv", "a,b,c\n,\"\",x\nNULL,\"NULL\",NULLS\n,,\n");
    let config = spec::CsvSource { null_values: vec!["NULL".to_owned()], ..config(&path) };
    let reading = read_all(&source(&config), Limits::default()).await;
    assert_eq!(reading.texts(), [["~", "", "x"], ["~", "NULL", "NULLS"], ["~", "~", "~"]]);
}

#[tokio::test]
async fn line_ends_of_every_kind_end_a_record_outside_of_quotes() {
    for end in ["\n", "\r\n", "\r"] {
        let text =
            ["a,b", "", "1,\"x", "", "y\"", "2,\"He said \"\"no\"\"\"", "", "", "3,z"].join(end);
        let reading = read_text(&text).await;
        assert_eq!(
            reading.texts(),
            [vec!["1", &format!("x{end}{end}y")], vec!["2", "He said \"no\""], vec!["3", "z"]]
        );
        assert_eq!(reading.positions(), [3, 6, 9]);
    }
}

#[tokio::test]
async fn tabs_and_quotes_without_meaning() {
    let folder = Folder::new();
    let path = folder.write("f.tsv", "a\tb\n5\" pipe\t\"x\n");
    let config = spec::CsvSource { delimiter: b'\t', quote: None, ..config(&path) };
    let reading = read_all(&source(&config), Limits::default()).await;
    assert_eq!(reading.texts(), [["5\" pipe", "\"x"]]);
}

#[tokio::test]
async fn every_encoding_gives_the_same_text_and_can_be_resumed() {
    let text = "näme,b\r\nZoë,\"1\r\n2\"\r\nÅsa,x\r\n\r\nbad\r\nJörg,\r\nend,9";
    let utf16 = |big_endian: bool| -> Vec<u8> {
        std::iter::once(0xFEFF)
            .chain(text.encode_utf16())
            .flat_map(|unit: u16| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect()
    };
    let latin: Vec<u8> =
        text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect();
    let (first, second) = text.as_bytes().split_at(23);
    let members = [gzip(first), gzip(b""), gzip(second)].concat();
    for (bytes, encoding) in [
        (text.as_bytes().to_vec(), spec::Encoding::Utf8),
        ([b"\xEF\xBB\xBF", text.as_bytes()].concat(), spec::Encoding::Utf8),
        (utf16(true), spec::Encoding::Utf8),
        (utf16(false), spec::Encoding::Windows1252),
        (latin.clone(), spec::Encoding::Latin1),
        (latin, spec::Encoding::Windows1252),
        (members, spec::Encoding::Utf8),
        (gzip(&utf16(false)), spec::Encoding::Utf8),
    ] {
        let folder = Folder::new();
        let path = folder.write("f.csv", bytes);
        let source = source(&spec::CsvSource { encoding, ..config(&path) });
        let reading = read_all(&source, Limits::default()).await;
        assert_eq!(reading.texts(), [["Zoë", "1\r\n2"], ["Åsa", "x"], ["Jörg", "~"], ["end", "9"]]);
        assert_eq!(reading.rows[0].values[0].0, "näme");
        assert_eq!(reading.codes(), [("shape", 6)]);
        check_resuming(&source, ONE_BY_ONE).await;
    }
}

#[tokio::test]
async fn utf16_without_a_mark_is_named() {
    let bytes: Vec<u8> = "a,b\n1,2\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (_, error) = error_of(bytes).await;
    assert!(error.what.contains("UTF-16"), "{error}");
}

#[tokio::test]
async fn a_header_that_cannot_name_columns_stops_the_run() {
    for (text, what) in [
        ("", "is empty"),
        ("\u{FEFF}\n\n", "is empty"),
        ("a,b,a\n", "line 1: column `a` appears more than once"),
        ("\na,,b\n", "line 2: column 2 has no name"),
        ("a,\"b\"x\n", "quote"),
    ] {
        let (_, error) = error_of(text).await;
        assert!(error.what.contains(what), "{text:?}: {error}");
        assert!(error.what.contains("f.csv"));
    }
    let (_, error) = error_of(vec![b'x'; 2_000_000]).await;
    assert!(error.what.contains("too large"), "{error}");
}

fn schema(names: &[&str]) -> Schema {
    Schema { fields: names.iter().map(|name| Field::new(*name, FieldType::Text)).collect() }
}

async fn shape_error(
    header: &str,
    policy: Option<ColumnPolicy>,
    accepted: &[&str],
) -> Option<connect::Error> {
    let folder = Folder::new();
    folder.write("1.csv", "id,name,mail\n1,x,y\n");
    let path = folder.write("2.csv", format!("{header}\n1,x,y\n"));
    let contract = Contract { columns: policy, ..Contract::default() };
    let accepted: Vec<String> = accepted.iter().map(|name| (*name).to_owned()).collect();
    let schema = schema(&["id", "name", "mail"]);
    let config = config(&folder.path("*.csv"));
    let source = Source::new(&config, contract, Some(&schema), &accepted);
    let planned = source.parts(&[], false).await.err();
    let checked = source.check().await.err();
    let opened = source.open(&path, "", 0, Limits::default()).await.err();
    assert_eq!(planned.is_some(), checked.is_some());
    assert_eq!(planned.is_some(), opened.is_some());
    if let Some(error) = &planned {
        assert!(error.what.contains("2.csv` line 1:"), "{error}");
        assert_eq!(error.remedy, Remedy::Stop);
    }
    planned
}

#[tokio::test]
async fn another_header_than_the_schema_stops_the_run_and_tells_how_to_accept_it() {
    let error = shape_error("id,name,mail,phone", None, &[]).await.unwrap();
    assert!(error.what.contains("column `phone` is not in the schema"), "{error}");
    for way in ["`schema`", "evolve", "discard_value", "--accept phone"] {
        assert!(error.hint.contains(way), "{}", error.hint);
    }
    let error = shape_error("id,name,mail,phone no", None, &[]).await.unwrap();
    assert!(error.hint.contains("--accept 'phone no'"), "{}", error.hint);
    let error = shape_error("id,name", None, &[]).await.unwrap();
    assert!(error.what.contains("column `mail` is missing"), "{error}");
    assert!(error.hint.contains("--accept mail"), "{}", error.hint);
    let error = shape_error("id,name,email", None, &[]).await.unwrap();
    assert!(error.what.contains("`mail` is missing and column `email` is new"), "{error}");
    assert!(error.what.contains("renamed"), "{error}");
    let error = shape_error("id,full_name,email", Some(ColumnPolicy::Evolve), &[]).await.unwrap();
    assert!(error.what.contains("columns `name`, `mail` are missing"), "{error}");
    let error = shape_error("id,name,mail,mail", Some(ColumnPolicy::Evolve), &[]).await.unwrap();
    assert!(error.what.contains("more than once"), "{error}");
}

#[tokio::test]
async fn a_header_that_is_accepted_passes() {
    for policy in [ColumnPolicy::Evolve, ColumnPolicy::DiscardValue, ColumnPolicy::Quarantine] {
        assert!(shape_error("id,name,mail,phone", Some(policy), &[]).await.is_none());
    }
    assert!(shape_error("id,name,mail,phone", None, &["phone"]).await.is_none());
    assert!(shape_error("id,name", None, &["mail"]).await.is_none());
    assert!(shape_error("mail,id,name", None, &[]).await.is_none(), "order means nothing");
}

#[tokio::test]
async fn a_schema_is_inferred_over_all_files() {
    let folder = Folder::new();
    folder.write("1.csv", "id,zip,phone,total,day,on,note\n1,10115,+4930,12.50,2024-01-05,true,\n");
    folder.write("2.csv", "id,zip,phone,total,day,on,note\n22,01067,030,3,2024-02-29,false,\n");
    let source = source(&config(&folder.path("*.csv")));
    let schema = source.infer().await.unwrap();
    let types: Vec<_> =
        schema.fields.iter().map(|field| format!("{} {}", field.name, field.field_type)).collect();
    assert_eq!(
        types,
        [
            "id integer",
            "zip text",
            "phone text",
            "total decimal(18,2)",
            "day date",
            "on boolean",
            "note text"
        ]
    );
    assert!(schema.fields.iter().all(|field| !field.required));
    let streams = source.discover().await.unwrap();
    assert_eq!(streams.len(), 2);
    assert_eq!(streams[0].schema.fields[1].field_type, FieldType::Integer);
    assert_eq!(source.check().await.unwrap(), "2 files, 7 columns");

    folder.write("3.csv", "id,zip\n");
    let empty = self::source(&config(&folder.path("3.csv")));
    assert!(empty.infer().await.is_err());
    let names = empty.discover().await.unwrap().remove(0).schema.fields;
    assert_eq!(names.len(), 2, "the header is enough for the menu");
}

#[tokio::test]
async fn records_that_cross_blocks_and_chunks_are_whole() {
    let folder = Folder::new();
    let mut random = StdRng::seed_from_u64(3);
    let mut text = "n,t\n".to_owned();
    let mut expected = Vec::new();
    for row in 0..4_000 {
        let length = random.random_range(0..400);
        let value: String =
            (0..length).map(|_| ['a', 'é', '"', '\n', ','][random.random_range(0..5)]).collect();
        text.push_str(&format!("{row},\"{}\"\r\n", value.replace('"', "\"\"")));
        expected.push(value);
    }
    let path = folder.write("f.csv", text);
    let limits = Limits { chunk_bytes: 10_000, ..Limits::default() };
    let source = source(&config(&path));
    let reading = read_all(&source, limits).await;
    let found: Vec<_> = reading.rows.iter().map(|row| row.values[1].1.clone().unwrap()).collect();
    assert!(found == expected);
    assert!(reading.cursors.len() > 50);
    for (cursor, rows, _) in reading.cursors.iter().step_by(25) {
        let (rest, error) = try_read(&source, &path, cursor, limits).await;
        assert!(error.is_none());
        assert!(rest.rows == reading.rows[*rows..]);
    }
}

/// A field as a writer gets it.
type Value = Option<String>;

fn write(records: &[Vec<Value>], dialect: Dialect, random: &mut StdRng) -> String {
    let (delimiter, quote) = (char::from(dialect.delimiter), char::from(dialect.quote.unwrap()));
    let mut text = String::new();
    for record in records {
        if random.random_bool(0.1) {
            text.push_str(["\n", "\r\n", "\r"][random.random_range(0..3)]);
        }
        for (index, value) in record.iter().enumerate() {
            if index > 0 {
                text.push(delimiter);
            }
            if let Some(value) = value {
                let plain = !value.is_empty()
                    && !value.contains([delimiter, quote, '\n', '\r'])
                    && random.random_bool(0.7);
                if plain {
                    text.push_str(value);
                } else {
                    let doubled = value.replace(quote, &format!("{quote}{quote}"));
                    text.push_str(&format!("{quote}{doubled}{quote}"));
                }
            }
        }
        // LF may not follow CR here, or the two would be one line end.
        text.push_str(["\n", "\r\n"][random.random_range(0..2)]);
    }
    if random.random_bool(0.3) {
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
    }
    text
}

/// Reads a text whose bytes arrive in pieces, as `Text` implementations do.
fn scan(text: &[u8], dialect: Dialect, mut piece: impl FnMut() -> usize) -> Vec<Vec<Value>> {
    let mut scanner = Scanner::new(dialect);
    let (mut start, mut arrived) = (0, 0);
    let mut records = Vec::new();
    loop {
        let seen = &text[start..arrived];
        match scanner.scan(seen, arrived == text.len()) {
            Found::More => arrived = (arrived + piece()).min(text.len()),
            Found::Blank(length) => {
                start += length;
                scanner.reset();
            }
            Found::Record(length) => {
                assert_eq!(scanner.fault, None);
                let fields = scanner.fields.iter().map(|field| {
                    let bytes = &seen[field.start..field.end];
                    let mut value = Vec::new();
                    match field.kind {
                        Kind::Escaped => {
                            unescape(bytes, dialect.quote.unwrap(), |part| value.extend(part));
                        }
                        Kind::Quoted => value.extend(bytes),
                        Kind::Plain if bytes.is_empty() => return None,
                        Kind::Plain => value.extend(bytes),
                    }
                    Some(String::from_utf8(value).unwrap())
                });
                records.push(fields.collect());
                start += length;
                scanner.reset();
            }
            Found::Unclosed(_) => panic!("all quotes are closed"),
            Found::End => return records,
        }
    }
}

#[test]
fn what_a_writer_writes_is_read_however_it_arrives() {
    let mut random = StdRng::seed_from_u64(11);
    let letters = ['a', 'ü', ',', ';', '"', '\'', '\n', '\r', ' ', '€'];
    for round in 0..3_000 {
        let dialect = Dialect {
            delimiter: [b',', b';', b'\t'][round % 3],
            quote: Some([b'"', b'\''][round % 2]),
        };
        let width = random.random_range(2..5);
        let records: Vec<Vec<Value>> = (0..random.random_range(1..6))
            .map(|_| {
                (0..width)
                    .map(|_| {
                        let length = random.random_range(0..6);
                        random.random_bool(0.8).then(|| {
                            (0..length)
                                .map(|_| letters[random.random_range(0..letters.len())])
                                .collect()
                        })
                    })
                    .collect()
            })
            .collect();
        let text = write(&records, dialect, &mut random);
        let bytes = text.as_bytes();
        assert_eq!(scan(bytes, dialect, || bytes.len()), records, "{text:?}");
        assert_eq!(scan(bytes, dialect, || 1), records, "{text:?} byte by byte");
        let pieces = scan(bytes, dialect, || random.random_range(1..7));
        assert_eq!(pieces, records, "{text:?} in pieces");
    }
}

#[test]
fn any_bytes_give_the_same_records_however_they_arrive() {
    let mut random = StdRng::seed_from_u64(5);
    let dialect = Dialect { delimiter: b',', quote: Some(b'"') };
    let outline = |text: &[u8], piece: &mut dyn FnMut() -> usize, forget: bool| {
        let mut scanner = Scanner::new(dialect);
        let (mut start, mut arrived, mut record_start) = (0, 0, 0);
        let mut outline = Vec::new();
        loop {
            let seen = &text[start..arrived];
            let found = scanner.scan(seen, arrived == text.len());
            match found {
                Found::More => {
                    if forget {
                        start += scanner.forget(seen);
                    }
                    arrived = (arrived + piece()).min(text.len());
                }
                Found::Blank(length) | Found::Record(length) => {
                    start += length;
                    let is_blank = matches!(found, Found::Blank(_));
                    let bytes = start - record_start;
                    outline.push((
                        bytes,
                        is_blank,
                        scanner.count,
                        scanner.inner_lines(),
                        scanner.fault,
                    ));
                    record_start = start;
                    scanner.reset();
                }
                Found::Unclosed(lines) => {
                    outline.push((0, false, 0, lines, None));
                    return outline;
                }
                Found::End => return outline,
            }
        }
    };
    for _ in 0..20_000 {
        let length = random.random_range(0..14);
        let text: Vec<u8> =
            (0..length).map(|_| b"ab,,\"\"\"\n\r"[random.random_range(0..9)]).collect();
        let whole = outline(&text, &mut || text.len(), false);
        for forget in [false, true] {
            let bytes = outline(&text, &mut || 1, forget);
            assert_eq!(bytes, whole, "{} forgetting: {forget}", text.escape_ascii());
        }
    }
}
