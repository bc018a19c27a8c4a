//! Messages have a limit, and steps may make records larger.

use std::cmp::Reverse;

use arrow_array::BooleanArray;
use bus::MAX_PAYLOAD;
use bytes::Bytes;
use model::{BatchHeader, Records};

/// The records of a batch that one message can hold.
pub(crate) struct Fitted {
    pub(crate) records: Records,
    /// `None` where no record is left.
    pub(crate) message: Option<Bytes>,
    /// Which of the records are left out, ascending.
    pub(crate) left_out: Vec<usize>,
}

/// Encodes records, leaving out the largest until the rest fits.
///
/// A batch is one message per target, because the books are kept per batch. The extractor cuts
/// batches at half of the limit, so only steps that double a batch come here.
pub(crate) fn fit(records: Records, header: &BatchHeader) -> Fitted {
    if records.is_empty() {
        return Fitted { records, message: None, left_out: Vec::new() };
    }
    let message = wire::encode_records(&records).into_message(header);
    if message.len() <= MAX_PAYLOAD {
        return Fitted { records, message: Some(message), left_out: Vec::new() };
    }
    let mut sizes: Vec<(usize, usize)> = (0..records.len())
        .map(|row| (wire::encode_records(&records.slice(row, 1)).len(), row))
        .collect();
    sizes.sort_by_key(|(size, row)| (Reverse(*size), *row));
    let mut keep = vec![true; records.len()];
    let mut left_out = Vec::new();
    let mut largest = sizes.into_iter();
    let mut size = message.len();
    loop {
        // A record alone is larger than its share of the batch, so the sum comes down too fast and
        // is taken anew.
        while size > MAX_PAYLOAD {
            let Some((own, row)) = largest.next() else { break };
            keep[row] = false;
            left_out.push(row);
            size = size.saturating_sub(own.max(1));
        }
        left_out.sort_unstable();
        let rest = records
            .filter(&BooleanArray::from(keep.clone()))
            .expect("the mask has one entry per record");
        if rest.is_empty() {
            return Fitted { records: rest, message: None, left_out };
        }
        let message = wire::encode_records(&rest).into_message(header);
        if message.len() <= MAX_PAYLOAD {
            return Fitted { records: rest, message: Some(message), left_out };
        }
        size = message.len();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use model::{BatchId, Ids, RunId};

    use super::*;

    fn fitted(lengths: &[usize]) -> Fitted {
        let texts: StringArray = lengths.iter().map(|length| Some("x".repeat(*length))).collect();
        let columns = [("a", Arc::new(texts) as ArrayRef, true)];
        let records = Records {
            columns: RecordBatch::try_from_iter_with_nullable(columns).unwrap(),
            presence: Vec::new(),
            ids: Ids::Positions { prefix: "f:".to_owned() },
            positions: (0..).take(lengths.len()).collect(),
            extraction_base: 0,
            versions: None,
            operations: None,
        };
        let run = RunId::generate();
        let header = BatchHeader {
            pipeline: "shop".parse().unwrap(),
            revision: 1,
            run,
            attempt: 1,
            batch: BatchId::new(run, 0, 0, 1, 2),
            part: 0,
            sequence: 0,
            cursor_before: String::new(),
            cursor_after: String::new(),
            extracted: 1,
            push: None,
        };
        fit(records, &header)
    }

    #[test]
    fn the_largest_records_are_left_out_and_their_neighbours_stay() {
        let fitted = fitted(&[1_000, 600 * 1024, 10, 300 * 1024, 250 * 1024]);
        assert_eq!(fitted.left_out, [1, 3]);
        assert_eq!(fitted.records.positions, [0, 2, 4]);
        assert!(fitted.message.unwrap().len() <= MAX_PAYLOAD);
    }

    #[test]
    fn many_small_records_lose_no_more_than_they_must() {
        let fitted = fitted(&vec![100; 8_000]);
        assert!(fitted.message.unwrap().len() <= MAX_PAYLOAD);
        assert!(fitted.records.len() > 4_000, "{}", fitted.records.len());
        assert_eq!(fitted.records.len() + fitted.left_out.len(), 8_000);
    }

    #[test]
    fn a_record_that_is_too_large_alone_leaves_nothing() {
        let fitted = fitted(&[600 * 1024]);
        assert_eq!(fitted.left_out, [0]);
        assert!(fitted.message.is_none() && fitted.records.is_empty());
    }
}
