//! Three servers, of which one dies.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use bus::{Bus, Config, Outgoing, Stream};
use testkit::nats::Nats;
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, shop, within};

/// Messages before, and again after the death of the leader.
const MESSAGES: u8 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn three_copies_outlive_the_leader_and_the_copy_that_is_away_is_told() {
    let mut servers = tokio::task::spawn_blocking(Nats::start_cluster).await.unwrap();
    let urls = servers.each_ref().map(Nats::url).to_vec();
    let config = Config { servers: urls.clone(), replicas: 3, ..Config::default() };
    let shutdown = CancellationToken::new();
    let bus = Box::pin(within(Bus::connect(&config, &shutdown))).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    // There is no event to wait for until the servers have a leader.
    while let Err(error) = bus.provision().await {
        assert!(Instant::now() < deadline, "{error:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let subject = bus.names().raw(&shop());
    for index in 0..MESSAGES {
        bus.publish(Outgoing::new(subject.clone(), vec![index; 10].into())).await.unwrap();
    }

    let name = bus.names().stream(Stream::Raw);
    let client = async_nats::connect(urls).await.unwrap();
    let stream = jetstream::new(client).get_stream(&name).await.unwrap();
    let cluster = stream.cached_info().cluster.clone().unwrap();
    assert_eq!(cluster.replicas.len(), 2, "{cluster:?}");
    let leader = cluster.leader.unwrap();
    let index: usize = leader.strip_prefix('n').unwrap().parse().unwrap();
    servers[index].kill();
    assert!(servers[index].pid().is_none());

    for index in 0..MESSAGES {
        let message = Outgoing::new(subject.clone(), vec![100 + index; 10].into());
        within(bus.publish(message)).await.unwrap();
    }
    let lanes = bus.lanes().await.unwrap();
    let counts: Vec<u64> = lanes.iter().map(|lane| lane.messages).collect();
    assert_eq!(counts, [2 * u64::from(MESSAGES)]);
    let reports = bus.inspect().await.unwrap();
    let raw = reports.iter().find(|report| report.name == name).unwrap();
    assert!(raw.differences.is_empty() && raw.lagging.contains(&leader), "{raw:?}");
    bus.close().await;
}
