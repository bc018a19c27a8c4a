use std::{net::SocketAddr, time::Duration};

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Loader {
    listen: SocketAddr,
    replicas: u32,
    verbose: bool,
    note: Option<String>,
    batch: Batch,
    targets: Vec<String>,
    store: Store,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(default)]
struct Batch {
    max_records: usize,
    #[serde(with = "super::super::size")]
    max_bytes: usize,
    #[serde(with = "super::super::duration")]
    wait: Duration,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Store {
    Memory,
    File { path: String },
}

impl Default for Loader {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:1".parse().unwrap(),
            replicas: 1,
            verbose: false,
            note: None,
            batch: Batch::default(),
            targets: Vec::new(),
            store: Store::Memory,
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self { max_records: 100, max_bytes: 1 << 20, wait: Duration::from_secs(1) }
    }
}

fn load(yaml: &str, variables: &[(&str, &str)]) -> Result<Loader, ConfigError> {
    let environment: Environment = variables.iter().copied().collect();
    Tree::parse("loader.yaml", yaml)?.overlay("loader", "", &environment)?.finish()
}

fn refused(yaml: &str, variables: &[(&str, &str)]) -> String {
    load(yaml, variables).unwrap_err().to_string()
}

#[test]
fn an_unknown_key_names_itself_and_its_place() {
    assert_eq!(
        refused("replicas: 2\nreplcas: 3\n", &[]),
        "loader.yaml:2: `replcas`: unknown key, expected one of `listen`, `replicas`, `verbose`, \
         `note`, `batch`, `targets`, `store`"
    );
    assert_eq!(
        refused("batch:\n  max_record: 3\n", &[]),
        "loader.yaml:2: `batch.max_record`: unknown key"
    );
    assert_eq!(
        refused("", &[("TRIBUTARY_LOADER__BATCH__MAX", "3")]),
        "TRIBUTARY_LOADER__BATCH__MAX: `batch.max`: unknown key"
    );
}

#[test]
fn a_wrong_value_names_its_place_and_shows_no_text() {
    assert_eq!(
        refused("batch:\n  wait: 5\n", &[]),
        "loader.yaml:2: `batch.wait`: expected a string, found integer `5`"
    );
    assert_eq!(
        refused("\nreplicas: hunter2\n", &[]),
        "loader.yaml:2: `replicas`: expected u32, found another text"
    );
    assert_eq!(
        refused("", &[("TRIBUTARY_LOADER__REPLICAS", "many")]),
        "TRIBUTARY_LOADER__REPLICAS: `replicas`: expected a whole number, not negative"
    );
    assert_eq!(
        refused("targets: [a, [b]]", &[]),
        "loader.yaml:1: `targets.1`: expected a string, found sequence"
    );
    assert_eq!(
        refused("store: disk", &[]),
        "loader.yaml:1: `store`: unknown choice, expected one of `memory`, `file`"
    );
}

#[test]
fn what_is_no_settings_file_is_refused() {
    assert!(refused("replicas: 1\nreplicas: 2\n", &[]).starts_with("loader.yaml:2: "));
    assert!(refused("password: [hunter2\n", &[]).starts_with("loader.yaml:"));
    assert!(!refused("password: [hunter2\n", &[]).contains("hunter2"));
    assert_eq!(refused("- a\n", &[]), "loader.yaml:1: expected keys and values");
}

#[test]
fn a_variable_below_a_value_is_refused() {
    assert_eq!(
        refused("batch: 3", &[("TRIBUTARY_LOADER__BATCH__WAIT", "1s")]),
        "TRIBUTARY_LOADER__BATCH__WAIT: `batch`: has a value of its own and no keys"
    );
}

#[test]
fn no_settings_are_the_defaults() {
    assert_eq!(load("", &[]).unwrap(), Loader::default());
    assert_eq!(load("# nothing\nnote:\n", &[]).unwrap(), Loader::default());
}

#[test]
fn the_environment_goes_over_the_file_and_the_file_over_the_defaults() {
    let yaml = "replicas: 2\nbatch:\n  max_records: 7\n  wait: 2s\nstore:\n  file:\n    path: a\n";
    let read = load(
        yaml,
        &[
            ("TRIBUTARY_LOADER__BATCH__MAX_RECORDS", "9"),
            ("TRIBUTARY_LOADER__BATCH__MAX_BYTES", "2MiB"),
            ("TRIBUTARY_LOADER__VERBOSE", "true"),
            ("TRIBUTARY_LOADER__NOTE", "007"),
            ("TRIBUTARY_LOADER__TARGETS", "a, b"),
            ("TRIBUTARY_LOADER__LISTEN", "[::1]:9"),
            ("TRIBUTARY_EXTRACTOR__REPLICAS", "5"),
            ("TRIBUTARY_LOADER_OTHER", "x"),
        ],
    );
    let expected = Loader {
        listen: "[::1]:9".parse().unwrap(),
        replicas: 2,
        verbose: true,
        note: Some("007".to_owned()),
        batch: Batch { max_records: 9, max_bytes: 2 << 20, wait: Duration::from_secs(2) },
        targets: vec!["a".to_owned(), "b".to_owned()],
        store: Store::File { path: "a".to_owned() },
    };
    assert_eq!(read.unwrap(), expected);
}

#[test]
fn sections_are_taken_out_and_the_rest_stays_strict() {
    let environment: Environment = [("TRIBUTARY_LOADER__BATCH__WAIT", "3s")].into_iter().collect();
    let mut tree = Tree::parse("up.yaml", "loader:\n  replicas: 4\nother: 1\n")
        .unwrap()
        .overlay("loader", "loader", &environment)
        .unwrap();
    let loader: Loader = tree.take("loader").unwrap();
    assert_eq!((loader.replicas, loader.batch.wait), (4, Duration::from_secs(3)));
    assert_eq!(tree.take::<Loader>("absent").unwrap(), Loader::default());

    #[derive(Debug, Deserialize)]
    struct Nothing {}
    let error = tree.finish::<Nothing>().unwrap_err();
    assert_eq!(error.to_string(), "up.yaml:3: `other`: unknown key");
}
