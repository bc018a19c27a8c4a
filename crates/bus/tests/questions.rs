use std::time::Duration;

use bus::{
    AskError,
    questions::{CheckResult, Checks, ExtractQuestion},
};

use crate::{Broker, PATIENCE, within};

fn check() -> ExtractQuestion {
    ExtractQuestion::Check { pipeline: "name: shop".to_owned() }
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let broker = Broker::start().await;
    let subject = broker.bus.names().ask_extract();
    let error =
        within(broker.bus.ask::<_, Checks>(&subject, &check(), PATIENCE)).await.unwrap_err();
    assert!(matches!(error, AskError::NoResponders(_)), "{error}");
}

#[tokio::test]
async fn a_question_is_answered_or_refused_in_words() {
    let broker = Broker::start().await;
    let subject = broker.bus.names().ask_extract();
    let (bus, listening, shutdown) = (broker.bus.clone(), subject.clone(), broker.shutdown.clone());
    let answering = tokio::spawn(async move {
        bus.answer(&listening, "extractor", &shutdown, async |question, _| match question {
            ExtractQuestion::Check { pipeline } => {
                let result = CheckResult { subject: pipeline, ok: true, message: "fine".into() };
                Ok(Checks { results: vec![result] })
            }
            _ => Err("cannot tell".to_owned()),
        })
        .await;
    });
    let checks: Checks = within(async {
        loop {
            match broker.bus.ask(&subject, &check(), PATIENCE).await {
                Err(AskError::NoResponders(_)) => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(checks.results[0].subject, "name: shop");

    let infer = ExtractQuestion::Infer { pipeline: String::new() };
    let error = broker.bus.ask::<_, Checks>(&subject, &infer, PATIENCE).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot tell");
    let error = broker.bus.ask::<_, Checks>(&subject, &"nonsense", PATIENCE).await.unwrap_err();
    assert!(matches!(error, AskError::Refused(_)), "{error}");

    broker.shutdown.cancel();
    within(answering).await.unwrap();
}

#[tokio::test]
async fn silence_ends_with_the_timeout() {
    let broker = Broker::start().await;
    let subject = broker.bus.names().ask_load();
    let client = async_nats::connect(broker.server.url()).await.unwrap();
    let _silent = client.subscribe(subject.to_string()).await.unwrap();
    // Who asks after this is heard, for the server takes everything from one client in order.
    client.request("nobody", "".into()).await.unwrap_err();
    let timeout = Duration::from_millis(200);
    let error = broker.bus.ask::<_, Checks>(&subject, &check(), timeout).await.unwrap_err();
    assert!(matches!(error, AskError::TimedOut { .. }), "{error}");
}
