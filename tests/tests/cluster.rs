//! Three brokers and two of every service, of which one each dies.

use std::process::Command;

use async_nats::jetstream;
use testkit::nats::Nats;
use tests::{Layout, Role, Seed, System, Tap, binary};

use crate::Story;

/// Prefix of all names on the broker.
const PREFIX: &str = "story";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_leader_and_of_one_of_each_service_loses_and_doubles_nothing() {
    let mut seed = Seed::of_test("cluster");
    let mut servers = tokio::task::spawn_blocking(Nats::start_cluster).await.unwrap();
    let urls = servers.each_ref().map(Nats::url);
    let layout = Layout::for_faults()
        .with_replicas(2)
        .with_everywhere("bus.servers", &urls.join(","))
        .with_everywhere("bus.replicas", "3");
    let mut system = System::prepare(layout);
    // As an installation does it: it waits until the servers have elected their leaders.
    let mut prepare = Command::new(binary());
    prepare
        .arg("prepare")
        .current_dir(system.folder())
        .env("TRIBUTARY_SCHEDULER__DATABASE", "prepared.db")
        .env("TRIBUTARY_SCHEDULER__BUS__SERVERS", urls.join(","))
        .env("TRIBUTARY_SCHEDULER__BUS__PREFIX", PREFIX)
        .env("TRIBUTARY_SCHEDULER__BUS__REPLICAS", "3");
    let prepared = tokio::task::spawn_blocking(move || prepare.output().unwrap()).await.unwrap();
    assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    system.start_roles(&Role::ALL).await;

    let client = async_nats::connect(urls.to_vec()).await.unwrap();
    let stream = jetstream::new(client).get_stream("STORY_RAW").await.unwrap();
    let cluster = stream.cached_info().cluster.clone().unwrap();
    assert_eq!(cluster.replicas.len(), 2, "{cluster:?}");
    let leader: usize = cluster.leader.unwrap().strip_prefix('n').unwrap().parse().unwrap();
    let survivor = (leader + 1) % servers.len();
    let tap = Tap::listen(&urls[survivor], PREFIX).await;
    let mut story = Story::begin_with(system, tap, seed.number(), 10).await;
    story.tap.until(|seen| seen.loaded > 0).await;
    story.is_running().await;
    servers[leader].kill();
    for role in Role::ALL {
        let service = story.system.service(role);
        let pid = service.process.kill().await.expect("the process was running");
        service.start().await;
        assert_ne!(service.process.pid(), Some(pid));
    }
    story.ends_complete().await;
}
