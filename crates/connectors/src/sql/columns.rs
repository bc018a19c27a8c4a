use connect::Error;
use model::{ColumnPolicy, Contract, Schema};

/// What a pipeline says about the columns of a table that is read.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) contract: Contract,
    pub(crate) schema: Option<Schema>,
    /// Columns that are welcome though the schema does not know them.
    pub(crate) accepted: Vec<String>,
}

impl Declared {
    pub(crate) fn new(contract: Contract, schema: Option<&Schema>, accepted: &[String]) -> Self {
        Self { contract, schema: schema.cloned(), accepted: accepted.to_vec() }
    }

    /// Compares the table with the schema.
    ///
    /// # Errors
    ///
    /// Stops the run for a declared column that is gone, and for a new one if the contract says
    /// `freeze`.
    pub(crate) fn check(&self, rows: &str, columns: &[&str]) -> Result<(), Error> {
        let Some(schema) = &self.schema else {
            return Ok(());
        };
        for field in &schema.fields {
            if !columns.contains(&field.name.as_str()) {
                return Err(Error::stop(
                    format!("{rows} has no column `{}`", field.name),
                    format!("remove `{}` from the schema, or bring the column back", field.name),
                ));
            }
        }
        if self.contract.columns != Some(ColumnPolicy::Freeze) {
            return Ok(());
        }
        for column in columns {
            let known = schema.field(column).is_some()
                || self.accepted.iter().any(|accepted| accepted == column);
            if !known {
                return Err(Error::stop(
                    format!(
                        "{rows} has a new column `{column}` and the contract says `columns: freeze`"
                    ),
                    format!(
                        "add `{column}` to the schema, or set `columns: evolve` or `discard_value`"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Returns the columns that identify a row: the declared ones, else the primary key.
///
/// # Errors
///
/// Stops the run where there is neither, or a declared one does not exist.
pub(crate) fn key(
    rows: &str,
    declared: &[String],
    primary: Option<&[String]>,
    columns: &[&str],
) -> Result<Vec<String>, Error> {
    let key = if declared.is_empty() { primary.unwrap_or_default() } else { declared };
    if key.is_empty() {
        return Err(Error::stop(
            format!("{rows} has no primary key"),
            "name the columns that identify a row in `key:` of the source",
        ));
    }
    for name in key {
        column_exists(rows, name, columns)?;
    }
    Ok(key.to_vec())
}

/// # Errors
///
/// Stops the run where the table has no such column.
pub(crate) fn column_exists(rows: &str, name: &str, columns: &[&str]) -> Result<(), Error> {
    if columns.contains(&name) {
        Ok(())
    } else {
        Err(Error::stop(
            format!("{rows} has no column `{name}`"),
            format!("it has {}", columns.join(", ")),
        ))
    }
}

/// Says that a table is not there.
pub(crate) fn no_table(rows: &str) -> Error {
    Error::stop(
        format!("{rows} does not exist or may not be read"),
        "see `tributary discover` for the tables that can be read",
    )
}
