use connect::Error;
use sqlx::{PgConnection, Row};

use super::{
    super::error::whole,
    message::{Tuple, Value},
    rows::Layout,
    slot::Names,
};
use crate::sql::quote::{Identifier, join, list, statement};

/// Returns the values that a change has left alone, as the table holds them now, each with the index
/// of its column. Nothing where the row is gone by now: the log will tell so.
///
/// What has changed since then is told by the log as well.
///
/// # Errors
///
/// When the table cannot be read.
pub(super) async fn unchanged(
    connection: &mut PgConnection,
    names: &Names,
    layout: &Layout,
    values: &Tuple<'_>,
) -> Result<Vec<(usize, Option<String>)>, Error> {
    let name = |index: usize| Identifier::known(&*layout.columns[index].name);
    let missing: Vec<usize> =
        (0..values.len()).filter(|index| values[*index] == Value::Unchanged).collect();
    // Unlike a cast, `format` writes a value as the log does.
    let selected = missing
        .iter()
        .map(|index| format!("case when {0} is not null then format('%s', {0}) end", name(*index)));
    let conditions = layout.key.iter().enumerate().map(|(place, index)| {
        format!("{} = cast(${} as {})", name(*index), place + 1, layout.columns[*index].base)
    });
    let sql = format!(
        "select {} from {} where {}",
        list(selected),
        names.table,
        join(conditions, " and ")
    );
    let mut query = sqlx::query(statement(sql));
    for value in layout.key_of(values) {
        query = query.bind(match value {
            Value::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Value::Null | Value::Unchanged => None,
        });
    }
    let failed = |error| whole(&names.what, error);
    let Some(row) = query.fetch_optional(connection).await.map_err(failed)? else {
        return Ok(Vec::new());
    };
    let kept = missing.into_iter().enumerate();
    kept.map(|(place, index)| Ok((index, row.try_get(place).map_err(failed)?))).collect()
}
