//! A full stream holds the source back.

use std::time::Duration;

use bus::Stream;
use tests::{Layout, Role, Seed, System};
use tokio::time::{Instant, sleep, timeout};

use crate::{RECORDS, Story};

const MIB: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_slows_the_source_down_and_memory_stays_flat() {
    let mut seed = Seed::of_test("a full stream");
    let layout = Layout::for_faults()
        .with_everywhere("bus.max_bytes.raw", "2MiB")
        .with_everywhere("bus.max_bytes.ready", "2MiB");
    let mut system = System::prepare(layout);
    system.start_roles(&[Role::Scheduler, Role::Extractor, Role::Transformer]).await;
    let mut story = Story::begin(system, seed.number(), 2).await;

    // Nobody loads: READY fills up, then RAW, then the extractor is refused.
    let full = "reason=\"full\"";
    let refused = timeout(Duration::from_secs(60), async {
        for role in [Role::Transformer, Role::Extractor] {
            let service = story.system.service(role);
            while service.metric("tributary_bus_publish_retries_total", full).await == 0.0 {
                sleep(Duration::from_millis(50)).await;
            }
        }
    });
    refused.await.expect("transformer and extractor are refused");
    let seen = story.tap.seen();
    let before = story.system.service(Role::Extractor).usage();
    // Staying as it is can only be seen by waiting.
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let usage = story.system.service(Role::Extractor).usage();
        let grown = usage.resident_bytes.saturating_sub(before.resident_bytes);
        assert!(grown < 16 * MIB, "the extractor has grown by {grown} bytes");
        sleep(Duration::from_millis(100)).await;
    }
    story.is_running().await;
    let read = story.system.client.run(&story.run).await.ledger.unwrap();
    assert!(!read.extraction_ended && read.extracted < RECORDS, "{read:?} after {seen:?}");
    for stream in [Stream::Raw, Stream::Ready] {
        let bytes = story.tap.held_bytes(stream).await;
        assert!((MIB..=2 * MIB).contains(&bytes), "{stream} holds {bytes} bytes");
    }

    story.system.start_roles(&[Role::Loader]).await;
    story.ends_complete().await;
}
