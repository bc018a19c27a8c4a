//! The ordinary life of a pipeline, with every service a process of its own.

use tests::{Customers, Edition, Layout, System};
use wire::control::RunState;

use crate::RECORDS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_is_loaded_and_what_is_known_is_not_read_again() {
    let system = System::start(Layout::default()).await;
    let customers = Customers::new(1, RECORDS);
    system.write_customers(customers, 4, Edition::First);
    system.client.apply(&system.customers_pipeline()).await;

    let run = system.client.start("customers").await;
    let run = system.client.succeeded(&run).await;
    let books = run.ledger.unwrap();
    assert_eq!((books.extracted, books.targets[0].loaded), (RECORDS, RECORDS));
    assert_eq!(system.fingerprint(), customers.fingerprint(Edition::First));

    let run = system.client.start("customers").await;
    let run = system.client.succeeded(&run).await;
    assert_eq!(run.ledger.unwrap().extracted, 0, "nothing is new");

    // Ten more customers in a file of their own.
    let more = Customers { first: RECORDS + 1, count: 10, ..customers };
    more.write_csv(&system.folder().join("customers-more.csv"), Edition::First).unwrap();
    let run = system.client.start("customers").await;
    let run = system.client.succeeded(&run).await;
    assert_eq!(run.ledger.unwrap().extracted, 10);
    let all = Customers { count: RECORDS + 10, ..customers };
    assert_eq!(system.fingerprint(), all.fingerprint(Edition::First));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_shape_stops_the_run_before_anything_is_loaded() {
    let system = System::start(Layout::default()).await;
    let paths = system.write_customers(Customers::new(2, 1_000), 2, Edition::First);
    let text = std::fs::read_to_string(&paths[1]).unwrap();
    std::fs::write(&paths[1], text.replacen("points", "score", 1)).unwrap();
    system.client.apply(&system.customers_pipeline()).await;
    let run = system.client.start("customers").await;
    let run = system.client.ended(&run).await;
    assert_eq!(run.state(), RunState::Failed, "{run:#?}");
    let said = format!("{} {}", run.reason, run.hint);
    for word in ["score", "points", "customers-001.csv"] {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
    let table = system.sql("select to_regclass('customers') is null");
    assert!(table == "t" || system.fingerprint().rows == 0, "something was loaded");
}
