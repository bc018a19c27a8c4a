//! What a stage refused, as it is kept.

use bytes::Bytes;
use model::{Batch, PipelineName};
use store::NewQuarantined;
use wire::Quarantined;

/// Takes refused records of a pipeline apart, so that each can be shown, replayed and dropped alone.
pub(crate) fn refused_records(
    pipeline: &PipelineName,
    quarantined: Quarantined,
) -> Vec<NewQuarantined> {
    let Quarantined { header, records, reasons, stage, target } = quarantined;
    // A stage that sends more reasons than records has nothing to show for any of them.
    let records = records.filter(|records| records.len() == reasons.len());
    let contents = |index: usize| {
        let (header, records) = (header.clone()?, records.as_ref()?.slice(index, 1));
        Some(wire::encode(&Batch { header, records }).to_vec())
    };
    let refused = reasons.into_iter().enumerate().map(|(index, reason)| NewQuarantined {
        pipeline: pipeline.clone(),
        revision: header.as_ref().map_or(0, |header| header.revision),
        run: header.as_ref().map_or_else(String::new, |header| header.run.to_string()),
        stage: stage.clone(),
        target: target.clone(),
        record: match &header {
            _ if !reason.record.is_empty() => reason.record,
            Some(header) => format!("{}#{index}", header.batch),
            None => nameless(&reason.raw),
        },
        code: reason.code,
        message: reason.message,
        step: reason.step,
        field: reason.field,
        contents: contents(index),
        raw: (!reason.raw.is_empty()).then(|| reason.raw.to_vec()),
        waits: None,
    });
    refused.collect()
}

/// What stands for the id of something that cannot be read: the same for the same bytes.
fn nameless(payload: &[u8]) -> String {
    format!("message {:016x}", twox_hash::XxHash3_64::oneshot(payload))
}

/// Makes a record of a message that cannot be taken apart.
pub(crate) fn unreadable_message(
    pipeline: PipelineName,
    payload: &Bytes,
    error: &str,
) -> NewQuarantined {
    NewQuarantined {
        pipeline,
        revision: 0,
        run: String::new(),
        stage: "scheduler".to_owned(),
        target: String::new(),
        record: nameless(payload),
        code: "unreadable".to_owned(),
        message: format!("a quarantine message cannot be read: {error}"),
        step: String::new(),
        field: String::new(),
        contents: None,
        raw: Some(payload.to_vec()),
        waits: None,
    }
}
