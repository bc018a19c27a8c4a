//! Another language.

use std::{path::Path, process::Command};

use tests::{Customers, Edition, Layout, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_python_client_works() {
    let system = System::start(Layout::default()).await;
    system.write_customers(Customers::new(5, 1_000), 1, Edition::First);
    let pipeline = system.folder().join("customers.yaml");
    std::fs::write(&pipeline, system.customers_pipeline()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/run.sh");
    let output = Command::new(script)
        .arg(system.address.to_string())
        .arg(&pipeline)
        .output()
        .expect("the script is in the tree");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
