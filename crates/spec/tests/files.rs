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

/// Reads a text, whose kind its folder tells.
fn problems(folder: &str, file: &str, yaml: &str) -> Vec<spec::Problem> {
    let parsed = if folder.starts_with("shared") {
        spec::parse_shared(file, yaml).map(drop)
    } else {
        spec::parse(file, yaml).map(drop)
    };
    parsed.err().unwrap_or_default()
}

#[test]
fn what_is_right_parses() {
    for folder in ["right", "shared_right"] {
        for (name, yaml) in files(folder) {
            let problems = problems(folder, &name, &yaml);
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(problems.is_empty(), "{}", list.join("\n"));
            assert_eq!(spec::is_shared(&yaml), folder.starts_with("shared"), "{name}");
        }
    }
}

/// `TRIBUTARY_UPDATE_EXPECTED=1` writes the messages instead of comparing them.
#[test]
fn what_is_wrong_is_explained() {
    let update = std::env::var_os("TRIBUTARY_UPDATE_EXPECTED").is_some();
    let all = ["wrong", "shared_wrong"]
        .into_iter()
        .flat_map(|folder| files(folder).into_iter().map(move |(name, yaml)| (folder, name, yaml)));
    for (folder, name, yaml) in all {
        let problems = problems(folder, &format!("{name}.yaml"), &yaml);
        assert!(!problems.is_empty(), "{name}");
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
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
