//! Messages of the `pgoutput` plugin, version 1.
//!
//! Source: PostgreSQL 15 documentation, "Logical Replication Message Formats".

use super::super::catalog::Described;

/// What the server tells about rows. Transactions are told by the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// The columns of a table from here on.
    Relation(Relation),
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        relation: u32,
        /// The row before: all of it, or the key if that has changed.
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: Old<'a>,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// Something that says nothing about rows.
    Other,
}

/// A table as the log describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) id: u32,
    pub(super) columns: Vec<Described>,
    /// Per column, whether it belongs to the replica identity.
    pub(super) identity: Vec<bool>,
}

/// Values of a row before a change, in the order of the relation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Old<'a> {
    /// The columns of the replica identity; all others are null here.
    Key(Tuple<'a>),
    Full(Tuple<'a>),
}

pub(super) type Tuple<'a> = Vec<Value<'a>>;

/// One column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    /// A value that lies outside of the row and was not touched; the log does not hold it.
    Unchanged,
    /// As the type's output function writes it.
    Text(&'a [u8]),
}

/// The message ends early or holds what it cannot hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of the replication stream cannot be read")]
pub(super) struct Malformed;

/// Reads a message.
///
/// # Errors
///
/// When it is not of this protocol.
pub(super) fn read(data: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut input = Input(data);
    Ok(match input.byte()? {
        b'R' => Message::Relation(relation(&mut input)?),
        b'I' => {
            let relation = input.u32()?;
            input.expect(b'N')?;
            Message::Insert { relation, new: tuple(&mut input)? }
        }
        b'U' => {
            let relation = input.u32()?;
            let mut kind = input.byte()?;
            let old = match kind {
                b'K' | b'O' => Some(old(kind, &mut input)?),
                _ => None,
            };
            if old.is_some() {
                kind = input.byte()?;
            }
            if kind != b'N' {
                return Err(Malformed);
            }
            Message::Update { relation, old, new: tuple(&mut input)? }
        }
        b'D' => {
            let relation = input.u32()?;
            let kind = input.byte()?;
            Message::Delete { relation, old: old(kind, &mut input)? }
        }
        b'T' => {
            let count = input.u32()?;
            input.byte()?;
            let relations = (0..count).map(|_| input.u32()).collect::<Result<_, _>>()?;
            Message::Truncate { relations }
        }
        _ => Message::Other,
    })
}

fn relation(input: &mut Input<'_>) -> Result<Relation, Malformed> {
    let id = input.u32()?;
    input.text()?;
    input.text()?;
    input.byte()?;
    let count = input.u16()?;
    let mut columns = Vec::with_capacity(usize::from(count));
    let mut identity = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        identity.push(input.byte()? & 1 == 1);
        columns.push(Described {
            name: input.text()?.to_owned(),
            type_id: input.u32()?,
            modifier: input.u32()?.cast_signed(),
        });
    }
    Ok(Relation { id, columns, identity })
}

fn old<'a>(kind: u8, input: &mut Input<'a>) -> Result<Old<'a>, Malformed> {
    match kind {
        b'K' => Ok(Old::Key(tuple(input)?)),
        b'O' => Ok(Old::Full(tuple(input)?)),
        _ => Err(Malformed),
    }
}

fn tuple<'a>(input: &mut Input<'a>) -> Result<Tuple<'a>, Malformed> {
    let count = input.u16()?;
    let mut values = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        values.push(match input.byte()? {
            b'n' => Value::Null,
            b'u' => Value::Unchanged,
            b't' => {
                let length = usize::try_from(input.u32()?).map_err(|_| Malformed)?;
                Value::Text(input.take(length)?)
            }
            _ => return Err(Malformed),
        });
    }
    Ok(values)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.byte()? == byte { Ok(()) } else { Err(Malformed) }
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        let text = std::str::from_utf8(self.take(end)?).map_err(|_| Malformed)?;
        self.byte()?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPDATE: &[u8] = b"U\0\0\0\x07K\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x012u";

    #[test]
    fn a_message_that_is_cut_anywhere_is_refused() {
        let relation = b"R\0\0\0\x07public\0t\0d\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff";
        let truncate = b"T\0\0\0\x01\0\0\0\0\x07";
        for whole in [UPDATE, relation.as_slice(), truncate.as_slice()] {
            assert!(read(whole).is_ok());
            for end in 0..whole.len() {
                assert_eq!(read(&whole[..end]), Err(Malformed), "{end} of {whole:?}");
            }
        }
    }

    #[test]
    fn a_change_of_the_key_tells_both() {
        let expected = Message::Update {
            relation: 7,
            old: Some(Old::Key(vec![Value::Text(b"1"), Value::Null])),
            new: vec![Value::Text(b"2"), Value::Unchanged],
        };
        assert_eq!(read(UPDATE), Ok(expected));
    }

    #[test]
    fn a_relation_tells_names_and_types() {
        let read = read(b"R\0\0\0\x07public\0t\0d\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff");
        let columns = vec![Described { name: "id".to_owned(), type_id: 23, modifier: -1 }];
        let relation = Relation { id: 7, columns, identity: vec![true] };
        assert_eq!(read, Ok(Message::Relation(relation)));
    }
}
