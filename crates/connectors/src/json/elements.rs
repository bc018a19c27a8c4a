//! Records whose texts are known one by one.

use std::borrow::Cow;

use connect::Limits;

use super::{
    object::{self, Member},
    table::Table,
};
use crate::files::{Cut, RefusedText};

/// Makes chunks of the texts of records. Positions count them from 1. `extra` are fields that every
/// record gets, with their JSON texts; they win over fields of the record.
pub(crate) fn cuts(elements: &[&[u8]], extra: &[(String, String)], limits: Limits) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let mut open = Open::default();
    for (index, element) in elements.iter().enumerate() {
        let position = index as u64 + 1;
        match members(element, extra, limits) {
            Ok(members) => {
                let bytes = open.table.bytes_with(&members) + open.refused_bytes;
                if open.len() > 0
                    && (open.len() >= limits.chunk_records || bytes > limits.chunk_bytes)
                {
                    cuts.extend(std::mem::take(&mut open).finish());
                }
                open.table.push(&members);
                open.positions.push(position);
            }
            Err((code, message, field)) => {
                let raw = element[..element.len().min(limits.record_bytes)].to_vec();
                let bytes = open.table.bytes_with(&[]) + open.refused_bytes + raw.len();
                if open.len() > 0
                    && (open.len() >= limits.chunk_records || bytes > limits.chunk_bytes)
                {
                    cuts.extend(std::mem::take(&mut open).finish());
                }
                open.refused_bytes += raw.len();
                open.refused.push(RefusedText { position, code, message, field, raw });
            }
        }
    }
    cuts.extend(open.finish());
    cuts
}

type Refusal = (&'static str, String, String);

fn members<'a>(
    element: &'a [u8],
    extra: &'a [(String, String)],
    limits: Limits,
) -> Result<Vec<Member<'a>>, Refusal> {
    if element.len() > limits.record_bytes {
        let message = format!("the record is larger than {} bytes", limits.record_bytes);
        return Err(("size", message, String::new()));
    }
    let text = std::str::from_utf8(element)
        .map_err(|_| ("encoding", "the record is not valid UTF-8".to_owned(), String::new()))?;
    let mut members = object::members(text).map_err(|fault| {
        (fault.code, format!("byte {} of the record: {}", fault.at + 1, fault.what), fault.field)
    })?;
    members.retain(|member| !extra.iter().any(|(name, _)| *name == member.name));
    members.extend(
        extra.iter().map(|(name, value)| Member { name: Cow::Borrowed(name), value: value.trim() }),
    );
    Ok(members)
}

#[derive(Default)]
struct Open {
    table: Table,
    positions: Vec<u64>,
    refused: Vec<RefusedText>,
    refused_bytes: usize,
}

impl Open {
    fn len(&self) -> usize {
        self.positions.len() + self.refused.len()
    }

    fn finish(self) -> Option<Cut> {
        if self.len() == 0 {
            return None;
        }
        let (columns, presence) = self.table.finish();
        Some(Cut { columns, presence, positions: self.positions, refused: self.refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_record_is_refused_alone_and_digits_stay() {
        let elements: [&[u8]; 5] =
            [br#"{"n":1.10}"#, b"7", br#"{"n":1,"n":2}"#, b"{\"n\":\"\xFF\"}", br#"{"n":null}"#];
        let extra = [("p".to_owned(), "\"x\"".to_owned())];
        let cuts = cuts(&elements, &extra, Limits::default());
        assert_eq!(cuts.len(), 1);
        assert_eq!(cuts[0].positions, [1, 5]);
        let codes: Vec<_> = cuts[0].refused.iter().map(|r| (r.code, r.position)).collect();
        assert_eq!(codes, [("shape", 2), ("duplicate_key", 3), ("encoding", 4)]);
        let texts = cuts[0].columns.column(0);
        let texts = texts.as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
        assert_eq!(texts.value(0), "1.10");
        assert_eq!(cuts[0].columns.num_columns(), 2);
    }

    #[test]
    fn chunks_are_bounded() {
        let element: &[u8] = br#"{"n":1}"#;
        let limits = Limits { chunk_records: 3, ..Limits::default() };
        let cuts = cuts(&[element; 7], &[], limits);
        let sizes: Vec<_> = cuts.iter().map(|cut| cut.positions.len()).collect();
        assert_eq!(sizes, [3, 3, 1]);
    }
}
