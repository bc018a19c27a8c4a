use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array, Int64Array, StringArray};

use super::*;
use crate::{table::Column, written};

fn column(name: &str, field_type: FieldType, values: ArrayRef) -> Column {
    Column { name: name.to_owned(), field_type, values, presence: None }
}

fn table() -> Table {
    let amount = Decimal128Array::from(vec![Some(1250), Some(-5), None])
        .with_precision_and_scale(12, 2)
        .unwrap();
    let columns = vec![
        column("amount", "decimal(12,2)".parse().unwrap(), Arc::new(amount)),
        column("n", FieldType::Integer, Arc::new(Int64Array::from(vec![Some(3), Some(0), None]))),
        column("name", FieldType::Text, Arc::new(StringArray::from(vec![" Änne ", "b", "c"]))),
        column(
            "day",
            FieldType::Timestamp,
            Arc::new(
                arrow_array::TimestampMicrosecondArray::from(vec![0, 1_000_000, -1])
                    .with_data_type(FieldType::Timestamp.arrow()),
            ),
        ),
        column(
            "address",
            FieldType::Json,
            Arc::new(StringArray::from(vec![
                r#"{"city": "Ulm", "rates": [1.10, 2], "big": 12345678901234567890}"#,
                "{}",
                "null",
            ])),
        ),
    ];
    Table::new(columns, 3)
}

/// Evaluates for every record and writes the results, or the reasons why there is none.
fn all(source: &str, field_type: &str) -> Vec<String> {
    let field_type: FieldType = field_type.parse().unwrap();
    let mut found = Vec::new();
    Evaluator::new(source).unwrap().each(&table(), |_, result| {
        let mut results = Results::new(field_type, 1);
        found.push(match result.and_then(|value| results.push(&value)) {
            Ok(()) => {
                let mut text = String::new();
                written::write_json(field_type, &results.finish(), 0, &mut text);
                text
            }
            Err(Failure(reason)) => reason,
        });
    });
    found
}

fn first(source: &str, field_type: &str) -> String {
    all(source, field_type).swap_remove(0)
}

#[test]
fn decimals_meet_other_numbers_exactly() {
    for source in [
        "amount * 1.1 == 13.75",
        "1.1 * amount == 13.75",
        "0.0 < amount",
        "5 < amount && amount < 13",
        "12.5 == amount",
        "amount in [1, 12.50]",
        "-amount == decimal('-12.5')",
        "amount + amount - n == 22",
        "address.rates[0] == 1.1",
        "address.rates.exists(r, r > amount) == false",
        "[1, 2].map(x, amount * x)[1] == 25",
    ] {
        assert_eq!(first(source, "boolean"), "true", "{source}");
    }
    assert_eq!(first("amount * 1.19", "decimal(14,4)"), "14.8750");
    assert_eq!(first("round(amount * 1.19, 2)", "decimal(14,2)"), "14.88");
    assert_eq!(first("divide(amount, n, 3)", "decimal(14,3)"), "4.167");
    assert!(first("amount * 1.19", "decimal(14,2)").contains("not exactly"));
    assert!(first("amount / n", "decimal(14,2)").contains("write `divide"));
}

#[test]
fn texts_and_times_have_their_functions() {
    for (source, field_type, expected) in [
        ("name.trim().lower()", "text", r#""änne""#),
        ("upper(trim(name))", "text", r#""ÄNNE""#),
        ("trim(name).length()", "integer", "4"),
        ("trim(name).substring(1, 3)", "text", r#""nn""#),
        ("name.replace('n', 'mm').trim()", "text", r#""Ämmmme""#),
        ("'a-b-c'.split('-').join('+')", "text", r#""a+b+c""#),
        ("'über'.indexOf('r')", "integer", "3"),
        ("'abc'.matches_whole('[a-z]')", "boolean", "false"),
        (
            "sha256('abc')",
            "text",
            r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#,
        ),
        ("year(day) + month(day) + day.day()", "integer", "1972"),
        ("date('2024-02-29').add_months(12)", "date", r#""2025-02-28""#),
        ("add_days(day, -1)", "date", r#""1969-12-31""#),
        ("days_between(day, date('1970-02-01'))", "integer", "31"),
        ("parse_date('31.12.1999', '%d.%m.%Y')", "date", r#""1999-12-31""#),
        ("format_time(day, '%Y/%m')", "text", r#""1970/01""#),
        ("coalesce(null, null, name.trim())", "text", r#""Änne""#),
        ("coalesce(null, null)", "text", "null"),
        ("address.city + ' ' + string(amount)", "text", r#""Ulm 12.50""#),
        ("{'a': amount, 'b': [n, null]}", "json", r#"{"a":12.50,"b":[3,null]}"#),
        ("date(day)", "date", r#""1970-01-01""#),
        ("n", "decimal(5,1)", "3.0"),
        ("address.big", "decimal(20,0)", "12345678901234567890"),
    ] {
        assert_eq!(first(source, field_type), expected, "{source}");
    }
}

#[test]
fn what_has_no_result_says_why_without_values() {
    let found = all("100 / n", "integer");
    assert_eq!(found[0], "33");
    assert_eq!(found[1], "the expression has no result: a number is divided by zero");
    assert!(found[2].contains("does not work on"), "{}", found[2]);
    let found = all("day", "date");
    assert!(found[1].contains("not exactly a date"), "{}", found[1]);
    assert!(first("address.street", "text").contains("does not have the key"));
    let found = first("decimal(name)", "text");
    assert!(found.contains("not a number") && !found.contains("nne"), "{found}");
    let found = first("timestamp(name) < day", "boolean");
    assert!(found.contains("`timestamp` failed") && !found.contains("nne"), "{found}");
    assert!(first("name", "integer").contains("gives string"));
    assert_eq!(all("has(address.city)", "boolean")[..2], ["true", "false"]);
}

#[test]
fn a_long_list_is_refused() {
    let long = format!("[{}1]", "1,".repeat(1_000));
    let values: ArrayRef = Arc::new(StringArray::from(vec![long]));
    let table = Table::new(vec![column("list", FieldType::Json, values)], 1);
    Evaluator::new("list.all(x, x > 0)").unwrap().each(&table, |_, result| {
        let Err(Failure(reason)) = result else { panic!("it was not refused") };
        assert!(reason.contains("too long"), "{reason}");
    });
}

#[test]
fn an_expression_that_takes_too_long_is_refused() {
    let list = format!("[{}1]", "1,".repeat(999));
    let text = "x".repeat(200 << 10);
    let looks = |name: &str| vec![format!("{name} == 'y'"); 25].join(" || ");
    for (source, costs_too_much) in [
        ("list.all(x, x > 0)", false),
        ("list.filter(x, x > 0).map(x, x * 2 + 1).all(x, x == 3)", false),
        ("list.exists(x, list.exists(y, x + y > 2))", true),
        ("list.map(x, list.filter(y, y > x).size()).size() > 0", true),
        ("list.all(x, list.exists(y, x + y == 2)) || true", true),
        ("list.all(x, text.lower().contains('y'))", false),
        (&format!("[1, 2].all(x, {} || true)", looks("text")), false),
        (&format!("list.all(x, {} || true)", looks("text")), true),
        ("[list.all(x, list.all(y, list[x] == list[y])), true].exists(x, x)", true),
    ] {
        let values: ArrayRef = Arc::new(StringArray::from(vec![list.clone()]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![text.clone()]));
        let columns =
            vec![column("list", FieldType::Json, values), column("text", FieldType::Text, texts)];
        Evaluator::new(source).unwrap().each(&Table::new(columns, 1), |_, result| {
            match (result, costs_too_much) {
                (Ok(_), false) => {}
                (Err(Failure(reason)), true) => {
                    assert!(reason.contains("more than 1000000 steps"), "{source}: {reason}");
                }
                (Ok(_), true) => panic!("{source} was evaluated"),
                (Err(Failure(reason)), false) => panic!("{source}: {reason}"),
            }
        });
    }
}

#[test]
fn what_grows_is_bounded() {
    let doubled = |times: usize, start: &str| {
        (0..times).fold(start.to_owned(), |inner, _| format!("[{inner}].map(t, t + t)[0]"))
    };
    assert!(first(&format!("{}.size()", doubled(5, "name")), "integer").parse::<u32>().is_ok());
    let text = doubled(4, "'0123456789'.replace('0', name + name + name + name)");
    let long = format!("replace('{}', '0', {text})", "0".repeat(1000));
    let found = first(&format!("({long} + {long}).size()"), "integer");
    assert!(found.contains("`+` failed: the result is too long"), "{found}");
    let found = first(&format!("{}.size()", doubled(7, "[1,2,3,4,5,6,7,8,9]")), "integer");
    assert!(found.contains("`+` failed: the list has more than 1000 items"), "{found}");
}

#[test]
fn every_declared_function_exists() {
    let env = environment();
    let undeclared: Vec<_> = FUNCTIONS
        .iter()
        .filter(|name| {
            let call = format!("{name}(@)").replace("(@)", "()");
            let program = env.compile(&call).unwrap();
            let context = Context::with_env(Arc::clone(&env));
            matches!(program.execute(&context), Err(ExecutionError::UndeclaredReference(_)))
        })
        .collect();
    assert!(undeclared.is_empty(), "{undeclared:?}");
}

#[test]
fn the_deepest_expression_fits_the_stack() {
    assert_eq!(first(&format!("n{}", " + n".repeat(30)), "integer"), "93");
    for (open, close) in [("coalesce(", ")"), ("-(", ")"), ("true ? (", ") : 0"), ("[", "][0]")] {
        let depth = if open == "[" { 14 } else { 30 };
        let source = format!("{}amount{}", open.repeat(depth), close.repeat(depth));
        match Evaluator::new(&source) {
            Ok(_) => assert_eq!(first(&source, "decimal(12,2)"), "12.50", "{source}"),
            Err(error) => panic!("{error}: {source}"),
        }
    }
}
