//! Any text is a pipeline, or what pipelines share, or has problems that name a line.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A carriage return ends a line of YAML as well.
    let lines = u32::try_from(text.split(['\n', '\r']).count()).expect("a short text");
    let problems = match spec::is_shared(text) {
        true => spec::parse_shared("fuzz.yaml", text).map(drop),
        false => spec::parse("fuzz.yaml", text).map(drop),
    };
    let Err(problems) = problems else { return };
    assert!(!problems.is_empty(), "refused without a reason");
    for problem in problems {
        assert!(problem.line <= lines, "{problem} of {lines} lines");
        assert!(!problem.remedy.is_empty(), "{problem}");
    }
});
