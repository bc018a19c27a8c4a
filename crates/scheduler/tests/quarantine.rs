use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bus::Outgoing;
use model::{Batch, BatchHeader, BatchId, FieldType, Ids, Records};
use tonic::Code;
use wire::{
    Quarantined, Reason,
    control::{
        DropQuarantineRequest, GetQuarantinedRequest, ListQuarantineRequest, QuarantineSelection,
        QuarantinedRecord, ReplayQuarantineRequest, RunState,
    },
};

use crate::house::{
    House, Replica, SHOP, Stages, apply, extracted, loaded, part_ended, planned, start,
    transformed, until, until_state, within,
};

fn records(base: i64) -> Records {
    let schema = arrow_schema::Schema::new(vec![
        FieldType::Integer.arrow_field("id"),
        FieldType::Text.arrow_field("total"),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2])),
        Arc::new(StringArray::from(vec![Some("x,y"), None])),
    ];
    Records {
        columns: RecordBatch::try_new(Arc::new(schema), columns).unwrap(),
        presence: Vec::new(),
        ids: Ids::Positions { prefix: "orders/1.csv:".to_owned() },
        positions: vec![2, 3],
        extraction_base: base,
        versions: None,
        operations: None,
    }
}

fn refused(stages: &Stages, house: &House, stage: &str, target: &str) -> Quarantined {
    let reason = |line: u32| Reason {
        record: format!("orders/1.csv:{line}"),
        code: "type".to_owned(),
        message: "the text is no decimal".to_owned(),
        step: "1 (cast)".to_owned(),
        field: "total".to_owned(),
        ..Reason::default()
    };
    Quarantined {
        header: Some(BatchHeader {
            pipeline: house.pipeline.clone(),
            revision: 1,
            run: stages.id(),
            attempt: 1,
            batch: BatchId::from_wire("b0".to_owned()),
            part: 0,
            sequence: 0,
            cursor_before: String::new(),
            cursor_after: "c1".to_owned(),
            extracted: 10,
            push: None,
        }),
        records: Some(records(1_000)),
        reasons: vec![reason(2), reason(3)],
        stage: stage.to_owned(),
        target: target.to_owned(),
    }
}

/// Ends a run of which a stage refused two of ten records, and returns its id.
async fn refuse(house: &mut House, replica: &Replica, stage: &str, target: &str) -> String {
    let run = start(replica).await;
    let (stages, _) = house.plan().await;
    let message = wire::encode_quarantined(&refused(&stages, house, stage, target));
    let subject = house.bus.names().quarantine(&house.pipeline);
    // Delivered twice.
    house.bus.publish(Outgoing::new(subject.clone(), message.clone())).await.unwrap();
    house.bus.publish(Outgoing::new(subject, message)).await.unwrap();
    let (early, late) = if target.is_empty() { (2, 0) } else { (0, 2) };
    let mut events = vec![planned(&["f"]), extracted(0), transformed("b0", early)];
    events.extend([loaded("b0", 8, late), part_ended(1)]);
    stages.tell(events).await;
    until_state(replica, &run.id, RunState::Succeeded).await;
    run.id
}

async fn listed(replica: &Replica, number: usize) -> Vec<QuarantinedRecord> {
    within(async {
        loop {
            let request = ListQuarantineRequest::default();
            let list = replica.quarantine().list_quarantine(request).await.unwrap().into_inner();
            assert_eq!(list.total, list.records.len() as u64);
            if list.records.len() == number {
                return list.records;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_is_shown_and_dropped() {
    let (mut house, replica) = House::with(SHOP).await;
    let run = Box::pin(refuse(&mut house, &replica, "transformer", "")).await;
    let records = listed(&replica, 2).await;
    assert_eq!(records[0].run, run);
    assert_eq!((records[0].code.as_str(), records[0].field.as_str()), ("type", "total"));
    assert_eq!(records[1].contents, "");
    let first = records.iter().find(|record| record.record.ends_with(":2")).unwrap();
    let mut client = replica.quarantine();
    let got = client.get_quarantined(GetQuarantinedRequest { id: first.id }).await.unwrap();
    assert_eq!(got.into_inner().record.unwrap().contents, r#"{"id":1,"total":"x,y"}"#);
    let error = client.get_quarantined(GetQuarantinedRequest { id: 999 }).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);

    let selection = QuarantineSelection { ids: vec![first.id], ..QuarantineSelection::default() };
    let request = DropQuarantineRequest { selection: Some(selection) };
    assert_eq!(client.drop_quarantine(request).await.unwrap().into_inner().records, 1);
    listed(&replica, 1).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_the_transformer_are_replayed_through_all_steps() {
    let (mut house, replica) = House::with(SHOP).await;
    Box::pin(refuse(&mut house, &replica, "transformer", "")).await;
    listed(&replica, 2).await;
    apply(&replica, &SHOP.replace("decimal(12,2)", "decimal(14,2)")).await;
    let request = ReplayQuarantineRequest::default();
    let replayed =
        replica.quarantine().replay_quarantine(request.clone()).await.unwrap().into_inner();
    assert_eq!((replayed.records, replayed.runs.len()), (2, 1));

    let delivery = house.delivery(house.raw()).await;
    let Batch { header, records } = wire::decode(delivery.payload().unwrap()).unwrap();
    delivery.ack().await.unwrap();
    assert_eq!((header.revision, header.attempt, header.extracted), (2, 1, 2));
    assert_eq!(header.run.to_string(), replayed.runs[0]);
    assert_eq!((records.id(1), records.version(1)), ("orders/1.csv:3".to_owned(), (1_003, 1_003)));

    // While it goes on, nothing is replayed a second time.
    let error = replica.quarantine().replay_quarantine(request).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);

    let stages = house.stages_of(&replayed.runs[0], 1);
    let again = Quarantined {
        header: Some(header.clone()),
        records: Some(records.slice(1, 1)),
        reasons: vec![Reason {
            record: records.id(1),
            code: "type".to_owned(),
            ..Reason::default()
        }],
        stage: "transformer".to_owned(),
        target: String::new(),
    };
    let subject = house.bus.names().quarantine(&house.pipeline);
    let message = wire::encode_quarantined(&again);
    house.bus.publish(Outgoing::new(subject, message)).await.unwrap();
    let batch = header.batch.as_str();
    stages.tell(vec![transformed(batch, 1), loaded(batch, 1, 0)]).await;
    let ended = until_state(&replica, &replayed.runs[0], RunState::Succeeded).await;
    assert_eq!(ended.trigger, "replay");
    let left = listed(&replica, 1).await;
    assert_eq!((left[0].run.as_str(), left[0].revision), (replayed.runs[0].as_str(), 2));
    // A replay says nothing about where the source stands.
    start(&replica).await;
    let (_, plan) = house.plan().await;
    assert_eq!(plan.cursors[0].cursor, "end");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_loader_go_to_their_target_again() {
    let (mut house, replica) = House::with(SHOP).await;
    Box::pin(refuse(&mut house, &replica, "loader", "store")).await;
    listed(&replica, 2).await;
    let request = ReplayQuarantineRequest::default();
    let replayed = replica.quarantine().replay_quarantine(request).await.unwrap().into_inner();
    let delivery = house.delivery(house.ready()).await;
    let Batch { header, records } = wire::decode(delivery.payload().unwrap()).unwrap();
    delivery.ack().await.unwrap();
    assert_eq!(records.len(), 2);
    let run = &replayed.runs[0];
    let going =
        until(&replica, run, |run| run.ledger.as_ref().is_some_and(|l| l.batches > 0)).await;
    assert_eq!(going.ledger.unwrap().targets[0].missing, 2);
    house.stages_of(run, 1).tell(vec![loaded(header.batch.as_str(), 2, 0)]).await;
    until_state(&replica, run, RunState::Succeeded).await;
    listed(&replica, 0).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_is_kept() {
    let (house, replica) = House::with(SHOP).await;
    let subject = house.bus.names().quarantine(&house.pipeline);
    let garbage = bytes::Bytes::from_static(b"\xff\xff\xff");
    house.bus.publish(Outgoing::new(subject, garbage)).await.unwrap();
    let kept = listed(&replica, 1).await;
    assert_eq!((kept[0].stage.as_str(), kept[0].code.as_str()), ("scheduler", "unreadable"));
    let error = replica
        .quarantine()
        .replay_quarantine(ReplayQuarantineRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    replica.stop().await;
}
