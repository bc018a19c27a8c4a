use std::time::Duration;

use bus::{Bus, Config, ConnectError};
use testkit::nats::Nats;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use crate::{Broker, within};

#[tokio::test]
async fn a_server_that_comes_late_is_waited_for() {
    let mut server = Nats::start();
    server.stop();
    let config = Config { servers: vec![server.url()], ..Config::default() };
    let connecting = tokio::spawn(async move {
        let shutdown = CancellationToken::new();
        Bus::connect(&config, &shutdown).await.map(|bus| bus.is_connected())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!connecting.is_finished());
    server.restart();
    assert!(within(connecting).await.unwrap().unwrap());
}

#[tokio::test]
async fn shutdown_ends_the_waiting() {
    let mut server = Nats::start();
    server.stop();
    let config = Config { servers: vec![server.url()], ..Config::default() };
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let error = within(Box::pin(Bus::connect(&config, &shutdown))).await.unwrap_err();
    assert!(matches!(error, ConnectError::Shutdown));
}

#[tokio::test]
async fn an_old_server_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let info = format!(
            "INFO {{\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"2.10.9\",\"go\":\"\",\
             \"host\":\"127.0.0.1\",\"port\":{port},\"headers\":true,\"max_payload\":1048576,\
             \"proto\":1,\"client_id\":1}}\r\n"
        );
        stream.write_all(info.as_bytes()).await.unwrap();
        let mut heard = [0; 4096];
        while stream.read(&mut heard).await.is_ok_and(|length| length > 0) {
            stream.write_all(b"PONG\r\n").await.unwrap();
        }
    });
    let config = Config { servers: vec![format!("nats://127.0.0.1:{port}")], ..Config::default() };
    let error =
        within(Box::pin(Bus::connect(&config, &CancellationToken::new()))).await.unwrap_err();
    assert!(error.to_string().contains("2.10.9"), "{error}");
    assert!(error.to_string().contains("2.15.1"), "{error}");
    server.abort();
}

#[tokio::test]
async fn provisioning_twice_changes_nothing() {
    let broker = Broker::start().await;
    broker.bus.publish(broker.raw("kept")).await.unwrap();
    broker.bus.provision().await.unwrap();
    assert_eq!(broker.bus.pending(&crate::shop()).await.unwrap().raw, 1);
    assert!(broker.bus.is_ready().await);
}
