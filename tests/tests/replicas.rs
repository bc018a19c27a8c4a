//! Two of every service share one run.

use tests::{Layout, Role, Seed, System};

use crate::Story;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_every_service_share_a_run() {
    let mut seed = Seed::of_test("two of each");
    let layout = Layout::for_faults()
        .with_replicas(2)
        // One process alone would take all parts at once.
        .with(Role::Extractor, "concurrent_parts", "1")
        .with(Role::Loader, "connections_per_target", "1");
    let system = System::start(layout).await;
    let mut story = Story::begin(system, seed.number(), 20).await;
    story.ends_complete().await;
    let mut worked = Vec::new();
    for service in story.system.services() {
        let stream = match service.role {
            Role::Scheduler => "ledger",
            Role::Extractor => "tasks",
            Role::Transformer => "raw",
            Role::Loader => "ready",
        };
        let label = format!("stream=\"{stream}\"");
        let messages = service.metric("tributary_bus_deliveries_total", &label).await;
        worked.push((service.role.name(), messages));
    }
    eprintln!("messages taken: {worked:?}");
    assert_eq!(worked.len(), 8);
    assert!(worked.iter().all(|(_, messages)| *messages > 0.0), "{worked:?}");
}
