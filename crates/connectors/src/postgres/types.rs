//! Which PostgreSQL type stands for which of ours.

use model::FieldType;

use crate::sql::{
    quote::{Identifier, Table},
    session::Dialect,
    settings::Own,
    shape::{Column, Fit, Kind},
};

/// Days and microseconds from 1970-01-01 to 2000-01-01, from which PostgreSQL counts.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// How PostgreSQL spells things.
pub(super) struct Postgres;

impl Dialect for Postgres {
    fn column_type(&self, field_type: FieldType) -> String {
        match field_type {
            FieldType::Boolean => "boolean".to_owned(),
            FieldType::Integer => "bigint".to_owned(),
            FieldType::Double => "double precision".to_owned(),
            FieldType::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
            FieldType::Text => "text".to_owned(),
            FieldType::Bytes => "bytea".to_owned(),
            FieldType::Date => "date".to_owned(),
            FieldType::Timestamp => "timestamp with time zone".to_owned(),
            FieldType::Json => "jsonb".to_owned(),
        }
    }

    fn own_type(&self, own: Own) -> &'static str {
        match own {
            Own::Version | Own::ExtractedAt => "bigint",
            Own::DeletedAt | Own::LoadedAt => "timestamp with time zone",
            Own::Record | Own::Run => "text",
        }
    }

    fn fit(&self, field_type: FieldType, column: &Column) -> Fit {
        use FieldType as F;
        match (field_type, column.kind) {
            (F::Boolean, Kind::Boolean)
            | (F::Integer, Kind::Integer)
            | (F::Double, Kind::Double)
            | (F::Text, Kind::Text)
            | (F::Bytes, Kind::Bytes)
            | (F::Date, Kind::Date)
            | (F::Timestamp, Kind::Timestamp)
            | (F::Json, Kind::Json | Kind::Jsonb) => Fit::Same,
            (F::Decimal { .. }, Kind::Decimal(digits)) => {
                Fit::of_scale(field_type, digits.map(|(_, scale)| scale))
            }
            (F::Integer, Kind::SmallInteger | Kind::Decimal(_))
            | (F::Double, Kind::Real | Kind::Decimal(None))
            | (F::Date, Kind::Timestamp)
            // What text can be cast to is an enum, a UUID and the like.
            | (F::Text, Kind::Other)
            | (_, Kind::Text) => Fit::Cast,
            _ => Fit::Misfit,
        }
    }

    fn now(&self) -> &'static str {
        "now()"
    }

    fn add_column(&self, table: &Table, name: &Identifier, declared: &str) -> Vec<String> {
        vec![format!("alter table {table} add column if not exists {name} {declared}")]
    }

    fn widen_to_text(&self, table: &Table, name: &Identifier) -> Vec<String> {
        vec![format!(
            "alter table {table} alter column {name} drop default, \
             alter column {name} type text using cast({name} as text)"
        )]
    }

    fn index_name(&self, table: &Table) -> String {
        table.beside("record").name.to_string()
    }

    fn bare(&self) -> &'static str {
        ""
    }

    fn writes_in_queries(&self) -> bool {
        true
    }

    /// Source: PostgreSQL 15 documentation, table 8.9, from 4713 BC on.
    fn in_range(&self, field_type: FieldType, value: i64) -> bool {
        match field_type {
            FieldType::Date => (-2_440_588..2_145_042_906).contains(&value),
            FieldType::Timestamp => value >= -210_866_803_200_000_000,
            _ => true,
        }
    }
}

/// Returns the kind of a base type; `modifier` is `atttypmod`.
pub(super) fn kind(base: &str, modifier: i32) -> Kind {
    match base {
        "bool" => Kind::Boolean,
        "int8" => Kind::Integer,
        "int2" | "int4" => Kind::SmallInteger,
        "float8" => Kind::Double,
        "float4" => Kind::Real,
        "numeric" => Kind::Decimal(digits(modifier)),
        "text" | "varchar" => Kind::Text,
        "bytea" => Kind::Bytes,
        "date" => Kind::Date,
        "timestamp" | "timestamptz" => Kind::Timestamp,
        "json" => Kind::Json,
        "jsonb" => Kind::Jsonb,
        _ => Kind::Other,
    }
}

/// Returns precision and scale of a numeric's modifier; the scale may be negative.
pub(super) fn digits(modifier: i32) -> Option<(u16, i16)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    let precision = u16::try_from((packed >> 16) & 0xffff).ok()?;
    // The scale is a signed number of eleven bits.
    let scale = i16::try_from(((packed & 0x7ff) ^ 1_024) - 1_024).ok()?;
    Some((precision, scale))
}
