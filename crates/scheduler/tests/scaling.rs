use std::time::Duration;

use bus::Outgoing;
use connect::{Call, Feedback, Throttle};
use tonic::{Code, transport::Channel};
use wire::{
    control::{ListPipelinesRequest, pipeline_service_client::PipelineServiceClient},
    scaler::{GetMetricsRequest, ScaledObjectRef, external_scaler_client::ExternalScalerClient},
};

use crate::{
    house::{House, Replica, within},
    quotas::{QUOTAS, apply, coupons},
};

fn loaders(more: &[(&str, &str)]) -> ScaledObjectRef {
    let metadata = [("scalerAddress", "here:7000"), ("stage", "loader")].iter().chain(more);
    ScaledObjectRef {
        name: "loader".to_owned(),
        namespace: "tributary".to_owned(),
        scaler_metadata: metadata.map(|(key, value)| ((*key).into(), (*value).into())).collect(),
    }
}

async fn metric(replica: &Replica, object: ScaledObjectRef, name: &str) -> f64 {
    let request =
        GetMetricsRequest { scaled_object_ref: Some(object), metric_name: name.to_owned() };
    let mut scaler = ExternalScalerClient::new(replica.channel.clone());
    let answer = scaler.get_metrics(request).await.unwrap().into_inner();
    let [value] = &answer.metric_values[..] else { panic!("{answer:?}") };
    assert_eq!(value.metric_name, name);
    value.metric_value_float
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_counts_until_only_a_quota_holds_it_up() {
    let house = House::new().await;
    let target = "provider".parse().unwrap();
    for _ in 0..3 {
        let subject = house.bus.names().ready(&house.pipeline, &target);
        house.bus.publish(Outgoing::new(subject, vec![1; 100].into())).await.unwrap();
    }
    let replica = house.scheduler().await;
    let (_, problems) = apply(&replica, &[QUOTAS, &coupons()]).await;
    assert!(problems.is_empty(), "{problems:?}");

    let backlog = "tributary-loader-backlog";
    assert!((metric(&replica, loaders(&[]), backlog).await - 3.0).abs() < 0.1);
    let other = loaders(&[("pipeline", "other")]);
    assert!(metric(&replica, other, backlog).await < 0.1);
    assert!(metric(&replica, loaders(&[("age", "30")]), "tributary-loader-age").await > 0.0);
    let mut scaler = ExternalScalerClient::new(replica.channel.clone());
    let asked = loaders(&[("backlog", "7"), ("age", "0.5")]);
    let spec = scaler.get_metric_spec(asked).await.unwrap().into_inner().metric_specs;
    let targets: Vec<_> = spec.iter().map(|spec| (&*spec.metric_name, spec.target_size)).collect();
    assert_eq!(targets, [("tributary-loader-backlog", 7), ("tributary-loader-age", 1)]);
    let mut active = scaler.stream_is_active(loaders(&[])).await.unwrap().into_inner();
    assert!(within(active.message()).await.unwrap().unwrap().result);

    // Two calls a minute are made; the third one waits, and more loaders would wait with it.
    let throttle = bus::Quotas::new(&house.bus);
    let call = Call { quota: "mail", pipeline: "shop", method: "POST", path: "/" };
    for _ in 0..2 {
        let feedback = Feedback { status: Some(200), sent: true, ..Feedback::default() };
        within(throttle.acquire(call)).await.unwrap().finish(feedback);
    }
    let waits = async {
        drop(throttle.acquire(call).await);
        panic!("the third call is not made within a minute");
    };
    let told = tokio::select! {
        told = within(active.message()) => told,
        never = waits => never,
    };
    assert!(!told.unwrap().unwrap().result);
    assert!(metric(&replica, loaders(&[]), backlog).await < 0.1);
    assert!(!scaler.is_active(loaders(&[])).await.unwrap().into_inner().result);
    within(throttle.close()).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_cannot_be_meant_is_refused() {
    let house = House::new().await;
    let replica = house.scheduler().await;
    let mut scaler = ExternalScalerClient::new(replica.channel.clone());
    let refused = scaler.is_active(ScaledObjectRef::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("`stage`"), "{refused}");
    let request =
        GetMetricsRequest { scaled_object_ref: Some(loaders(&[])), metric_name: "cpu".to_owned() };
    let refused = scaler.get_metrics(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("tributary-loader-backlog"), "{refused}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keda_needs_no_token_where_only_the_scaler_is() {
    let mut house = House::new().await;
    let address = format!("127.0.0.1:{}", testkit::ports::free_port()).parse().unwrap();
    house.config.scaler_listen = Some(address);
    house.config.access.mode = Some(scheduler::Mode::Tokens);
    let replica = house.scheduler().await;
    let mut scaler = ExternalScalerClient::new(replica.channel.clone());
    let refused = scaler.is_active(loaders(&[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");

    // The API answered, so this listens too.
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let channel = within(channel.connect()).await.unwrap();
    let mut scaler = ExternalScalerClient::new(channel.clone());
    assert!(!scaler.is_active(loaders(&[])).await.unwrap().into_inner().result);
    let mut pipelines = PipelineServiceClient::new(channel);
    let refused = pipelines.list_pipelines(ListPipelinesRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preparing_waits_for_the_broker_and_may_be_repeated() {
    let mut house = House::new().await;
    house.nats.wipe();
    let (patience, never) = (Duration::from_secs(60), tokio_util::sync::CancellationToken::new());
    let short = scheduler::prepare(house.config.clone(), Duration::from_millis(10), &never);
    let error = within(Box::pin(short)).await.unwrap_err();
    assert!(format!("{error:#}").contains("no server of the broker can be reached"), "{error:#}");

    let config = house.config.clone();
    let preparing = tokio::spawn(async move {
        scheduler::prepare(config, patience, &tokio_util::sync::CancellationToken::new()).await
    });
    house.nats.restart();
    within(preparing).await.unwrap().unwrap();
    let replica = house.scheduler().await;
    scheduler::prepare(house.config.clone(), patience, &never).await.unwrap();
    let reports = within(house.bus.inspect()).await.unwrap();
    assert!(reports.iter().all(|found| found.exists && found.differences.is_empty()));
    replica.stop().await;
}
