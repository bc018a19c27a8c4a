use std::time::Duration;

use bus::{
    Bucket,
    questions::{
        CheckResult, Checks, DiscoveredField, DiscoveredStream, ExtractQuestion, Inferred,
        LoadQuestion, Menu, Plan, PlanOutcome, PlannedTarget,
    },
};
use model::{Field, FieldType, Schema};
use serde_json::Value;
use spec::Revision;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use wire::control::{
    ApplyPipelinesRequest, Change, CheckPipelineRequest, DeletePipelineRequest,
    DiscoverSourceRequest, GetPipelineRequest, ListPipelinesRequest, PipelineSource,
    PlanPipelinesRequest, StartRunRequest, check_pipeline_request, discover_source_request,
};

use crate::house::{House, SHOP, apply, start, within};

fn source(yaml: &str) -> PipelineSource {
    PipelineSource { file: "shop.yaml".to_owned(), yaml: yaml.to_owned() }
}

/// Answers for extractors and loaders.
fn answering(house: &House) -> CancellationToken {
    let shutdown = CancellationToken::new();
    let (bus, token) = (house.bus.clone(), shutdown.clone());
    tokio::spawn(async move {
        bus.answer(&bus.names().ask_extract(), "extractor", &token, |question, _| async move {
            let answer = match question {
                ExtractQuestion::Check { .. } => serde_json::to_value(Checks {
                    results: vec![CheckResult {
                        subject: "source csv".to_owned(),
                        ok: true,
                        message: "2 files".to_owned(),
                    }],
                }),
                ExtractQuestion::Discover { .. } => serde_json::to_value(Menu {
                    streams: vec![DiscoveredStream {
                        name: "orders/1.csv".to_owned(),
                        fields: vec![DiscoveredField {
                            name: "id".to_owned(),
                            field_type: "integer".to_owned(),
                            key: true,
                            required: true,
                        }],
                    }],
                }),
                ExtractQuestion::Infer { .. } => serde_json::to_value(Inferred {
                    schema: Schema {
                        fields: vec![
                            Field::new("id", FieldType::Integer),
                            Field::new("extra", FieldType::Date),
                        ],
                    },
                }),
            };
            answer.map_err(|error| error.to_string())
        })
        .await;
    });
    let (bus, token) = (house.bus.clone(), shutdown.clone());
    tokio::spawn(async move {
        bus.answer(&bus.names().ask_load(), "loader", &token, |question, _| async move {
            match question {
                LoadQuestion::Check { .. } => Err::<Value, _>("no such host".to_owned()),
                LoadQuestion::Plan { fields, .. } => serde_json::to_value(Plan {
                    targets: vec![PlannedTarget {
                        target: "store".to_owned(),
                        outcome: PlanOutcome::Actions(vec![format!(
                            "create table `orders` with {} columns",
                            fields.len()
                        )]),
                    }],
                })
                .map_err(|error| error.to_string()),
            }
        })
        .await;
    });
    shutdown
}

fn without_schema() -> String {
    SHOP.lines().filter(|line| !line.starts_with("schema")).collect::<Vec<_>>().join("\n")
}

async fn stored(house: &House, key: &str) -> Option<Revision> {
    let value = house.bus.key_value(Bucket::Pipelines).get(key).await.unwrap()?;
    Some(serde_json::from_slice(&value).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_something_away_is_planned_and_refused_if_wished() {
    let (_house, replica) = House::with(SHOP).await;
    let mut client = replica.pipelines();
    let added = SHOP.replace("pipeline: shop", "pipeline: crm");
    let moved = SHOP.replace("key: [id]", "key: [id, total]");
    assert_ne!(moved, SHOP);
    let request = |refuse_destructive| ApplyPipelinesRequest {
        pipelines: vec![source(&added), source(&moved)],
        refuse_destructive,
    };
    let refused = client.apply_pipelines(request(true)).await.unwrap().into_inner();
    assert!(refused.applied.is_empty());
    let [problem] = refused.problems.as_slice() else { panic!("{:?}", refused.problems) };
    assert_eq!(problem.key, "key");
    assert!(problem.message.contains("the key was [id]"), "{problem:?}");
    assert!(problem.remedy.contains("--refuse-destructive"), "{problem:?}");
    let list = client.list_pipelines(ListPipelinesRequest {}).await.unwrap().into_inner();
    assert_eq!(list.pipelines.len(), 1, "nothing is stored");

    let plan = PlanPipelinesRequest { pipelines: vec![source(&added), source(&moved)] };
    let planned = client.plan_pipelines(plan).await.unwrap().into_inner().planned;
    let destructive: Vec<_> = planned.iter().map(|planned| planned.destructive.len()).collect();
    assert_eq!(destructive, [0, 1], "{planned:?}");
    let applied = client.apply_pipelines(request(false)).await.unwrap().into_inner().applied;
    assert_eq!(applied.len(), 2);
    // What is stored is not destructive any more.
    let again = client.apply_pipelines(request(true)).await.unwrap().into_inner();
    assert_eq!(again.applied.len(), 2, "{:?}", again.problems);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_are_applied_all_or_none() {
    let (house, replica) = House::with(SHOP).await;
    let mut client = replica.pipelines();
    let wrong = SHOP.replace("key: [id]", "kee: [id]").replace("pipeline: shop", "pipeline: crm");
    let request = ApplyPipelinesRequest {
        pipelines: vec![source(&SHOP.replace("orders/*", "new/*")), source(&wrong)],
        ..ApplyPipelinesRequest::default()
    };
    let refused = client.apply_pipelines(request).await.unwrap().into_inner();
    assert!(refused.applied.is_empty());
    assert!(
        refused
            .problems
            .iter()
            .any(|problem| problem.message.contains("kee") || problem.key.contains("kee")),
        "{:?}",
        refused.problems
    );
    let list = client.list_pipelines(ListPipelinesRequest {}).await.unwrap().into_inner();
    assert_eq!(list.pipelines.len(), 1);
    assert_eq!((list.pipelines[0].revision, list.pipelines[0].source.as_str()), (1, "csv"));
    assert_eq!(list.pipelines[0].targets, ["store"]);

    // Another text with the same meaning.
    let same = apply(&replica, &format!("# a comment\n{SHOP}")).await;
    assert_eq!((same.applied[0].revision, same.applied[0].change()), (1, Change::None));
    let other = apply(&replica, &SHOP.replace("orders/*", "new/*")).await;
    assert_eq!((other.applied[0].revision, other.applied[0].change()), (2, Change::Updated));
    assert_eq!(stored(&house, "shop").await.unwrap().revision, 2);
    assert_eq!(stored(&house, "shop.1").await.unwrap().revision, 1);

    let request = GetPipelineRequest { name: "shop".to_owned() };
    let got = client.get_pipeline(request).await.unwrap().into_inner().pipeline.unwrap();
    assert!(got.yaml.contains("new/*"));
    let twice = ApplyPipelinesRequest {
        pipelines: vec![source(SHOP), source(SHOP)],
        ..ApplyPipelinesRequest::default()
    };
    let refused = client.apply_pipelines(twice).await.unwrap().into_inner();
    assert!(refused.problems[0].message.contains("twice"));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_declared_is_inferred_before_the_first_run() {
    let (mut house, replica) = House::with(&without_schema()).await;
    assert_eq!(stored(&house, "shop").await, None);
    let request = StartRunRequest { pipeline: "shop".to_owned(), ..StartRunRequest::default() };
    let error = replica.runs().start_run(request.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("no extractor is running"), "{}", error.message());

    let answering = answering(&house);
    let run = within(async {
        loop {
            match replica.runs().start_run(request.clone()).await {
                Ok(response) => return response.into_inner().run.unwrap(),
                Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (stages, _) = house.plan().await;
    assert_eq!(stages.run, run.id);
    let kept = stored(&house, "shop.1").await.unwrap().schema.unwrap();
    assert_eq!(kept.fields.len(), 2);
    answering.cancel();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_fields_become_a_revision_with_a_longer_schema() {
    let (mut house, replica) = House::with(SHOP).await;
    let _answering = answering(&house);
    let request = StartRunRequest {
        pipeline: "shop".to_owned(),
        accept_fields: vec!["extra".to_owned(), "other".to_owned(), "id".to_owned()],
        ..StartRunRequest::default()
    };
    let run = replica.runs().start_run(request).await.unwrap().into_inner().run.unwrap();
    assert_eq!(run.revision, 2);
    let (_, plan) = house.plan().await;
    assert_eq!(plan.accepted_fields, ["extra", "other", "id"]);
    let revision = stored(&house, "shop.2").await.unwrap();
    let fields = revision.pipeline().unwrap().schema.unwrap().fields;
    let fields: Vec<_> = fields.iter().map(|f| (f.name.as_str(), f.field_type)).collect();
    assert_eq!(fields[0].0, "id");
    assert!(fields[2].0 == "extra" && fields[3] == ("other", FieldType::Text), "{fields:?}");
    // The text is the same, so applying it again changes nothing.
    let same = apply(&replica, SHOP).await;
    assert_eq!((same.applied[0].revision, same.applied[0].change()), (2, Change::None));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_what_would_happen_and_changes_nothing() {
    let house = House::new().await;
    let replica = house.scheduler().await;
    let mut client = replica.pipelines();
    let request = PlanPipelinesRequest { pipelines: vec![source(&without_schema())] };
    let refused = client.plan_pipelines(request.clone()).await.unwrap().into_inner();
    assert!(refused.problems[0].message.contains("cannot be inferred"), "{:?}", refused.problems);

    let _answering = answering(&house);
    let planned = within(async {
        loop {
            let response = client.plan_pipelines(request.clone()).await.unwrap().into_inner();
            if let Some(planned) = response.planned.into_iter().next()
                && planned.targets[0].unreachable.is_empty()
            {
                return planned;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!((planned.change(), planned.inferred), (Change::Created, true));
    assert_eq!(planned.fields[1].r#type, "date");
    assert!(planned.result.iter().any(|field| field.name == "id" && field.key));
    assert_eq!(planned.targets[0].actions, ["create table `orders` with 2 columns"]);
    let list = client.list_pipelines(ListPipelinesRequest {}).await.unwrap().into_inner();
    assert!(list.pipelines.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_and_menus_come_from_the_stages() {
    let (house, replica) = House::with(SHOP).await;
    let _answering = answering(&house);
    let mut client = replica.pipelines();
    let of_stored = check_pipeline_request::Pipeline::Name("shop".to_owned());
    let request = CheckPipelineRequest { pipeline: Some(of_stored) };
    let results = within(async {
        loop {
            let response = client.check_pipeline(request.clone()).await.unwrap().into_inner();
            if response.results[0].ok {
                return response.results;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(results.len(), 2);
    assert!(!results[1].ok && results[1].message.contains("no such host"), "{results:?}");
    let of_text = discover_source_request::Pipeline::Source(source(SHOP));
    let request = DiscoverSourceRequest { pipeline: Some(of_text) };
    let menu = client.discover_source(request).await.unwrap().into_inner();
    assert_eq!(menu.streams[0].fields[0].r#type, "integer");
    let request = DiscoverSourceRequest { pipeline: None };
    let error = client.discover_source(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pipeline_is_gone_from_the_broker() {
    let (house, replica) = House::with(SHOP).await;
    start(&replica).await;
    let request = DeletePipelineRequest { name: "shop".to_owned() };
    replica.pipelines().delete_pipeline(request.clone()).await.unwrap();
    let error = replica.pipelines().delete_pipeline(request).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(house.bus.key_value(Bucket::Pipelines).keys().await.unwrap().is_empty());
    assert!(house.bus.pending(&house.pipeline).await.unwrap().is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told() {
    let house = House::new().await;
    let replica = house.scheduler().await;
    let mut client = HealthClient::new(replica.channel.clone());
    let service = "tributary.control.v1.RunService".to_owned();
    let response = client.check(HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(response.status, 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_reflection_list_the_services() {
    let house = House::new().await;
    let replica = house.scheduler().await;
    let expected = [
        "grpc.health.v1.Health",
        "tributary.control.v1.PipelineService",
        "tributary.control.v1.QuarantineService",
        "tributary.control.v1.RunService",
    ];
    macro_rules! listed {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut answers = ServerReflectionClient::new(replica.channel.clone())
                .server_reflection_info(futures::stream::iter([request]))
                .await
                .unwrap()
                .into_inner();
            let answer = answers.message().await.unwrap().unwrap().message_response;
            let Some(MessageResponse::ListServicesResponse(list)) = answer else {
                panic!("no list");
            };
            list.service.into_iter().map(|service| service.name).collect::<Vec<String>>()
        }};
    }
    for listed in [listed!(v1), listed!(v1alpha)] {
        for service in expected {
            assert!(listed.iter().any(|name| name == service), "{service} in {listed:?}");
        }
    }
    replica.stop().await;
}
