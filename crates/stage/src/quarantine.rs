use bus::{Bus, MAX_PAYLOAD, Outgoing, PublishError};
use model::PipelineName;
use twox_hash::XxHash3_64;
use wire::{Quarantined, encode_quarantined};

/// Largest part of a record's text that is kept when the whole is too large for a message.
const KEPT_BYTES: usize = MAX_PAYLOAD / 2;

/// Publishes refused records and returns when JetStream has acknowledged them. Nothing is published
/// for no records.
///
/// They go into one message, or into several where one would be too large. A single record that is
/// too large goes without its values, with as much of its text as fits. The message ids name batch,
/// stage, target and content, so a repetition within the broker's memory is dropped.
///
/// # Errors
///
/// As [`Bus::publish`]. Repeating the call is harmless.
pub async fn quarantine(
    bus: &Bus,
    pipeline: &PipelineName,
    refused: Quarantined,
) -> Result<(), PublishError> {
    let subject = bus.names().quarantine(pipeline);
    let mut left = vec![refused];
    while let Some(refused) = left.pop() {
        if refused.reasons.is_empty() {
            continue;
        }
        let payload = encode_quarantined(&refused);
        if payload.len() > MAX_PAYLOAD {
            left.extend(smaller(refused));
            continue;
        }
        let id = message_id(&refused, XxHash3_64::oneshot(&payload));
        bus.publish(Outgoing::new(subject.clone(), payload).with_id(id)).await?;
    }
    Ok(())
}

fn message_id(refused: &Quarantined, hash: u64) -> String {
    let batch = refused
        .header
        .as_ref()
        .map_or_else(String::new, |header| format!("{}#{}", header.batch, header.attempt));
    format!("{batch}/{}/{}/{hash:016x}", refused.stage, refused.target)
}

/// Halves what is too large; the half that comes first is last.
fn smaller(mut refused: Quarantined) -> Vec<Quarantined> {
    let count = refused.reasons.len();
    if count == 1 {
        let reason = &mut refused.reasons[0];
        if refused.records.take().is_none() {
            // Nothing but the text can be so long, and the header is what is left in the end.
            let kept = if reason.raw.len() > KEPT_BYTES { KEPT_BYTES } else { 0 };
            reason.raw.truncate(kept);
        }
        return vec![refused];
    }
    let middle = count / 2;
    let behind = Quarantined {
        header: refused.header.clone(),
        records: refused.records.as_ref().map(|records| records.slice(middle, count - middle)),
        reasons: refused.reasons.split_off(middle),
        stage: refused.stage.clone(),
        target: refused.target.clone(),
    };
    refused.records = refused.records.map(|records| records.slice(0, middle));
    vec![behind, refused]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{BatchHeader, BatchId, RunId};
    use wire::Reason;

    use super::*;

    fn refused(raws: &[usize]) -> Quarantined {
        let reason = |(index, length): (usize, &usize)| Reason {
            record: format!("r{index}"),
            code: "shape".to_owned(),
            raw: Bytes::from(vec![b'x'; *length]),
            ..Reason::default()
        };
        let run = RunId::generate();
        Quarantined {
            header: Some(BatchHeader {
                pipeline: "shop".parse().unwrap(),
                revision: 1,
                run,
                attempt: 1,
                batch: BatchId::new(run, 0, 1, 2, 3),
                part: 0,
                sequence: 0,
                cursor_before: String::new(),
                cursor_after: "9".to_owned(),
                extracted: 3,
                push: None,
            }),
            records: None,
            reasons: raws.iter().enumerate().map(reason).collect(),
            stage: "extractor".to_owned(),
            target: String::new(),
        }
    }

    #[test]
    fn a_record_that_is_too_large_alone_is_cut() {
        let cut = smaller(refused(&[MAX_PAYLOAD]));
        assert_eq!(cut.len(), 1);
        assert_eq!(cut[0].reasons[0].raw.len(), KEPT_BYTES);
    }

    #[test]
    fn halves_keep_their_order_and_lose_nothing() {
        let halves = smaller(refused(&[1, 2, 3]));
        let names: Vec<_> = halves
            .iter()
            .rev()
            .flat_map(|half| half.reasons.iter().map(|reason| reason.record.as_str()))
            .collect();
        assert_eq!(names, ["r0", "r1", "r2"]);
    }
}
