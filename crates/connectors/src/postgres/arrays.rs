//! Few rows as the arguments of one statement: an array for each column.
//!
//! A COPY ends with a small message of its own, which the kernel keeps back until the server has
//! confirmed the one before it; that takes up to 40 ms where the server has nothing else to say.
//! A statement and its arguments go out at once.
//!
//! Source: PostgreSQL 15, `array_recv`, whose elements are written as the fields of a binary COPY.

use sqlx::{
    Encode, Postgres as Driver, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo, types::Oid},
};

use super::encode::Values;
use crate::sql::{settings::Own, shape::Kind};

/// Rows up to which arrays are used.
pub(super) const FEW: usize = 512;

/// A built-in type whose values can be told as an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    id: u32,
    array: u32,
}

impl Element {
    const BOOLEAN: Self = Self { id: 16, array: 1000 };
    const BYTES: Self = Self { id: 17, array: 1001 };
    pub(super) const INTEGER: Self = Self { id: 20, array: 1016 };
    pub(super) const TEXT: Self = Self { id: 25, array: 1009 };
    const JSON: Self = Self { id: 114, array: 199 };
    const DOUBLE: Self = Self { id: 701, array: 1022 };
    const DATE: Self = Self { id: 1082, array: 1182 };
    const TIMESTAMP: Self = Self { id: 1184, array: 1185 };
    const NUMERIC: Self = Self { id: 1700, array: 1231 };
    const JSONB: Self = Self { id: 3802, array: 3807 };

    /// Returns the type of the values of a column; `kind` is that of the column they go to.
    pub(super) fn of(values: &Values<'_>, kind: Option<Kind>) -> Self {
        match values {
            Values::Boolean(_) => Self::BOOLEAN,
            Values::Integer(_) => Self::INTEGER,
            Values::Double(_) => Self::DOUBLE,
            Values::Decimal(..) => Self::NUMERIC,
            Values::Text(_) if kind == Some(Kind::Json) => Self::JSON,
            Values::Text(_) => Self::TEXT,
            Values::Jsonb(_) => Self::JSONB,
            Values::Bytes(_) => Self::BYTES,
            Values::Date(_) => Self::DATE,
            Values::Timestamp(_) => Self::TIMESTAMP,
        }
    }

    /// Returns the type of a column of ours.
    pub(super) fn of_own(own: Own) -> Self {
        match own {
            Own::Version | Own::ExtractedAt => Self::INTEGER,
            Own::DeletedAt | Own::LoadedAt => Self::TIMESTAMP,
            Own::Record | Own::Run => Self::TEXT,
        }
    }
}

/// The values of a column.
#[derive(Debug)]
pub(super) struct Array {
    element: Element,
    bytes: Vec<u8>,
}

/// Turns `count` rows of a binary COPY, without its header and trailer, into columns.
pub(super) fn columns(rows: &[u8], count: usize, elements: &[Element]) -> Vec<Array> {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX).to_be_bytes();
    let begin = |element: &Element| {
        let mut bytes = Vec::with_capacity(20 + rows.len() / elements.len());
        // Dimensions, the flag that there may be nulls, type, length, number of the first element.
        for part in [1_i32.to_be_bytes(), 1_i32.to_be_bytes(), element.id.to_be_bytes()] {
            bytes.extend_from_slice(&part);
        }
        bytes.extend_from_slice(&number(count));
        bytes.extend_from_slice(&1_i32.to_be_bytes());
        Array { element: *element, bytes }
    };
    let mut arrays: Vec<Array> = elements.iter().map(begin).collect();
    let mut rest = rows;
    for _ in 0..count {
        // The number of fields.
        rest = &rest[2..];
        for array in &mut arrays {
            let length = rest.first_chunk().map_or(-1, |length| i32::from_be_bytes(*length));
            let (field, behind) = rest.split_at(4 + usize::try_from(length).unwrap_or(0));
            array.bytes.extend_from_slice(field);
            rest = behind;
        }
    }
    arrays
}

impl Type<Driver> for Array {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(Element::TEXT.array))
    }
}

impl Encode<'_, Driver> for Array {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.element.array)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::encode::{begin_row, integer, null, sized};

    #[test]
    fn rows_become_columns() {
        let mut rows = Vec::new();
        begin_row(2, &mut rows);
        integer(7, &mut rows);
        null(&mut rows);
        begin_row(2, &mut rows);
        null(&mut rows);
        sized(b"ab", &mut rows);
        let arrays = columns(&rows, 2, &[Element::INTEGER, Element::TEXT]);
        let behind_head = |array: usize| &arrays[array].bytes[20..];
        assert_eq!(
            behind_head(0),
            [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 255, 255, 255, 255].as_slice()
        );
        assert_eq!(behind_head(1), [255, 255, 255, 255, 0, 0, 0, 2, b'a', b'b'].as_slice());
        assert_eq!(arrays[0].bytes[8..16], [0, 0, 0, 20, 0, 0, 0, 2]);
    }
}
