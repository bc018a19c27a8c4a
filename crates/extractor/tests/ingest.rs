//! gRPC ingest against a real broker.

use std::{path::PathBuf, time::Duration};

use extractor::Listeners;
use runtime::tls::TlsConfig;
use testkit::certificates::Authority;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use wire::ingest::{
    IngestRequest, IngestStreamRequest, PushOperation, PushedRecord,
    ingest_service_client::IngestServiceClient,
};

use crate::{
    intake::{Intake, Running, secret},
    stage::within,
};

#[tokio::test]
async fn records_are_ingested_by_grpc_each_by_its_id() {
    let token = secret("t0ken");
    let push = format!("{{grpc: {{bearer: [{}]}}}}", token.reference);
    let mut intake = Intake::new(&push).await;
    let bind = || TcpListener::bind("127.0.0.1:0");
    let ingest = bind().await.unwrap();
    let port = ingest.local_addr().unwrap().port();
    let shutdown = CancellationToken::new();
    let listeners = Listeners { webhooks: None, ingest: Some(ingest) };
    let task = tokio::spawn(extractor::run_on(listeners, intake.config.clone(), shutdown.clone()));
    let running = Running { webhooks: 0, ingest: port, shutdown, task };

    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy();
    let authorize = |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("authorization", "Bearer t0ken".parse().unwrap());
        Ok(request)
    };
    let mut stranger = IngestServiceClient::new(channel.clone());
    let mut client = IngestServiceClient::with_interceptor(channel, authorize);
    let record = |id: &str, json: &str| PushedRecord {
        id: id.to_owned(),
        operation: PushOperation::Unspecified.into(),
        json: json.to_owned(),
    };
    let request =
        |records: Vec<PushedRecord>| IngestRequest { pipeline: "shop".to_owned(), records };
    let first = request(vec![
        record("a", "{\"id\":1}"),
        record("b", "{\"id\":}"),
        record("a", "{\"id\":1}"),
        record("", "{\"id\":2}"),
        PushedRecord { operation: PushOperation::Delete.into(), ..record("c", "{\"id\":3}") },
    ]);
    // The pipeline has to arrive first.
    let answer = within(async {
        loop {
            match client.ingest(first.clone()).await {
                Err(status) if status.code() == tonic::Code::NotFound => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                answer => break answer.unwrap().into_inner(),
            }
        }
    })
    .await;
    assert_eq!(answer.accepted, ["a", "a", "c"]);
    let rejected: Vec<_> = answer.rejected.iter().map(|rejected| rejected.id.as_str()).collect();
    assert_eq!(rejected, ["b", ""]);
    let batch = intake.batch().await;
    let ids: Vec<_> = (0..batch.records.len()).map(|index| batch.records.id(index)).collect();
    assert_eq!(ids, ["a", "c"], "what is repeated counts once");
    assert_eq!(batch.records.operation(1), model::Operation::Delete);
    let refused = stranger.ingest(first.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let mut much = tonic::Request::new(first.clone());
    much.metadata_mut().insert("x-much", "m".repeat(17 * 1024).parse().unwrap());
    within(client.ingest(much)).await.unwrap_err();
    let unknown = IngestRequest { pipeline: "nowhere".to_owned(), records: Vec::new() };
    assert_eq!(client.ingest(unknown).await.unwrap_err().code(), tonic::Code::NotFound);

    let messages = (0..200).map(move |number| IngestStreamRequest {
        pipeline: if number == 0 { "shop".to_owned() } else { String::new() },
        records: (0..10).map(|index| record(&format!("s{number}.{index}"), "{\"id\":4}")).collect(),
    });
    let mut answers =
        client.ingest_stream(futures::stream::iter(messages)).await.unwrap().into_inner();
    for number in 0..200 {
        let answer = within(answers.message()).await.unwrap().unwrap();
        assert_eq!((answer.accepted.len(), answer.rejected.len()), (10, 0));
        assert_eq!(answer.accepted[9], format!("s{number}.9"), "answers keep their order");
    }
    assert!(within(answers.message()).await.unwrap().is_none());
    let mut records = 0;
    while records < 2_000 {
        records += intake.batch().await.records.len();
    }
    assert_eq!(records, 2_000);
    assert_eq!(running.ingest, port);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_ingest_speaks_tls_by_the_files_as_they_stand() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (before, after) = (Authority::new(), Authority::new());
    before.issue("server");
    before.issue("client");
    after.issue("server");
    let files = TlsConfig {
        certificate: before.path("server.pem"),
        key: before.path("server.key"),
        client_ca: Some(before.path("ca.pem")),
    };
    let intake = Intake::with("{webhook: {verify: none}, grpc: none}", |config| {
        config.ingest.tls = Some(files.clone());
    })
    .await;
    let running = intake.start().await;
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let identity =
        Identity::from_pem(read(before.path("client.pem")), read(before.path("client.key")));
    let call = |authority: &Authority, identity: Option<Identity>| {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(authority.path("ca.pem"))));
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let url = format!("https://127.0.0.1:{}", running.ingest);
        let channel = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap().connect_lazy();
        let records = vec![PushedRecord {
            id: "a".to_owned(),
            operation: PushOperation::Unspecified.into(),
            json: "{\"id\":1}".to_owned(),
        }];
        async move {
            let request = IngestRequest { pipeline: "shop".to_owned(), records };
            IngestServiceClient::new(channel).ingest(request).await
        }
    };
    let answer = within(call(&before, Some(identity.clone()))).await.unwrap().into_inner();
    assert_eq!(answer.accepted, ["a"]);
    within(call(&before, None)).await.unwrap_err();
    within(call(&after, Some(identity.clone()))).await.unwrap_err();

    std::fs::copy(after.path("server.pem"), &files.certificate).unwrap();
    std::fs::copy(after.path("server.key"), &files.key).unwrap();
    within(async {
        // The files are looked at every two seconds; there is no event for others.
        while call(&after, Some(identity.clone())).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    running.stop().await;
}
