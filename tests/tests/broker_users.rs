//! Each service logs in with a key of its own and may do what it needs, and no more.

use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use tests::{Customers, Edition, Layout, Role, Sender, System, binary};
use tokio::time::{Instant, sleep};
use wire::control::{Run, RunState};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_with_the_least_permissions_do_all_their_work() {
    let keys = tempfile::tempdir().unwrap();
    let users = || {
        let mut command = Command::new(binary());
        command.args(["broker-users", "--prefix", "story", "--keys"]).arg(keys.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let broker = users();
    assert_eq!(users(), broker, "keys that are there stay");
    let mut layout =
        Layout::for_faults().with_broker(&broker).with(Role::Extractor, "push.window", "3s");
    for role in Role::ALL {
        let file = keys.path().join(format!("{}.nk", role.name()));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let seed = fs::read_to_string(&file).unwrap();
        assert!(!broker.contains(seed.trim()), "the seed of the {} is shown", role.name());
        layout = layout.with(role, "bus.credentials", file.to_str().unwrap());
    }
    let mut system = System::start(layout).await;

    let customers = Customers::new(91, 60_000);
    system.write_customers(customers, 3, Edition::First);
    system.client.apply(&system.customers_pipeline()).await;
    let run = system.client.start("customers").await;
    let loaded = |run: &Run| run.ledger.as_ref().map_or(0, |l| l.targets[0].loaded);
    system.client.until(&run, |run| loaded(run) > 0).await;
    for role in [Role::Extractor, Role::Transformer, Role::Loader] {
        assert!(system.service(role).process.kill().await.is_some());
        system.service(role).start().await;
    }
    system.client.succeeded(&run).await;
    assert_eq!(system.fingerprint(), customers.fingerprint(Edition::First));

    // Refused records, pushed records, and a pipeline that is removed with its consumers.
    let pushed = format!(
        "pipeline: orders\nsource: {{push: {{}}}}\n\
         triggers:\n  push:\n    webhook: {{verify: none, id: {{header: X-Delivery}}}}\n\
         schema: {{id: integer, total: integer}}\nkey: [id]\n\
         targets:\n  store:\n    postgres: {{url: \"{}\", table: orders}}\n",
        system.target
    );
    system.client.apply(&pushed).await;
    let mut sender = Sender::new(vec![system.intakes[0].0], 0);
    for id in ["1", "\"none\""] {
        sender.deliver("orders", id, &format!("{{\"id\":{id},\"total\":5}}")).await;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let done = loop {
        let runs = system.client.latest("orders").await;
        match runs.into_iter().find(|run| run.state() == RunState::Succeeded) {
            Some(run) => break run,
            None => assert!(Instant::now() < deadline, "the pushed orders do not arrive"),
        }
        // A run that is yet to come sends no event.
        sleep(Duration::from_millis(50)).await;
    };
    let books = done.ledger.as_ref().unwrap();
    assert_eq!((books.extracted, books.quarantined), (2, 1), "{done:#?}");
    assert_eq!(system.sql("select id, total from orders"), "1|5");
    let deleted = system.tributary(&["delete", "customers"]);
    assert!(deleted.is_object(), "{deleted}");
    for service in system.services() {
        let name = service.role.name();
        assert_eq!(service.logged("the broker reports a disturbance"), 0, "the {name} was refused");
    }
}
