//! What writing needs of a database.

use async_trait::async_trait;
use model::FieldType;

use super::{
    failure::Failure,
    merge::Layout,
    quote::{Identifier, Table},
    settings::Own,
    shape::{Column, Fit, Shape},
    unit::Unit,
};

/// How a database spells things.
pub(crate) trait Dialect: Send + Sync {
    /// Returns the type of a new column.
    fn column_type(&self, field_type: FieldType) -> String;
    /// Returns the type of a column of ours.
    fn own_type(&self, own: Own) -> &'static str;
    /// Tells how values of a field go into a column.
    fn fit(&self, field_type: FieldType, column: &Column) -> Fit;
    /// Returns an expression for the present time, of the type of [`Own::DeletedAt`].
    fn now(&self) -> &'static str;
    /// Returns the statements that add a column.
    fn add_column(&self, table: &Table, name: &Identifier, declared: &str) -> Vec<String>;
    /// Returns the statements that make a column text.
    fn widen_to_text(&self, table: &Table, name: &Identifier) -> Vec<String>;
    /// Returns the name of the unique index on record ids, with the schema where that is needed.
    fn index_name(&self, table: &Table) -> String;
    /// Returns what takes the type off a column in comparisons, so that the other side's counts.
    fn bare(&self) -> &'static str;
    /// One statement may both write and tell what it wrote.
    fn writes_in_queries(&self) -> bool;
    /// Tells whether `timestamp` microseconds and `date` days can be stored.
    fn in_range(&self, field_type: FieldType, value: i64) -> bool;
}

/// A value to bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bind {
    Integer(i64),
    Text(String),
}

/// A transaction of a loader.
#[async_trait]
pub(crate) trait Session: Send {
    fn dialect(&self) -> &'static dyn Dialect;

    /// Runs a statement and returns the number of rows it wrote.
    async fn execute(&mut self, sql: String, values: &[Bind]) -> Result<u64, Failure>;

    /// Runs a query for integers that are never null.
    async fn numbers(&mut self, sql: String, values: &[Bind]) -> Result<Vec<Vec<i64>>, Failure>;

    /// Tells whether a table exists at this moment.
    async fn exists(&mut self, table: &Table) -> Result<bool, Failure>;

    /// Keeps everybody who deletes, or everybody else, out of this table until the end, and those
    /// who would change its shape. [`Failure::Stale`] if the shape is not this one any more.
    async fn lock(&mut self, table: &Table, shape: &Shape, exclusive: bool) -> Result<(), Failure>;

    /// Puts rows of a unit into the stage table that `layout` names, which holds nothing else
    /// afterwards, numbered from 0 in the order of `rows`. Of deletes and of the rows
    /// from `keys_only_from` on, only the key is put in.
    async fn stage(
        &mut self,
        unit: &Unit<'_>,
        layout: &Layout,
        rows: &[u32],
        keys_only_from: usize,
    ) -> Result<(), Failure>;

    /// Makes statements that find only a few rows of the stage table quick.
    async fn index_stage(&mut self, layout: &Layout) -> Result<(), Failure>;

    /// Tells whether [`Session::copy`] can write these rows.
    fn copies(&self) -> bool;

    /// Writes rows straight into the table. [`Failure::Data`] where a row is there already or does
    /// not fit; the transaction then has to go back to the last savepoint.
    async fn copy(&mut self, unit: &Unit<'_>, layout: &Layout, rows: &[u32])
    -> Result<(), Failure>;
}
