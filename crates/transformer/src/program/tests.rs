use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use arrow_buffer::BooleanBuffer;
use model::{FieldType, Ids, Operation};

use super::*;
use crate::{Refused, written};

/// Makes records of one type; an unset value is null, and `absent` lists what is not there at all.
fn records(
    field_type: FieldType,
    columns: &[(&str, &[Option<&str>])],
    absent: &[(&str, usize)],
) -> Records {
    let rows = columns[0].1.len();
    let fields: Vec<_> = columns.iter().map(|(name, _)| field_type.arrow_field(name)).collect();
    let values = columns
        .iter()
        .map(|(_, values)| Arc::new(StringArray::from(values.to_vec())) as ArrayRef)
        .collect();
    let presence = columns
        .iter()
        .map(|(name, _)| {
            let is_absent = |row: usize| absent.contains(&(name, row));
            (0..rows)
                .any(is_absent)
                .then(|| (0..rows).map(|row| !is_absent(row)).collect::<BooleanBuffer>())
        })
        .collect();
    Records {
        columns: RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), values).unwrap(),
        presence,
        ids: Ids::Positions { prefix: "f.csv:".to_owned() },
        positions: (2..).take(rows).collect(),
        extraction_base: 0,
        versions: None,
        operations: None,
    }
}

fn csv(columns: &[(&str, &[Option<&str>])]) -> Records {
    records(FieldType::Text, columns, &[])
}

fn json(columns: &[(&str, &[Option<&str>])], absent: &[(&str, usize)]) -> Records {
    records(FieldType::Json, columns, absent)
}

/// Compiles a pipeline from its schema, source kind and the rest of its text.
fn program(source: &str, schema: &str, rest: &str) -> Program {
    let yaml = format!(
        "pipeline: p\nsource: {{{source}: {{path: a}}}}\nschema: {schema}\n{rest}\ntargets: \
         {{t: {{sqlite: {{path: a.db, table: t}}, mode: append}}}}\n"
    );
    let pipeline = spec::parse("p.yaml", &yaml).unwrap_or_else(|problems| {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", list.join("\n"))
    });
    let schema = pipeline.schema.clone().unwrap();
    Program::compile(&pipeline, &schema, &|name| (name == "KEY").then(|| "secret".to_owned()))
        .unwrap()
}

/// Writes every record as JSON; what is absent is left out.
fn rows(records: &Records) -> Vec<String> {
    records.validate().unwrap();
    let schema = records.columns.schema();
    (0..records.len())
        .map(|row| {
            let mut parts = Vec::new();
            for (index, field) in schema.fields().iter().enumerate() {
                if records.is_present(index, row) {
                    let mut value = String::new();
                    let field_type = FieldType::of(field).unwrap();
                    written::write_json(field_type, records.columns.column(index), row, &mut value);
                    parts.push(format!("{}={value}", field.name()));
                }
            }
            parts.join(" ")
        })
        .collect()
}

/// Writes index, code, step and field of every refusal.
fn reasons(refused: &[Refused]) -> Vec<String> {
    refused.iter().map(|r| format!("{} {} {} {}", r.index, r.code, r.step, r.field)).collect()
}

/// Runs one step on one text field `a` and writes its result.
fn step(schema: &str, step: &str, values: &[Option<&str>]) -> Outcome {
    program("csv", schema, &format!("steps: [{step}]")).apply(&csv(&[("a", values)]))
}

#[test]
fn a_text_becomes_a_value_or_is_quarantined_alone() {
    let schema = r#"{n: integer, m: "decimal(6,2)", d: date, t: timestamp, b: boolean, f: double,
        s: text, x: bytes, j: json, u: {type: date, formats: ["%d.%m.%y"]}}"#;
    let program = program("csv", schema, "");
    let outcome = program.apply(&csv(&[
        ("n", &[Some("+44"), Some("4.5"), None, Some("1"), Some("1"), Some("1")]),
        ("m", &[Some("12.5"), Some("1"), None, Some("1.234"), Some("1"), Some("1")]),
        ("d", &[Some("2024-02-29"), None, None, None, Some("29.2.24"), None]),
        ("t", &[Some("2024-01-01T00:00:00+01:00"), None, None, None, None, Some("now")]),
        ("b", &[Some("yes"), None, None, None, None, None]),
        ("f", &[Some("1e3"), None, None, None, None, None]),
        ("s", &[Some("+44"), None, None, None, None, None]),
        ("x", &[Some("aGk="), None, None, None, None, None]),
        ("j", &[Some(r#"{"a": [1.10]}"#), None, None, None, None, None]),
        ("u", &[Some("01.02.03"), None, None, None, None, None]),
    ]));
    assert_eq!(
        rows(&outcome.records)[0],
        r#"n=44 m=12.50 d="2024-02-29" t="2023-12-31T23:00:00Z" b=true f=1000 s="+44" x="aGk=" j={"a": [1.10]} u="2003-02-01""#
    );
    assert_eq!(outcome.records.positions, [2, 4]);
    assert_eq!(reasons(&outcome.refused), ["1 type  n", "3 type  m", "4 type  d", "5 type  t"]);
    let message = &outcome.refused[1].message;
    assert_eq!(message, "`m` is not a decimal(6,2) but a text of 5 digits and signs");
}

#[test]
fn json_keeps_its_digits_and_tells_absent_from_null() {
    let schema = r#"{id: integer, name: text, amount: "decimal(9,2)", tags: json, ok: boolean}"#;
    let outcome = program("json", schema, "").apply(&json(
        &[
            ("id", &[Some("1"), Some("\"2\""), Some("3"), Some("true")]),
            ("name", &[Some("\"A\\\"nna\""), Some("12.50"), Some("{}"), None]),
            ("amount", &[Some("1.5e2"), Some("null"), None, None]),
            ("tags", &[Some("[1, 2.0]"), Some("null"), None, None]),
        ],
        &[("amount", 2), ("tags", 2), ("name", 3)],
    ));
    assert_eq!(
        rows(&outcome.records),
        [
            r#"id=1 name="A\"nna" amount=150.00 tags=[1, 2.0]"#,
            r#"id=2 name="12.50" amount=null tags=null"#
        ]
    );
    assert_eq!(reasons(&outcome.refused), ["2 type  name", "3 type  id"]);
    assert!(outcome.refused[0].message.ends_with("but a JSON object"));
}

#[test]
fn a_wrong_type_follows_the_contract() {
    let values: &[Option<&str>] = &[Some("1"), Some("x"), None];
    let apply = |policy: &str| {
        program("csv", "{a: integer}", &format!("contract: {{types: {policy}}}"))
            .apply(&csv(&[("a", values)]))
    };
    let outcome = apply("discard_value");
    assert_eq!(rows(&outcome.records), ["a=1", "a=null", "a=null"]);
    assert_eq!(outcome.notes, ["values of `a` that are not an integer were left out"]);
    let outcome = apply("evolve");
    assert_eq!(rows(&outcome.records), ["a=\"1\"", "a=\"x\"", "a=null"]);
    assert_eq!(outcome.notes.len(), 1);
    let stop = apply("freeze").stop.unwrap();
    assert_eq!(stop.reason, "`a` is not an integer but a text of 1 letter in record f.csv:3");
    assert_eq!(apply("quarantine").refused.len(), 1);
}

#[test]
fn a_new_field_follows_the_contract() {
    let input =
        || json(&[("a", &[Some("1"), Some("2")]), ("b", &[None, Some("2.5")])], &[("b", 0)]);
    let apply = |source: &str, contract: &str, records: &Records| {
        program(source, "{a: integer}", contract).apply(records)
    };
    let outcome = apply("json", "", &input());
    assert_eq!(rows(&outcome.records), ["a=1", "a=2"]);
    assert_eq!(outcome.notes, ["field `b` is new; it is left out"]);
    let outcome = apply("json", "contract: {columns: evolve}", &input());
    assert_eq!(rows(&outcome.records), ["a=1", "a=2 b=2.500000000"]);
    let outcome = apply("json", "contract: {columns: quarantine}", &input());
    assert_eq!(reasons(&outcome.refused), ["1 column  b"]);
    let outcome = apply("csv", "", &csv(&[("a", &[Some("1")]), ("b", &[None])]));
    assert!(outcome.stop.unwrap().reason.contains("field `b`"));
    assert!(outcome.records.is_empty());
}

#[test]
fn constraints_hold() {
    let schema = r#"{a: {type: text, required: true, allowed: [open, paid, long1], pattern: "[a-z]+",
        min_length: 1, max_length: 4}, n: {type: integer, required: true}}"#;
    let outcome = program("csv", schema, "").apply(&csv(&[
        ("a", &[Some("open"), Some("lost"), Some("long1"), None, Some("paid"), Some("paid")]),
        ("n", &[Some("1"), Some("1"), Some("1"), Some("1"), None, Some("2")]),
    ]));
    assert_eq!(
        reasons(&outcome.refused),
        ["1 constraint  a", "2 constraint  a", "3 constraint  a", "4 constraint  n"]
    );
    assert_eq!(outcome.records.len(), 2);
    let nul = program("csv", "{a: text, b: json}", "").apply(&csv(&[
        ("a", &[Some("x"), Some("a\0b"), Some("c")]),
        ("b", &[None, None, Some(r#""\u0000""#)]),
    ]));
    assert_eq!(reasons(&nul.refused), ["1 nul  a", "2 nul  b"]);
}

#[test]
fn a_field_that_no_record_carries_is_absent() {
    let program = program("json", "{a: integer, b: text, c: {type: text, required: true}}", "");
    let outcome = program.apply(&json(
        &[("a", &[Some("1"), Some("2")]), ("c", &[Some("\"x\""), None])],
        &[("c", 1)],
    ));
    assert_eq!(rows(&outcome.records), ["a=1 c=\"x\""]);
    assert_eq!(reasons(&outcome.refused), ["1 constraint  c"]);
}

#[test]
fn texts_change() {
    let cases = [
        ("trim: [a]", vec!["\" b \""], "\"b\""),
        ("lower: [a]", vec!["ÄB"], "\"äb\""),
        ("upper: [a]", vec!["straße"], "\"STRASSE\""),
        ("mask: {fields: [a], keep_last: 2}", vec!["+4912äx"], "\"*****äx\""),
        ("mask: {fields: [a]}", vec!["ab"], "\"**\""),
        (
            r#"hash: {fields: [a], key: "${env:KEY}"}"#,
            vec!["abc"],
            "\"9946dad4e00e913fc8be8e5d3f7e110a4a9e832f83fb09c345285d78638d8a0e\"",
        ),
    ];
    for (step_text, input, expected) in cases {
        let input = input[0].trim_matches('"');
        let outcome = step("{a: text}", step_text, &[Some(input), None]);
        assert_eq!(rows(&outcome.records), [format!("a={expected}"), "a=null".to_owned()]);
    }
}

#[test]
fn fields_are_cut_and_joined() {
    let outcome = step(
        "{a: text}",
        r#"split: {field: a, separator: " ", into: [b, c]}"#,
        &[Some("x y z"), Some("x"), None],
    );
    assert_eq!(
        rows(&outcome.records),
        [r#"a="x y z" b="x" c="y z""#, r#"a="x" b="x" c=null"#, "a=null b=null c=null"]
    );
    let joined = program(
        "json",
        "{a: text, b: text}",
        "steps: [{join: {fields: [a, b], separator: \"-\", into: c}}]",
    )
    .apply(&json(
        &[("a", &[Some("\"x\""), None, None]), ("b", &[Some("\"y\""), Some("\"y\""), None])],
        &[("a", 2), ("b", 2), ("a", 1)],
    ));
    assert_eq!(rows(&joined.records), [r#"a="x" b="y" c="x-y""#, r#"b="y" c="y""#, ""]);
}

#[test]
fn objects_are_taken_apart_and_put_together() {
    let schema = "{id: integer, o: json}";
    let steps = "steps: [{flatten: {field: o, fields: {city: text, \"geo.lat\": double}}}]";
    let outcome = program("json", schema, steps).apply(&json(
        &[
            ("id", &[Some("1"), Some("2"), Some("3"), Some("4"), Some("5"), Some("6")]),
            (
                "o",
                &[
                    Some(r#"{"city": "Ulm", "geo": {"lat": 48.4}}"#),
                    Some(r#"{"geo": {}}"#),
                    Some("null"),
                    None,
                    Some("[1]"),
                    Some(r#"{"city": {}, "city": 1}"#),
                ],
            ),
        ],
        &[("o", 3)],
    ));
    assert_eq!(
        rows(&outcome.records),
        [r#"id=1 o_city="Ulm" o_geo_lat=48.4"#, "id=2", "id=3 o_city=null o_geo_lat=null", "id=4"]
    );
    assert_eq!(reasons(&outcome.refused), ["4 type 1 (flatten) o", "5 type 1 (flatten) o"]);

    let steps = "steps: [{nest: {fields: [a, b], into: o}}]";
    let outcome = program("json", "{a: text, b: \"decimal(5,2)\", c: date}", steps).apply(&json(
        &[
            ("a", &[Some(r#""x\"""#), None, None]),
            ("b", &[Some("1.5"), None, None]),
            ("c", &[None, None, None]),
        ],
        &[("a", 1), ("a", 2), ("b", 2)],
    ));
    assert_eq!(
        rows(&outcome.records),
        [r#"c=null o={"a":"x\"","b":1.50}"#, r#"c=null o={"b":null}"#, "c=null"]
    );
}

#[test]
fn the_shape_changes() {
    let steps =
        "steps: [{rename: {a: b, b: a}}, {keep: [b, a]}, {default: {b: \"7\"}}, {drop: [a]}]";
    let outcome = program("json", "{a: integer, b: text, c: text}", steps).apply(&json(
        &[("a", &[Some("1"), None, None]), ("b", &[None, None, None]), ("c", &[None, None, None])],
        &[("a", 2)],
    ));
    assert_eq!(rows(&outcome.records), ["b=1", "b=7", "b=7"]);
}

#[test]
fn casting_names_the_step() {
    let outcome = step(
        "{a: text}",
        r#"{cast: {a: {type: "decimal(12,2)", decimal_point: ","}}}"#,
        &[Some("1.234,5"), Some("1.5"), None, Some("12")],
    );
    assert_eq!(rows(&outcome.records), ["a=1234.50", "a=null", "a=12.00"]);
    assert_eq!(reasons(&outcome.refused), ["1 type 1 (cast) a"]);
    assert!(outcome.refused[0].message.ends_with("a number with misplaced separators"));
    let outcome = step(
        "{a: timestamp}",
        "{cast: {a: date}}, {cast: {a: text}}",
        &[Some("2024-05-06T23:59:59Z")],
    );
    assert_eq!(rows(&outcome.records), ["a=\"2024-05-06\""]);
}

#[test]
fn a_filter_takes_out_what_is_false_and_refuses_what_has_no_answer() {
    let outcome = step(
        "{a: \"decimal(8,2)\"}",
        "filter: \"a > 1.0\"",
        &[Some("2"), Some("1"), None, Some("1.01"), Some("0")],
    );
    assert_eq!(rows(&outcome.records), ["a=2.00", "a=1.01"]);
    assert_eq!(outcome.filtered, 2);
    assert_eq!(reasons(&outcome.refused), ["2 expression 1 (filter) "]);
    let outcome = step("{a: text}", "filter: \"a\"", &[Some("true")]);
    assert!(outcome.refused[0].message.contains("gives string, not true or false"));
}

#[test]
fn a_delete_needs_its_key_alone_and_a_patch_what_it_carries() {
    let schema = "{id: {type: integer, required: true}, n: {type: integer, required: true}}";
    let rest = "steps: [{compute: {m: {expression: \"n * 2\", type: integer}}}, \
                {filter: \"n > 5\"}]\nkey: [id]";
    let mut records = json(
        &[("id", &[Some("1"), Some("2"), Some("3")]), ("n", &[None, Some("7"), Some("1")])],
        &[("n", 0)],
    );
    records.operations = Some(vec![Operation::Delete, Operation::Upsert, Operation::Upsert]);
    let outcome = program("json", schema, rest).apply(&records);
    assert_eq!((outcome.refused.len(), outcome.filtered), (0, 1));
    assert_eq!(outcome.records.operation(0), Operation::Delete);
    let rest = "steps: [{compute: {m: {expression: \"n * 2\", type: integer}}}, \
                {default: {n: 3}}]\nkey: [id]";
    let mut records = json(&[("id", &[Some("1")]), ("n", &[None])], &[("n", 0)]);
    records.operations = Some(vec![Operation::Patch]);
    let outcome = program("json", schema, rest).apply(&records);
    assert!(outcome.refused.is_empty());
    for column in [1, 2] {
        assert!(!outcome.records.is_present(column, 0));
    }
}

#[test]
fn a_computed_field_is_present_where_an_input_is() {
    let steps = r#"steps: [{compute: {t: {expression: "coalesce(a, 0) + coalesce(b, 0)", type: integer},
        a: {expression: "t * 2", type: integer}}}]"#;
    let outcome = program("json", "{a: integer, b: integer}", steps).apply(&json(
        &[("a", &[Some("1"), Some("1"), None]), ("b", &[Some("2"), None, None])],
        &[("b", 1), ("a", 2), ("b", 2)],
    ));
    assert_eq!(rows(&outcome.records), ["a=6 b=2 t=3", "a=2 t=1", ""]);
}

#[test]
fn the_newest_of_a_key_stays() {
    let rest = "steps: [{dedupe: [k]}]\nkey: [k]\nnewest_by: v";
    let outcome = program("csv", "{k: text, v: timestamp}", rest).apply(&csv(&[
        ("k", &[Some("a"), Some("a"), Some("b"), Some("b"), None, Some("c"), Some("c")]),
        (
            "v",
            &[
                Some("1970-01-01T00:00:02Z"),
                Some("1970-01-01T00:00:01Z"),
                Some("1970-01-01"),
                Some("1970-01-01"),
                None,
                None,
                Some("1969-01-01"),
            ],
        ),
    ]));
    assert_eq!(outcome.records.positions, [2, 5, 8]);
    assert_eq!(outcome.filtered, 3);
    assert_eq!(reasons(&outcome.refused), ["4 key  k"]);
    assert_eq!(outcome.records.versions, Some(vec![2_000_000, 0, -31_536_000_000_000]));
}

#[test]
fn without_a_version_of_its_own_nothing_is_older() {
    let outcome =
        program("csv", "{a: integer}", "newest_by: a").apply(&csv(&[("a", &[None, Some("5")])]));
    assert_eq!(outcome.records.versions, Some(vec![i64::MIN, 5]));
    assert_eq!(outcome.records.id(1), "f.csv:3");
}

#[test]
fn every_record_is_accounted_for_once() {
    let steps = r#"steps:
  - {cast: {m: "decimal(6,1)"}}
  - {filter: "n % 7 != 0"}
  - {compute: {q: {expression: "1000 / (n - 5)", type: integer}}}
  - {dedupe: [k]}
key: [k]"#;
    let program = program("csv", "{n: integer, k: text, m: text}", steps);
    let count = 1_000;
    let texts = |make: &dyn Fn(usize) -> Option<String>| (0..count).map(make).collect::<Vec<_>>();
    let n = texts(&|row| {
        (row % 11 != 0).then(|| if row % 13 == 0 { "x".into() } else { row.to_string() })
    });
    let k = texts(&|row| (row % 17 != 0).then(|| (row / 2).to_string()));
    let m = texts(&|row| Some(if row % 19 == 0 { "1.23".into() } else { "1.2".into() }));
    let columns: Vec<Vec<Option<&str>>> =
        [&n, &k, &m].map(|texts| texts.iter().map(Option::as_deref).collect()).into();
    let outcome =
        program.apply(&csv(&[("n", &columns[0]), ("k", &columns[1]), ("m", &columns[2])]));
    outcome.records.validate().unwrap();
    let mut seen: Vec<usize> = outcome.refused.iter().map(|refused| refused.index).collect();
    seen.extend(outcome.records.positions.iter().map(|at| usize::try_from(*at).unwrap() - 2));
    seen.sort_unstable();
    let before = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), before);
    assert_eq!(seen.len() + outcome.filtered as usize, count);
    assert!(outcome.filtered > 100 && outcome.refused.len() > 100);
}

#[test]
fn an_empty_batch_stays_empty() {
    let rest = "steps: [{dedupe: [a]}, {filter: \"a > 1\"}, {default: {a: 1}}]\nkey: [a]";
    let outcome = program("csv", "{a: integer}", rest).apply(&csv(&[("a", &[])]));
    outcome.records.validate().unwrap();
    assert!(outcome.records.is_empty() && outcome.stop.is_none());
}

#[test]
fn a_secret_that_is_missing_is_named() {
    let yaml = "pipeline: p\nsource: {csv: {path: a}}\nschema: {a: text}\nsteps: [{hash: {fields: \
                [a], key: \"${env:OTHER}\"}}]\ntargets: {t: {sqlite: {path: a.db, table: t}, mode: \
                append}}\n";
    let pipeline = spec::parse("p.yaml", yaml).unwrap();
    let schema = pipeline.schema.clone().unwrap();
    let error = Program::compile(&pipeline, &schema, &|_| None).unwrap_err();
    assert!(matches!(error, CompileError::Secret { .. }), "{error}");
}
