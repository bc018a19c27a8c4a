//! Records that cannot be loaded.

use std::{collections::BTreeMap, fs, io::Write};

use tests::{Customer, Customers, Edition, Layout, System};

use crate::RECORDS;

/// Ids of the poisoned customers. None of them is among the good ones.
const UNCASTABLE: u64 = 900_001;
const REFUSED: u64 = 900_002;
const WITH_NUL: u64 = 900_003;
const TOO_LARGE: u64 = 900_004;
const TOO_SHORT: u64 = 900_005;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_record_is_quarantined_alone_and_a_replay_heals_the_target() {
    let system = System::start(Layout::for_faults()).await;
    system.sql(&format!("create table customers ({}, check (points >= 0))", Customer::COLUMNS));
    let customers = Customers::new(3, RECORDS);
    write_poisoned(&system, customers);
    let pipeline = system.customers_pipeline();
    system.client.apply(&pipeline).await;
    let run = system.client.start("customers").await;
    let run = system.client.succeeded(&run).await;
    let books = run.ledger.as_ref().unwrap();
    assert_eq!(books.extracted, RECORDS + 5);
    let quarantined = books.quarantined + books.targets[0].quarantined;
    assert_eq!((quarantined, books.targets[0].loaded), (5, RECORDS), "{run:#?}");
    assert_eq!(system.fingerprint(), customers.fingerprint(Edition::First));

    let refused = system.client.quarantined("customers").await;
    let mut stages: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for record in &refused {
        eprintln!("{} {} {}: {}", record.stage, record.code, record.record, record.message);
        assert!(record.record.contains("customers-"), "{record:?} has no place");
        assert!(!record.message.is_empty() && !record.code.is_empty(), "{record:?}");
        stages.entry(&record.stage).or_default().push((&record.code, &record.field));
    }
    assert_eq!(refused.len(), 5);
    assert!(stages["transformer"].iter().any(|(_, field)| *field == "points"), "{stages:?}");
    assert!(stages["loader"].iter().any(|(code, _)| *code == "constraint"), "{stages:?}");
    assert!(stages["extractor"].iter().any(|(code, _)| *code == "size"), "{stages:?}");
    assert!(stages["extractor"].iter().any(|(code, _)| *code == "shape"), "{stages:?}");

    // The pipeline learns to live without such points, and the table with negative ones.
    system.client.apply(&format!("{pipeline}contract: {{types: discard_value}}\n")).await;
    system.sql("alter table customers drop constraint customers_points_check");
    let runs = system.client.replay("customers").await;
    assert_eq!(runs.len(), 1);
    let replayed = system.client.succeeded(&runs[0]).await;
    let books = replayed.ledger.unwrap();
    assert_eq!(books.targets[0].loaded, 2, "the other three cannot be healed");
    let healed = format!(
        "select string_agg(id || ' ' || coalesce(points::text, 'null'), ', ' order by id) \
         from customers where id > {RECORDS}"
    );
    assert_eq!(system.sql(&healed), format!("{UNCASTABLE} null, {REFUSED} -1"));
    assert_eq!(system.client.quarantined("customers").await.len(), 3);
}

/// Writes two files of good customers with one poisoned record each, and a third of the others.
fn write_poisoned(system: &System, customers: Customers) {
    let poison = |id: u64, name: &str, points: &str| {
        format!(
            "{id},p@mail.example,{name},Poe,,US,Boston,,{points},1.00,true,2026-01-01T00:00:00Z"
        )
    };
    let long = "x".repeat(600 * 1024);
    let lines = [
        vec![poison(UNCASTABLE, "Ed", "many"), poison(TOO_LARGE, &long, "1")],
        vec![poison(REFUSED, "Ed", "-1")],
        vec![poison(WITH_NUL, "E\0d", "1"), format!("{TOO_SHORT},p@mail.example,Ed")],
    ];
    let paths = system.write_customers(customers, 3, Edition::First);
    for (path, poisoned) in paths.iter().zip(lines) {
        let text = fs::read_to_string(path).unwrap();
        let mut file = fs::File::create(path).unwrap();
        let middle = text.len() / 2 + text[text.len() / 2..].find('\n').unwrap() + 1;
        file.write_all(&text.as_bytes()[..middle]).unwrap();
        for line in poisoned {
            writeln!(file, "{line}").unwrap();
        }
        file.write_all(&text.as_bytes()[middle..]).unwrap();
    }
}
