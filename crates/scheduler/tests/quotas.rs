use std::time::Duration;

use connect::{Call, Feedback, Throttle};
use tonic::Code;
use wire::control::{
    ApplyPipelinesRequest, Change, DeletePipelineRequest, DeleteQuotaRequest, ListQuotasRequest,
    PipelineSource, Problem, Quota,
};

use crate::house::{House, Replica, SHOP, within};

pub(crate) const QUOTAS: &str = "quotas:\n  mail: {limits: [2/min, 100/day]}\n";

pub(crate) fn coupons() -> String {
    SHOP.replace(
        "  store: {sqlite: {path: store.db, table: orders}}",
        "  provider:\n    webhook:\n      url: \"https://mail.example/hooks\"\n      secrets: \
         [\"${env:SECRET}\"]\n      quota: mail",
    )
}

pub(crate) async fn apply(replica: &Replica, texts: &[&str]) -> (Vec<Change>, Vec<Problem>) {
    let source = |yaml: &&str| PipelineSource { file: "a.yaml".to_owned(), yaml: (*yaml).into() };
    let request = ApplyPipelinesRequest {
        pipelines: texts.iter().map(source).collect(),
        ..Default::default()
    };
    let answer = replica.pipelines().apply_pipelines(request).await.unwrap().into_inner();
    (answer.shared.iter().map(|shared| shared.change()).collect(), answer.problems)
}

async fn quotas(replica: &Replica) -> Vec<Quota> {
    replica.quotas().list_quotas(ListQuotasRequest {}).await.unwrap().into_inner().quotas
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_applied_used_changed_and_removed() {
    let house = House::new().await;
    let replica = house.scheduler().await;
    let (_, problems) = apply(&replica, &[&coupons()]).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("no quota `mail`"), "{problems:?}");
    // A wrong pipeline keeps the quota from being stored, too.
    let (_, problems) = apply(&replica, &[QUOTAS, "pipeline: shop"]).await;
    assert!(!problems.is_empty() && quotas(&replica).await.is_empty());
    assert_eq!(apply(&replica, &[QUOTAS, &coupons()]).await, (vec![Change::Created], vec![]));
    assert_eq!(apply(&replica, &[QUOTAS]).await, (vec![Change::None], vec![]));

    let throttle = bus::Quotas::new(&house.bus);
    let call = Call { quota: "mail", pipeline: "shop", method: "POST", path: "/" };
    for _ in 0..2 {
        let feedback = Feedback { status: Some(200), sent: true, ..Feedback::default() };
        within(throttle.acquire(call)).await.unwrap().finish(feedback);
    }
    let waits = throttle.acquire(call);
    assert!(tokio::time::timeout(Duration::from_millis(500), waits).await.is_err());
    let found = quotas(&replica).await;
    let [quota] = found.as_slice() else { panic!("{found:?}") };
    let used: Vec<_> = quota.limits.iter().map(|l| (l.limit.as_str(), l.used)).collect();
    assert_eq!(used, [("2/min", 2), ("100/day", 2)]);
    assert_eq!((quota.calls, quota.pipelines.as_slice()), (2, ["shop".to_owned()].as_slice()));

    let more = QUOTAS.replace("2/min", "3/min");
    assert_eq!(apply(&replica, &[&more]).await, (vec![Change::Updated], vec![]));
    within(throttle.acquire(call)).await.unwrap().give_back();
    within(throttle.close()).await;

    let delete = || DeleteQuotaRequest { name: "mail".to_owned() };
    let used = replica.quotas().delete_quota(delete()).await.unwrap_err();
    assert_eq!(used.code(), Code::FailedPrecondition, "{used}");
    let shop = DeletePipelineRequest { name: "shop".to_owned() };
    replica.pipelines().delete_pipeline(shop).await.unwrap();
    replica.quotas().delete_quota(delete()).await.unwrap();
    assert!(quotas(&replica).await.is_empty());
    let gone = replica.quotas().delete_quota(delete()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    replica.stop().await;
}
