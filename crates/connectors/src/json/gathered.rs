//! The records of a chunk while they are gathered.

use connect::Limits;

use super::{object, table::Table};
use crate::files::{Cut, Input, RefusedText};

/// Records of a chunk, read and refused.
#[derive(Default)]
pub(super) struct Gathered {
    table: Table,
    positions: Vec<u64>,
    refused: Vec<RefusedText>,
    refused_bytes: usize,
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.refused.is_empty()
    }

    /// Takes the record in the first `length` bytes of `input`, which stays where it is. False if
    /// there is no room for it; there always is for the first one.
    pub(super) fn take(
        &mut self,
        input: &mut Input,
        length: usize,
        position: u64,
        limits: Limits,
    ) -> bool {
        let record = &input.text()[..length];
        if record.len() > limits.record_bytes {
            return self.refuse_large(input, position, limits);
        }
        let (code, message, field) = match std::str::from_utf8(record) {
            Err(error) => {
                let (line, column) = input.place(error.valid_up_to());
                let message =
                    format!("line {line}, column {column}: not valid in the encoding of the file");
                ("encoding", message, String::new())
            }
            Ok(text) => match object::members(text) {
                Ok(members) => {
                    let has_room = self.is_empty()
                        || (self.len() < limits.chunk_records
                            && self.table.bytes_with(&members) + self.refused_bytes
                                <= limits.chunk_bytes);
                    if has_room {
                        self.table.push(&members);
                        self.positions.push(position);
                    }
                    return has_room;
                }
                Err(fault) => {
                    let (line, column) = input.place(fault.at);
                    let message = format!("line {line}, column {column}: {}", fault.what);
                    (fault.code, message, fault.field)
                }
            },
        };
        let raw = input.text()[..length].to_vec();
        self.refuse(RefusedText { position, code, message, field, raw }, limits)
    }

    /// Refuses the record at the front of `input`, which is too large. False if there is no room.
    pub(super) fn refuse_large(
        &mut self,
        input: &mut Input,
        position: u64,
        limits: Limits,
    ) -> bool {
        let (line, _) = input.place(0);
        let bytes = limits.record_bytes;
        self.refuse(
            RefusedText {
                position,
                code: "size",
                message: format!("line {line}: the record is larger than {bytes} bytes"),
                field: String::new(),
                raw: input.text()[..bytes].to_vec(),
            },
            limits,
        )
    }

    fn has_room_for(&self, bytes: usize, limits: Limits) -> bool {
        self.is_empty()
            || (self.len() < limits.chunk_records
                && self.table.bytes_with(&[]) + self.refused_bytes + bytes <= limits.chunk_bytes)
    }

    /// Returns the records, or nothing if there are none.
    pub(super) fn finish(self) -> Option<Cut> {
        if self.is_empty() {
            return None;
        }
        let (columns, presence) = self.table.finish();
        Some(Cut { columns, presence, positions: self.positions, refused: self.refused })
    }

    fn refuse(&mut self, refused: RefusedText, limits: Limits) -> bool {
        let has_room = self.has_room_for(refused.raw.len(), limits);
        if has_room {
            self.refused_bytes += refused.raw.len();
            self.refused.push(refused);
        }
        has_room
    }

    fn len(&self) -> usize {
        self.positions.len() + self.refused.len()
    }
}
