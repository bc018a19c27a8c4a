//! What has to change in a table before records can be written.

use connect::Error;
use model::{FieldType, TablePolicy, TypePolicy};

use super::{
    quote::{Identifier, list},
    session::Dialect,
    settings::{Own, Settings},
    shape::{Column, Fit, Shape},
};

/// A field of the records that are to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) name: Identifier,
    pub(crate) field_type: FieldType,
}

impl Incoming {
    /// # Errors
    ///
    /// Stops the run for a name that cannot be a column.
    pub(crate) fn new(name: &str, field_type: FieldType) -> Result<Self, Error> {
        if Own::is_name(name) {
            return Err(Error::stop(
                format!("field `{name}` has the name of a column that Tributary keeps for itself"),
                "give the field another name with a `rename` step",
            ));
        }
        Ok(Self { name: Identifier::new(name)?, field_type })
    }
}

/// One thing to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    CreateTable {
        fields: Vec<Incoming>,
    },
    AddField(Incoming),
    AddOwn(Own),
    /// Record ids have to be unique in append mode.
    AddRecordIndex,
    WidenToText {
        name: Identifier,
        from: String,
    },
}

/// Finds what has to change; `shape` is `None` where there is no table.
///
/// # Errors
///
/// Stops the run where the contract does not allow the change or the table cannot take the mode.
pub(crate) fn changes(
    settings: &Settings,
    dialect: &dyn Dialect,
    fields: &[Incoming],
    shape: Option<&Shape>,
) -> Result<Vec<Change>, Error> {
    let table = settings.table.plain();
    for key in &settings.key {
        if !fields.iter().any(|field| field.name == *key) {
            return Err(Error::stop(
                format!(
                    "the records for table `{table}` have no field `{}`, which is part of the key",
                    key.name()
                ),
                "keep the field in the steps, or change `key:`",
            ));
        }
    }
    let frozen = settings.contract.tables == TablePolicy::Freeze;
    let Some(shape) = shape else {
        return if frozen {
            Err(Error::stop(
                format!("table `{table}` does not exist and the contract says `tables: freeze`"),
                "create the table, or set `tables: evolve`",
            ))
        } else {
            Ok(vec![Change::CreateTable { fields: fields.to_vec() }])
        };
    };
    let mut changes = Vec::new();
    for field in fields {
        match shape.column(field.name.name()) {
            None => changes.push(Change::AddField(field.clone())),
            Some(column) if widens(settings, dialect, field, column) => {
                changes.push(Change::WidenToText {
                    name: field.name.clone(),
                    from: column.declared.clone(),
                });
            }
            Some(column)
                if settings.contract.types == TypePolicy::Freeze
                    && dialect.fit(field.field_type, column) == Fit::Misfit =>
            {
                return Err(Error::stop(
                    format!(
                        "field `{}` is {}, but the column of `{table}` is {}, and the contract says `types: freeze`",
                        field.name.name(),
                        field.field_type,
                        column.declared
                    ),
                    "cast the field in a step, or change the column",
                ));
            }
            Some(_) => {}
        }
    }
    for own in settings.own_columns() {
        if shape.column(own.name()).is_none() {
            changes.push(Change::AddOwn(own));
        }
    }
    let unique = settings.conflict_columns();
    let names: Vec<_> = unique.iter().map(Identifier::name).collect();
    if !shape.is_unique(&names) {
        if !settings.appends() {
            return Err(Error::stop(
                format!("table `{table}` has no unique index on its key ({})", names.join(", ")),
                format!(
                    "run `create unique index {} on {} ({})`",
                    settings.table.beside("key").name,
                    settings.table,
                    list(&unique)
                ),
            ));
        }
        changes.push(Change::AddRecordIndex);
    }
    if frozen && !changes.is_empty() {
        return Err(Error::stop(
            format!(
                "the contract says `tables: freeze`, but table `{table}` would have to change: {}",
                list(changes.iter().map(|change| sentence(settings, dialect, change)))
            ),
            "make these changes yourself, or set `tables: evolve`",
        ));
    }
    Ok(changes)
}

fn widens(settings: &Settings, dialect: &dyn Dialect, field: &Incoming, column: &Column) -> bool {
    settings.contract.types == TypePolicy::Evolve
        && field.field_type == FieldType::Text
        && dialect.fit(field.field_type, column) == Fit::Misfit
}

/// Says what a change does, for people.
pub(crate) fn sentence(settings: &Settings, dialect: &dyn Dialect, change: &Change) -> String {
    let table = settings.table.plain();
    match change {
        Change::CreateTable { fields } => {
            let unique = settings.conflict_columns();
            let names = list(unique.iter().map(|name| format!("`{}`", name.name())));
            format!("create table `{table}` ({} columns, primary key {names})", fields.len())
        }
        Change::AddField(field) => format!(
            "add column `{}` {} to `{table}`",
            field.name.name(),
            dialect.column_type(field.field_type)
        ),
        Change::AddOwn(own) => {
            format!("add column `{}` {} to `{table}`", own.name(), dialect.own_type(*own))
        }
        Change::AddRecordIndex => format!("add a unique index on `_record` to `{table}`"),
        Change::WidenToText { name, from } => {
            format!("change column `{}` of `{table}` from {from} to text", name.name())
        }
    }
}

/// Returns the statements that make a change. Making it twice does no harm.
pub(crate) fn statements(
    settings: &Settings,
    dialect: &dyn Dialect,
    change: &Change,
) -> Vec<String> {
    let table = &settings.table;
    match change {
        Change::CreateTable { fields } => {
            let mut columns: Vec<_> = fields
                .iter()
                .map(|field| {
                    let required =
                        if settings.key.contains(&field.name) { " not null" } else { "" };
                    format!("{} {}{required}", field.name, dialect.column_type(field.field_type))
                })
                .collect();
            for own in settings.own_columns() {
                columns.push(format!("{} {}", own.identifier(), dialect.own_type(own)));
            }
            columns.push(format!("primary key ({})", list(settings.conflict_columns())));
            vec![format!("create table if not exists {table} ({})", list(columns))]
        }
        Change::AddField(field) => {
            dialect.add_column(table, &field.name, &dialect.column_type(field.field_type))
        }
        Change::AddOwn(own) => dialect.add_column(table, &own.identifier(), dialect.own_type(*own)),
        Change::AddRecordIndex => vec![format!(
            "create unique index if not exists {} on {table} ({})",
            dialect.index_name(table),
            Own::Record.identifier()
        )],
        Change::WidenToText { name, .. } => dialect.widen_to_text(table, name),
    }
}

/// Returns the statements that create the table of keys that runs have written.
pub(crate) fn create_seen(settings: &Settings, shape: &Shape) -> Vec<String> {
    let keys = key_columns(settings, shape);
    vec![
        format!(
            "create table if not exists {} (_run text not null, {}, primary key (_run, {}))",
            settings.seen(),
            list(&keys),
            list(&settings.key)
        ),
        format!(
            "create table if not exists {} (_target integer not null primary key, _run text not null, _removed bigint not null)",
            settings.swept()
        ),
    ]
}

/// Returns the statement that creates the table of keys that were deleted.
pub(crate) fn create_tombstones(settings: &Settings, shape: &Shape) -> String {
    format!(
        "create table if not exists {} ({}, _version bigint not null, _extracted_at bigint not null, primary key ({}))",
        settings.tombstones(),
        list(key_columns(settings, shape)),
        list(&settings.key)
    )
}

/// Returns the statement that creates the table of the versions of single fields.
pub(crate) fn create_patches(settings: &Settings, shape: &Shape) -> String {
    format!(
        "create table if not exists {} ({}, _field text not null, _version bigint not null, \
         _extracted_at bigint not null, primary key ({}, _field))",
        settings.patches(),
        list(key_columns(settings, shape)),
        list(&settings.key)
    )
}

fn key_columns(settings: &Settings, shape: &Shape) -> Vec<String> {
    settings
        .key
        .iter()
        .map(|key| {
            let declared =
                shape.column(key.name()).map_or("text", |column| column.declared.as_str());
            format!("{key} {declared} not null")
        })
        .collect()
}
