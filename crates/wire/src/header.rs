use bytes::Bytes;
use model::{BatchHeader, BatchId, PushWindow};
use prost::Message;

use crate::{DecodeError, ledger, record};

/// Returns what a ledger entry tells of the run of a batch, if that accounts for pushed records.
#[must_use]
pub fn push_run(header: &BatchHeader) -> Option<ledger::PushRun> {
    header.push.map(|window| ledger::PushRun {
        revision: header.revision,
        window_start_ms: window.start_ms,
        window_end_ms: window.end_ms,
    })
}

pub(crate) fn to_wire(header: &BatchHeader) -> record::BatchHeader {
    record::BatchHeader {
        pipeline: header.pipeline.to_string(),
        revision: header.revision,
        run: header.run.to_string(),
        attempt: header.attempt,
        batch: header.batch.to_string(),
        part: header.part,
        sequence: header.sequence,
        cursor_before: header.cursor_before.clone(),
        cursor_after: header.cursor_after.clone(),
        extracted: header.extracted,
        push: header
            .push
            .map(|PushWindow { start_ms, end_ms }| record::PushWindow { start_ms, end_ms }),
    }
}

pub(crate) fn decode(bytes: Bytes) -> Result<BatchHeader, DecodeError> {
    let header =
        record::BatchHeader::decode(bytes).map_err(|_| DecodeError::malformed("header"))?;
    let counted = |field: &str, number: u32| {
        if number == 0 {
            Err(DecodeError::invalid(field, "it is counted from 1"))
        } else {
            Ok(number)
        }
    };
    if header.batch.is_empty() {
        return Err(DecodeError::invalid("header.batch", "it is empty"));
    }
    Ok(BatchHeader {
        pipeline: header
            .pipeline
            .try_into()
            .map_err(|_| DecodeError::invalid("header.pipeline", "it is no pipeline's name"))?,
        revision: counted("header.revision", header.revision)?,
        run: header
            .run
            .parse()
            .map_err(|_| DecodeError::invalid("header.run", "it is no run's id"))?,
        attempt: counted("header.attempt", header.attempt)?,
        batch: BatchId::from_wire(header.batch),
        part: header.part,
        sequence: header.sequence,
        cursor_before: header.cursor_before,
        cursor_after: header.cursor_after,
        extracted: header.extracted,
        push: header
            .push
            .map(|record::PushWindow { start_ms, end_ms }| PushWindow { start_ms, end_ms }),
    })
}
