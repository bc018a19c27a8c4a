//! What `helm test` does in a cluster: the manifests as the chart renders them, and the real services.

use std::{fs, path::Path};

use serde_json::Value;
use tests::{Layout, System};

const RENDERED: &str = include_str!("../chart/rendered/default.yaml");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_test_of_the_chart_runs_its_pipeline() {
    let manifests: Vec<Value> = serde_saphyr::from_multiple(RENDERED).unwrap();
    let find = |kind: &str, name: &str| {
        let found = manifests
            .iter()
            .find(|manifest| manifest["kind"] == kind && manifest["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("there is a {kind} {name}"))
    };
    let system = System::start(Layout::default()).await;
    // What is mounted in pods lies in the folder of the test, where all processes work.
    let folder = system.folder();
    let here = |text: &str| {
        let text = text.replace("/etc/tributary/", "").replace("/tmp/", "");
        text.replace("/pipelines", "pipelines")
    };
    let mount = |map: &Value, folder: &Path| {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in map["data"].as_object().unwrap() {
            fs::write(folder.join(name), here(text.as_str().unwrap())).unwrap();
        }
    };
    mount(find("ConfigMap", "release-tributary-extractor"), folder);
    mount(find("ConfigMap", "release-tributary-test"), &folder.join("pipelines"));

    let pod = &find("Pod", "release-tributary-test")["spec"];
    let containers = ["initContainers", "containers"].map(|list| pod[list].as_array().unwrap());
    let mut answers = Vec::new();
    for container in containers.into_iter().flatten() {
        let arguments = container["args"].as_array().unwrap().iter();
        let arguments: Vec<String> = arguments.map(|text| here(text.as_str().unwrap())).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        answers.push(system.tributary(&arguments));
    }
    assert_eq!(answers[0]["applied"][0]["name"], "helm-test", "{answers:#?}");
    let runs = system.tributary(&["runs"]);
    let run = &runs["runs"][0];
    assert_eq!(run["state"], "succeeded", "{run:#}");
    assert_eq!(run["ledger"]["targets"][0]["loaded"], 2, "{run:#}");
    assert_eq!(run["ledger"]["balanced"], true, "{run:#}");
}
