//! The broker or the database goes away in the middle of a run.

use bus::Stream;
use tests::{Layout, Role, Seed, System};

use crate::Story;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_started_again_loses_nothing() {
    let mut seed = Seed::of_test("kill of the broker");
    let system = System::start(Layout::for_faults().durable()).await;
    let mut story = Story::begin(system, seed.number(), 10).await;
    let moment = seed.between(10, 80);
    story.tap.until(|seen| seen.raw >= moment).await;
    story.is_running().await;
    let (server, pid) = (story.tap.server(), story.system.nats.pid());
    story.system.nats.kill();
    for service in story.system.services() {
        service.unready().await;
    }
    story.system.nats.restart();
    for service in story.system.services() {
        service.ready().await;
    }
    story.ends_complete().await;
    assert_ne!(story.system.nats.pid(), pid);
    assert_ne!(story.tap.server(), server, "the server is another one");
    for service in story.system.services() {
        let name = service.role.name();
        assert!(service.logged("connected to the broker") >= 2, "the {name} did not notice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_back_empty_loses_nothing() {
    let mut seed = Seed::of_test("wipe of the broker");
    let system = System::start(Layout::for_faults()).await;
    let mut story = Story::begin(system, seed.number(), 10).await;
    let moment = seed.between(10, 40);
    story.tap.until(|seen| seen.loaded >= moment).await;
    // Without a loader there is something to lose.
    story.system.service(Role::Loader).process.kill().await;
    story.tap.until(|seen| seen.ready >= seen.loaded + 20).await;
    let lost = story.tap.held(Stream::Ready).await;
    assert!(lost >= 10, "only {lost} batches would be lost");
    story.is_running().await;
    story.system.nats.wipe();
    story.system.nats.restart();
    story.system.service(Role::Loader).start().await;
    let run = story.ends_complete().await;
    assert!(run.attempt >= 2, "{run:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_and_started_again_loses_nothing() {
    let mut seed = Seed::of_test("kill of the database");
    let system = System::start(Layout::for_faults().durable()).await;
    let mut story = Story::begin(system, seed.number(), 10).await;
    let moment = seed.between(5, 60);
    story.tap.until(|seen| seen.loaded >= moment).await;
    story.is_running().await;
    let started = "select pg_postmaster_start_time()";
    let before = story.system.sql(started);
    let clients = "select count(distinct datname) from pg_stat_activity \
                   where backend_type = 'client backend' and pid <> pg_backend_pid()";
    assert_eq!(story.system.sql(clients), "2", "the loader and the scheduler are connected");
    story.system.postgres.kill();
    story.system.postgres.restart();
    story.ends_complete().await;
    assert_ne!(story.system.sql(started), before, "the server is another one");
}
