//! Pipelines as files: what is right parses, what is wrong says what is expected.

use std::{fs, path::PathBuf};

/// Returns the name and the text of every file in a folder, by name.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut files: Vec<(String, String)> = fs::read_dir(folder)
        .expect("the folder is part of the tree")
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?.strip_suffix(".yaml")?.to_owned();
            Some((name, fs::read_to_string(entry.path()).expect("the file is text")))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn what_is_right_parses() {
    for (name, yaml) in files("right") {
        if let Err(problems) = spec::parse(&name, &yaml) {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", list.join("\n"));
        }
    }
}

/// `TRIBUTARY_UPDATE_EXPECTED=1` writes the messages instead of comparing them.
#[test]
fn what_is_wrong_is_explained() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let update = std::env::var_os("TRIBUTARY_UPDATE_EXPECTED").is_some();
    for (name, yaml) in files("wrong") {
        let problems = spec::parse(&format!("{name}.yaml"), &yaml).expect_err(&name);
        assert!(!problems.is_empty(), "{name}");
        let found: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        assert!(!found.contains("hunter2"), "{name} shows a secret");
        let path = folder.join(format!("{name}.expected"));
        if update {
            fs::write(path, found).unwrap();
        } else {
            assert_eq!(found, fs::read_to_string(path).unwrap(), "{name}");
        }
    }
}

#[test]
fn the_meaning_does_not_depend_on_the_place() {
    let (_, yaml) = files("right").remove(0);
    let moved = format!("# a comment\n\n{yaml}");
    assert_eq!(spec::parse("a", &yaml), spec::parse("b", &moved));
}

#[test]
fn a_large_file_is_refused() {
    let yaml = format!("description: {}", "a".repeat(300 * 1024));
    let problems = spec::parse("large.yaml", &yaml).unwrap_err();
    assert!(problems[0].message.contains("256 KiB"), "{}", problems[0]);
}
