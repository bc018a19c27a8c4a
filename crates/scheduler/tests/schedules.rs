use std::time::Duration;

use wire::control::{
    ApplyPipelinesRequest, CancelRunRequest, ListPollsRequest, ListRunsRequest, PipelineSource,
    Run, RunState, StartRunRequest,
};

use crate::house::{House, Replica, SHOP, apply, planned, until, until_state};

async fn apply_all(replica: &Replica, texts: &[&str]) -> Vec<String> {
    let source = |yaml: &&str| PipelineSource { file: "a.yaml".to_owned(), yaml: (*yaml).into() };
    let request = ApplyPipelinesRequest {
        pipelines: texts.iter().map(source).collect(),
        ..Default::default()
    };
    let answer = replica.pipelines().apply_pipelines(request).await.unwrap().into_inner();
    answer.problems.into_iter().map(|problem| problem.message).collect()
}

async fn started(replica: &Replica, pipeline: &str) -> Run {
    let request = StartRunRequest { pipeline: pipeline.to_owned(), ..StartRunRequest::default() };
    replica.runs().start_run(request).await.unwrap().into_inner().run.unwrap()
}

async fn cancel(replica: &Replica, id: &str) {
    replica.runs().cancel_run(CancelRunRequest { id: id.to_owned() }).await.unwrap();
}

fn pipeline(name: &str, priority: u8) -> String {
    SHOP.replace("pipeline: shop", &format!("pipeline: {name}")).replace(
        "source:",
        &format!("triggers: {{priority: {priority}}}\nsource:\n  connection: crm"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_wait_for_a_place_on_their_connection_and_get_it_by_priority() {
    let house = House::new().await;
    let (one, two) = tokio::join!(house.scheduler(), house.scheduler());
    let connection = "connections:\n  crm: {concurrent_runs: 1}\n";
    let [a, b, c] = [pipeline("a", 5), pipeline("b", 1), pipeline("c", 9)];
    let missing = apply_all(&one, &[&a]).await;
    assert!(missing[0].contains("no connection `crm`"), "{missing:?}");
    assert!(apply_all(&one, &[connection, &a, &b, &c]).await.is_empty());

    let first = started(&one, "a").await;
    assert_eq!((first.state(), first.connection.as_str()), (RunState::Running, "crm"));
    let low = started(&two, "b").await;
    let high = started(&one, "c").await;
    assert_eq!((low.state(), high.state()), (RunState::Waiting, RunState::Waiting));
    let told = until(&one, &high.id, |run| !run.reason.is_empty()).await;
    assert_eq!(told.reason, "connection `crm` has no place for another run");
    cancel(&two, &first.id).await;
    until_state(&one, &high.id, RunState::Running).await;
    let waits = until(&one, &low.id, |run| run.state() == RunState::Waiting).await;
    assert_eq!(waits.attempt, 1);
    // One that waits can be cancelled, which does not touch the others.
    cancel(&one, &low.id).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    until_state(&one, &high.id, RunState::Running).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long_fails() {
    let yaml = SHOP.replace("source:", "triggers: {max_duration: 1s}\nsource:");
    let (mut house, replica) = House::with(&yaml).await;
    let run = started(&replica, "shop").await;
    let (stages, _) = house.plan().await;
    stages.tell(vec![planned(&["f"])]).await;
    let failed = until_state(&replica, &run.id, RunState::Failed).await;
    assert!(failed.reason.contains("`max_duration`, 1 s"), "{failed:?}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_starts_counts_as_a_poll_and_says_nothing_of_intervals() {
    let (mut house, replica) = House::with(SHOP).await;
    for polls in 1..=3 {
        let run = started(&replica, "shop").await;
        let (stages, _) = house.plan().await;
        stages.tell(vec![planned(&[])]).await;
        until_state(&replica, &run.id, RunState::Succeeded).await;
        let listed = replica.polls().list_polls(ListPollsRequest::default()).await.unwrap();
        let [polled] = &listed.into_inner().pipelines[..] else { panic!("there is one pipeline") };
        assert_eq!((polled.polls, polled.polls_without_news), (polls, polls), "{polled:?}");
        assert!(polled.interval.is_none() && polled.estimates.is_empty(), "{polled:?}");
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_run_gives_way_or_the_newer_one_waits() {
    let house = House::new().await;
    let replica = house.scheduler().await;
    let list = async || {
        let request = ListRunsRequest::default();
        replica.runs().list_runs(request).await.unwrap().into_inner().runs
    };
    let count = |runs: &[Run], state| runs.iter().filter(|run| run.state() == state).count();
    for (policy, cancelled) in [("cancel", true), ("queue", false)] {
        let triggers = format!("triggers: {{every: 1s, overlap: {policy}}}\nschema:");
        apply(&replica, &SHOP.replace("schema:", &triggers)).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let runs = list().await;
            let wanted = if cancelled {
                count(&runs, RunState::Cancelled) >= 2 && count(&runs, RunState::Running) == 1
            } else {
                count(&runs, RunState::Waiting) >= 2 && count(&runs, RunState::Running) == 1
            };
            assert_eq!(count(&runs, RunState::Skipped), 0, "{policy}: {runs:#?}");
            if wanted {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{policy}: {runs:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_continuous_pipeline_runs_on_and_circles_are_refused() {
    let mut house = House::new().await;
    let (one, two) = tokio::join!(house.scheduler(), house.scheduler());
    let continuous = SHOP.replace("source:", "triggers: {continuous: true}\nsource:");
    assert!(apply_all(&one, &[&continuous]).await.is_empty());
    let mut last = String::new();
    for _ in 0..3 {
        let (stages, _) = house.plan().await;
        assert_ne!(stages.run, last);
        stages.tell(vec![planned(&[])]).await;
        let run = until_state(&two, &stages.run, RunState::Succeeded).await;
        assert_eq!(run.trigger, "continuous");
        last = stages.run;
    }
    let other = |name: &str, after: &str| {
        SHOP.replace("pipeline: shop", &format!("pipeline: {name}"))
            .replace("source:", &format!("triggers: {{after: [{after}]}}\nsource:"))
    };
    let circle = apply_all(&one, &[&other("x", "y"), &other("y", "x")]).await;
    assert_eq!(circle.len(), 2, "{circle:?}");
    let nobody = apply_all(&one, &[&other("x", "nobody")]).await;
    assert!(nobody[0].contains("no pipeline `nobody`"), "{nobody:?}");
    one.stop().await;
    two.stop().await;
}
