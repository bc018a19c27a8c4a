//! Finds values that a column cannot hold, before the database is asked.

use arrow_array::{
    Array, ArrayRef, Decimal128Array, StringArray,
    cast::AsArray,
    types::{Date32Type, TimestampMicrosecondType},
};
use model::FieldType;

use super::{session::Dialect, shape::Fit, unit::Unit};

/// Reports values that the database cannot hold in that column.
pub(super) fn check_column(
    unit: &Unit<'_>,
    column: usize,
    fit: Fit,
    declared: &str,
    dialect: &dyn Dialect,
    refuse: &mut dyn FnMut(usize, &'static str, String),
) {
    let values = unit.columns.column(column);
    let name = unit.fields[column].name.name();
    let field_type = unit.fields[column].field_type;
    match fit {
        Fit::Misfit => {
            for row in (0..unit.len()).filter(|row| values.is_valid(*row)) {
                refuse(
                    row,
                    "type",
                    format!("`{name}` is {field_type}, but the column is {declared}"),
                );
            }
            return;
        }
        Fit::Scale(kept) => {
            for row in rows_with_more_digits(values, field_type, kept) {
                refuse(
                    row,
                    "type",
                    format!(
                        "`{name}` has more than {kept} digits behind the point, but the column is {declared}"
                    ),
                );
            }
        }
        Fit::Same | Fit::Cast => {}
    }
    match field_type {
        FieldType::Text | FieldType::Json => {
            for row in rows_with_nul(values.as_string()) {
                refuse(row, "nul", format!("`{name}` holds the character U+0000"));
            }
        }
        FieldType::Timestamp => {
            let values = values.as_primitive::<TimestampMicrosecondType>();
            for (row, value) in values.iter().enumerate() {
                if value.is_some_and(|value| !dialect.in_range(field_type, value)) {
                    refuse(
                        row,
                        "range",
                        format!("`{name}` is a time that the database cannot hold"),
                    );
                }
            }
        }
        FieldType::Date => {
            let values = values.as_primitive::<Date32Type>();
            for (row, value) in values.iter().enumerate() {
                if value.is_some_and(|value| !dialect.in_range(field_type, i64::from(value))) {
                    refuse(
                        row,
                        "range",
                        format!("`{name}` is a date that the database cannot hold"),
                    );
                }
            }
        }
        _ => {}
    }
}

fn rows_with_nul(values: &StringArray) -> Vec<usize> {
    let offsets = values.value_offsets();
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
        return Vec::new();
    };
    let bytes = |at: i32| usize::try_from(at).unwrap_or(0);
    if memchr::memchr(0, &values.value_data()[bytes(*first)..bytes(*last)]).is_none() {
        return Vec::new();
    }
    (0..values.len())
        .filter(|row| values.is_valid(*row) && values.value(*row).contains('\0'))
        .collect()
}

fn rows_with_more_digits(values: &ArrayRef, field_type: FieldType, kept: u8) -> Vec<usize> {
    let FieldType::Decimal { scale, .. } = field_type else {
        return Vec::new();
    };
    let unit = 10_i128.pow(u32::from(scale.saturating_sub(kept)));
    let values: &Decimal128Array = values.as_primitive();
    (0..values.len())
        .filter(|row| values.is_valid(*row) && values.value(*row) % unit != 0)
        .collect()
}
