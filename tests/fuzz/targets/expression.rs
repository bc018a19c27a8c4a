//! Any expression is refused, or gives every record a value or a reason, within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: assert!(program("upper(name)").is_some(), "the pipeline around the expression is right"),
    |text: &str| {
        let Some(program) = program(text) else { return };
        let records = fuzz::records(&[
            r#"{"id":1,"name":"Ada","born":"1815-12-10","total":"12.50","tags":["a",{"b":[1,2,3]}]}"#,
            r#"{"id":2}"#,
            r#"{"id":-9223372036854775808,"name":"","total":"-9999999999.99","tags":{}}"#,
        ]);
        let _ = program.apply(&records);
    }
);

fn program(expression: &str) -> Option<transformer::Program> {
    let quoted = serde_json::to_string(expression).expect("a text");
    let yaml = format!(
        "pipeline: fuzz\nsource: {{push: {{}}}}\ntriggers: {{push: {{grpc: none}}}}\n\
         schema: {{id: integer, name: text, born: date, total: \"decimal(12,2)\", tags: json}}\n\
         key: [id]\nsteps:\n  - compute: {{made: {{expression: {quoted}, type: text}}}}\n\
         targets: {{store: {{sqlite: {{path: store.db, table: t}}}}}}\n"
    );
    let pipeline = spec::parse("fuzz.yaml", &yaml).ok()?;
    let schema = pipeline.schema.clone().expect("it is declared");
    transformer::Program::compile(&pipeline, &schema, &|_| None).ok()
}
