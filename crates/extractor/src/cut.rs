//! Cuts what a reader gives into pieces that fit a message. The same chunk is always cut alike.

use bus::MAX_PAYLOAD;
use bytes::Bytes;
use connect::{Chunk, RefusedRaw};
use model::Records;
use twox_hash::XxHash3_64;
use wire::{EncodedRecords, Reason, encode_records};

/// Room for the header of a batch besides its cursors.
const HEADER_ROOM: usize = 4 * 1024;

/// A part of a chunk that becomes one batch.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The records; `None` where all were refused.
    pub(crate) encoded: Option<EncodedRecords>,
    /// Number of records in `encoded`.
    pub(crate) count: u32,
    /// Why further records were refused.
    pub(crate) refused: Vec<Reason>,
    /// Position of the first record of either kind.
    pub(crate) first: u64,
    /// Position of the last record of either kind.
    pub(crate) last: u64,
}

impl Piece {
    /// Returns a hash of everything that was read for the piece.
    pub(crate) fn content_hash(&self) -> u64 {
        let encoded = self.encoded.as_ref().map_or(0, EncodedRecords::content_hash);
        if self.refused.is_empty() {
            return encoded;
        }
        let mut bytes = encoded.to_le_bytes().to_vec();
        for reason in &self.refused {
            bytes.extend_from_slice(reason.record.as_bytes());
            bytes.extend_from_slice(reason.code.as_bytes());
            bytes.extend_from_slice(&reason.raw);
        }
        XxHash3_64::oneshot(&bytes)
    }
}

/// Returns how large the encoded records of a message may be.
pub(crate) fn room(cursor_before: &str, cursor_after: &str) -> usize {
    MAX_PAYLOAD.saturating_sub(HEADER_ROOM + cursor_before.len() + cursor_after.len())
}

/// Cuts a chunk into pieces of at most `room` encoded bytes, in source order. What the reader has
/// refused belongs to the first piece; a record that alone is larger is a piece without records.
pub(crate) fn cut(chunk: Chunk, room: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    if !chunk.records.is_empty() {
        halve(&chunk.records, room, &mut pieces);
    }
    if let (Some(first), Some(last)) = (chunk.refused.first(), chunk.refused.last()) {
        let (first, last) = (first.position, last.position);
        if pieces.is_empty() {
            pieces.push(Piece { encoded: None, count: 0, refused: Vec::new(), first, last });
        }
        let piece = &mut pieces[0];
        piece.first = piece.first.min(first);
        piece.last = piece.last.max(last);
        piece.refused.splice(0..0, chunk.refused.into_iter().map(reason));
    }
    pieces
}

fn halve(records: &Records, room: usize, pieces: &mut Vec<Piece>) {
    let encoded = encode_records(records);
    let length = records.len();
    let (first, last) = (records.positions[0], records.positions[length - 1]);
    if encoded.len() <= room {
        let count = u32::try_from(length).expect("a message holds fewer records");
        pieces.push(Piece { encoded: Some(encoded), count, refused: Vec::new(), first, last });
    } else if length == 1 {
        let refused = vec![too_large(records, encoded.len(), room)];
        pieces.push(Piece { encoded: None, count: 0, refused, first, last });
    } else {
        let middle = length / 2;
        halve(&records.slice(0, middle), room, pieces);
        halve(&records.slice(middle, length - middle), room, pieces);
    }
}

fn too_large(record: &Records, size: usize, room: usize) -> Reason {
    Reason {
        record: record.id(0),
        code: "size".to_owned(),
        message: format!("the record takes {size} bytes, and a message has room for {room}"),
        ..Reason::default()
    }
}

fn reason(refused: RefusedRaw) -> Reason {
    Reason {
        record: refused.id,
        code: refused.code.to_owned(),
        message: refused.message,
        step: String::new(),
        field: refused.field,
        raw: Bytes::from(refused.raw),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use model::Ids;

    use super::*;

    fn chunk(texts: &[&str], refused: Vec<RefusedRaw>) -> Chunk {
        let schema = RecordBatch::try_from_iter([(
            "t",
            Arc::new(StringArray::from(texts.to_vec())) as ArrayRef,
        )]);
        let positions = (0..texts.len() as u64).map(|n| n + 2).collect();
        Chunk {
            records: Records {
                columns: schema.unwrap(),
                presence: Vec::new(),
                ids: Ids::Positions { prefix: "f:".to_owned() },
                positions,
                extraction_base: 7,
                versions: None,
                operations: None,
            },
            refused,
            cursor: "c".to_owned(),
        }
    }

    fn refused(position: u64) -> RefusedRaw {
        RefusedRaw {
            id: format!("f:{position}"),
            position,
            code: "shape",
            message: "two fields, not one".to_owned(),
            field: String::new(),
            raw: b"a,b".to_vec(),
        }
    }

    #[test]
    fn a_record_that_is_too_large_is_set_aside_alone() {
        let large = "x".repeat(2_000);
        let pieces = cut(chunk(&["a", "b", &large, "c"], Vec::new()), 1_000);
        let counts: Vec<_> = pieces.iter().map(|p| (p.count, p.refused.len())).collect();
        assert_eq!(counts, [(2, 0), (0, 1), (1, 0)]);
        assert_eq!(pieces[1].refused[0].code, "size");
        assert_eq!(pieces[1].refused[0].record, "f:4");
        assert_eq!((pieces[2].first, pieces[2].last), (5, 5));
    }

    #[test]
    fn a_chunk_that_is_too_large_is_cut_the_same_way_each_time() {
        let texts = vec!["0123456789"; 500];
        let cut_once = || cut(chunk(&texts, Vec::new()), 2_000);
        let describe = |pieces: Vec<Piece>| -> Vec<_> {
            pieces.iter().map(|p| (p.first, p.last, p.count, p.content_hash())).collect()
        };
        let pieces = describe(cut_once());
        assert!(pieces.len() > 1);
        assert_eq!(pieces.iter().map(|piece| piece.2).sum::<u32>(), 500);
        assert_eq!(pieces, describe(cut_once()));
    }

    #[test]
    fn refused_records_belong_to_the_first_piece() {
        let pieces = cut(chunk(&["a"], vec![refused(1), refused(9)]), 1_000);
        assert_eq!(pieces.len(), 1);
        assert_eq!((pieces[0].first, pieces[0].last), (1, 9));
        assert_eq!((pieces[0].count, pieces[0].refused.len()), (1, 2));
        let without = cut(chunk(&["a"], Vec::new()), 1_000);
        assert_ne!(pieces[0].content_hash(), without[0].content_hash());
    }

    #[test]
    fn a_chunk_of_refused_records_is_a_piece_without_records() {
        let pieces = cut(chunk(&[], vec![refused(3)]), 1_000);
        assert_eq!(pieces.len(), 1);
        assert!(pieces[0].encoded.is_none());
    }

    #[test]
    fn nothing_gives_no_piece() {
        assert!(cut(chunk(&[], Vec::new()), 1_000).is_empty());
    }
}
