//! The SQL that writes rows from the stage table into the target.
//!
//! The stage table has a row per record: `r` numbers them, `b` is the batch, `v` and `e` version and
//! extraction time, `id` and `run` name the record and its run, `c0`, `c1`, … hold the fields. The
//! target is `t`, the stage `s`, a tombstone `d`. `$1` and `$2` bound the rows: `$1 <= r < $2`.

use connect::Error;
use model::FieldType;
use spec::Deletes;
use twox_hash::XxHash3_64;

use super::{
    plan::Incoming,
    quote::{Identifier, Table, join, list},
    session::Dialect,
    settings::{Own, Settings},
    shape::{Fit, Kind, Shape},
};

/// Where the fields of a unit go in the table.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// One entry per field of the unit.
    pub(crate) columns: Vec<Placed>,
    /// Indices of the fields that are the key.
    pub(crate) key: Vec<usize>,
    /// Name of the stage table; depends on the types of the fields alone.
    pub(crate) stage: String,
    pub(crate) own: Vec<Own>,
    /// Put before a column of the stage table, whose type must not count in comparisons.
    bare: &'static str,
    /// The table itself.
    pub(crate) table: Table,
}

/// A field and its column.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) name: Identifier,
    pub(crate) field_type: FieldType,
    pub(crate) fit: Fit,
    pub(crate) kind: Kind,
    pub(crate) declared: String,
    base: String,
    /// Never null.
    pub(super) required: bool,
}

impl Layout {
    /// # Errors
    ///
    /// When the table lacks a column, which means that it has changed since it was looked at.
    pub(crate) fn new(
        settings: &Settings,
        dialect: &dyn Dialect,
        fields: &[Incoming],
        shape: &Shape,
    ) -> Result<Self, Error> {
        let columns = fields
            .iter()
            .map(|field| {
                let column = shape.column(field.name.name()).ok_or_else(|| {
                    Error::retry(
                        format!(
                            "column `{}` is gone from `{}`",
                            field.name.name(),
                            settings.table.plain()
                        ),
                        "it is looked for again",
                    )
                })?;
                Ok(Placed {
                    name: field.name.clone(),
                    field_type: field.field_type,
                    fit: dialect.fit(field.field_type, column),
                    kind: column.kind,
                    declared: column.declared.clone(),
                    base: column.base.clone(),
                    required: column.required,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let key = settings
            .key
            .iter()
            .filter_map(|key| fields.iter().position(|field| field.name == *key))
            .collect();
        let types = list(fields.iter().map(|field| field.field_type));
        Ok(Self {
            columns,
            key,
            stage: format!("_tributary_stage_{:016x}", XxHash3_64::oneshot(types.as_bytes())),
            own: settings.own_columns(),
            bare: dialect.bare(),
            table: settings.table.clone(),
        })
    }

    /// Tells whether all values can be written as they are.
    pub(crate) fn is_exact(&self) -> bool {
        self.columns.iter().all(|column| column.fit == Fit::Same)
    }

    /// The value of a field in `row`, with the type of its column.
    pub(super) fn value(&self, index: usize, row: &str) -> String {
        let column = &self.columns[index];
        match column.fit {
            // JSON is staged as text, so that a value that is none is refused alone.
            Fit::Same if matches!(column.kind, Kind::Json | Kind::Jsonb) => {
                format!("cast({row}.c{index} as {})", column.base)
            }
            Fit::Same | Fit::Scale(_) => format!("{}{row}.c{index}", self.bare),
            // Cast straight, a double keeps fifteen digits only.
            Fit::Cast if column.field_type == FieldType::Double => {
                format!("cast(cast({row}.c{index} as text) as {})", column.base)
            }
            Fit::Cast | Fit::Misfit => format!("cast({row}.c{index} as {})", column.base),
        }
    }

    /// The columns of `row`'s key equal those of `other`, which are named as in the table.
    pub(super) fn same_key(&self, settings: &Settings, row: &str, other: &str) -> String {
        if settings.appends() {
            return format!("{other}.{} = {row}.id", Own::Record.identifier());
        }
        join(
            self.key.iter().map(|&index| {
                format!("{other}.{} = {}", self.columns[index].name, self.value(index, row))
            }),
            " and ",
        )
    }
}

/// Builds the statements for one group of rows.
pub(crate) struct Merge<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) dialect: &'a dyn Dialect,
    pub(crate) layout: &'a Layout,
    /// Per field, whether the rows carry it.
    pub(crate) present: &'a [bool],
    /// The table of tombstones exists.
    pub(crate) tombstones: bool,
}

impl Merge<'_> {
    /// One statement that writes and returns batch, changed rows, accepted rows, and the number of
    /// rows written over all batches.
    pub(crate) fn write_and_count(&self) -> String {
        format!(
            "with n as materialized (select s.*, {changed} as changed from {rows} where {accepted}), \
             w as ({insert} select {values} from n order by n.r {on_conflict} returning 1) \
             select b, count(*) filter (where changed), count(*), (select count(*) from w) \
             from n group by b",
            changed = self.is_changed(),
            rows = self.rows(),
            accepted = self.is_accepted(),
            insert = self.insert(),
            values = self.values("n"),
            on_conflict = self.on_conflict(),
        )
    }

    /// Returns batch, changed rows and accepted rows, and writes nothing.
    pub(crate) fn count(&self) -> String {
        format!(
            "select s.b, count(*) filter (where {changed}), count(*) from {rows} \
             where {accepted} group by s.b",
            changed = self.is_changed(),
            rows = self.rows(),
            accepted = self.is_accepted(),
        )
    }

    /// Writes the accepted rows.
    pub(crate) fn write(&self) -> String {
        format!(
            "{insert} select {values} from {rows} where {accepted} order by s.r {on_conflict}",
            insert = self.insert(),
            values = self.values("s"),
            rows = self.rows(),
            accepted = self.is_accepted(),
            on_conflict = self.on_conflict(),
        )
    }

    /// Returns batch and number of the rows that a delete will take away.
    pub(crate) fn count_deleted(&self) -> String {
        let live = if self.settings.deletes == Deletes::Soft {
            format!(" and t.{} is null", Own::DeletedAt.identifier())
        } else {
            String::new()
        };
        format!(
            "select s.b, count(*) from {stage} s join {table} t on {same_key} \
             where {range} and {newer}{live} group by s.b",
            stage = self.layout.stage,
            table = self.settings.table,
            same_key = self.layout.same_key(self.settings, "s", "t"),
            range = RANGE,
            newer = self.is_newer("s.v", "s.e"),
        )
    }

    /// Deletes rows, or marks them as deleted.
    pub(crate) fn delete(&self) -> String {
        let same_key = self.layout.same_key(self.settings, "s", "t");
        let newer = self.is_newer("s.v", "s.e");
        let (stage, table) = (&self.layout.stage, &self.settings.table);
        if self.settings.deletes == Deletes::Soft {
            let (deleted, now) = (Own::DeletedAt.identifier(), self.dialect.now());
            let mut set = vec![
                format!("{deleted} = coalesce(t.{deleted}, {now})"),
                format!("{} = s.v", Own::Version.identifier()),
            ];
            if self.settings.newest_by {
                set.push(format!("{} = s.e", Own::ExtractedAt.identifier()));
            }
            return format!(
                "update {table} as t set {} from {stage} s where {RANGE} and {same_key} and {newer}",
                list(set)
            );
        }
        let keys = list(self.settings.key.iter());
        format!(
            "delete from {table} where ({keys}) in (select {} from {stage} s \
             join {table} t on {same_key} where {RANGE} and {newer})",
            list(self.settings.key.iter().map(|key| format!("t.{key}"))),
        )
    }

    /// Remembers deletes whose key the table does not have.
    pub(crate) fn bury(&self) -> String {
        let (version, extracted) = (Own::Version.identifier(), Own::ExtractedAt.identifier());
        let keys = list(self.settings.key.iter());
        format!(
            "insert into {tombstones} as d ({keys}, {version}, {extracted}) \
             select {values}, s.v, s.e from {rows} where {RANGE} and t.{first} is null \
             on conflict ({keys}) do update set {version} = excluded.{version}, \
             {extracted} = excluded.{extracted} where excluded.{version} > d.{version} or \
             (excluded.{version} = d.{version} and excluded.{extracted} > d.{extracted})",
            tombstones = self.settings.tombstones(),
            values = self.key_values(),
            rows = self.rows(),
            first = self.settings.key[0],
        )
    }

    /// Remembers that the run has written these keys.
    pub(crate) fn see(&self) -> String {
        format!(
            "insert into {seen} (_run, {keys}) select s.run, {values} from {stage} s where {RANGE} \
             order by s.r on conflict do nothing",
            seen = self.settings.seen(),
            keys = list(self.settings.key.iter()),
            values = self.key_values(),
            stage = self.layout.stage,
        )
    }

    pub(super) fn rows(&self) -> String {
        format!(
            "{} s left join {} t on {}",
            self.layout.stage,
            self.settings.table,
            self.layout.same_key(self.settings, "s", "t")
        )
    }

    pub(super) fn insert(&self) -> String {
        let mut columns: Vec<_> = self.written().map(|(_, name)| name.to_string()).collect();
        columns.extend(self.own_values("").map(|(own, _)| own.identifier().to_string()));
        format!("insert into {} as t ({})", self.settings.table, list(columns))
    }

    pub(super) fn values(&self, row: &str) -> String {
        let mut values: Vec<_> =
            self.written().map(|(index, _)| self.layout.value(index, row)).collect();
        values.extend(self.own_values(row).map(|(_, value)| value));
        list(values)
    }

    /// The values of the key.
    pub(super) fn key_values(&self) -> String {
        list(self.layout.key.iter().map(|&index| self.layout.value(index, "s")))
    }

    /// The fields that the rows carry.
    pub(super) fn written(&self) -> impl Iterator<Item = (usize, &Identifier)> {
        let present = self.present.iter().zip(&self.layout.columns).enumerate();
        present
            .filter(|(_, (present, _))| **present)
            .map(|(index, (_, column))| (index, &column.name))
    }

    /// The columns of ours that are written, with their values.
    pub(super) fn own_values(&self, row: &str) -> impl Iterator<Item = (Own, String)> {
        self.layout.own.iter().filter_map(move |own| {
            let value = match own {
                Own::Version => format!("{row}.v"),
                Own::ExtractedAt => format!("{row}.e"),
                Own::Record => format!("{row}.id"),
                Own::Run => format!("{row}.run"),
                Own::LoadedAt => self.dialect.now().to_owned(),
                Own::DeletedAt => return None,
            };
            Some((*own, value))
        })
    }

    fn on_conflict(&self) -> String {
        let keys = list(self.settings.conflict_columns());
        if self.settings.appends() {
            return format!("on conflict ({keys}) do nothing");
        }
        let mut set: Vec<_> = self
            .written()
            .filter(|(index, _)| !self.layout.key.contains(index))
            .map(|(_, name)| format!("{name} = excluded.{name}"))
            .collect();
        set.extend(self.own_values("").map(|(own, _)| {
            let name = own.identifier();
            format!("{name} = excluded.{name}")
        }));
        if self.settings.deletes == Deletes::Soft {
            set.push(format!("{} = null", Own::DeletedAt.identifier()));
        }
        let excluded = |own: Own| format!("excluded.{}", own.identifier());
        format!(
            "on conflict ({keys}) do update set {} where {}",
            list(set),
            self.is_newer(&excluded(Own::Version), &excluded(Own::ExtractedAt))
        )
    }

    /// The row of the target is older than these.
    pub(super) fn is_newer(&self, version: &str, extracted: &str) -> String {
        let stored = format!("t.{}", Own::Version.identifier());
        if self.settings.newest_by {
            format!(
                "({stored} is null or {version} > {stored} or ({version} = {stored} and {}))",
                self.is_later(extracted)
            )
        } else {
            format!("({stored} is null or {version} > {stored})")
        }
    }

    fn is_later(&self, extracted: &str) -> String {
        format!("{extracted} > coalesce(t.{}, {})", Own::ExtractedAt.identifier(), -i64::MAX)
    }

    /// The row is new in the target, or a value of it is.
    fn is_changed(&self) -> String {
        let first = &self.settings.conflict_columns()[0];
        format!("(t.{first} is null or {})", self.differs())
    }

    fn differs(&self) -> String {
        let mut parts: Vec<_> = self
            .written()
            .filter(|(index, _)| !self.layout.key.contains(index))
            .map(|(index, name)| self.field_differs(index, name))
            .collect();
        if self.settings.deletes == Deletes::Soft {
            parts.push(format!("t.{} is not null", Own::DeletedAt.identifier()));
        }
        if parts.is_empty() { "1 = 0".to_owned() } else { format!("({})", join(parts, " or ")) }
    }

    pub(super) fn field_differs(&self, index: usize, name: &Identifier) -> String {
        let value = self.layout.value(index, "s");
        match self.layout.columns[index].kind {
            Kind::Json | Kind::Other => {
                format!("cast(t.{name} as text) is distinct from cast({value} as text)")
            }
            _ => format!("t.{name} is distinct from {value}"),
        }
    }

    /// The row is new in the target, or newer there; and was not deleted later.
    fn is_accepted(&self) -> String {
        let first = &self.settings.conflict_columns()[0];
        let mut text = format!("{RANGE} and (t.{first} is null");
        if !self.settings.appends() {
            let stored = format!("t.{}", Own::Version.identifier());
            text.push_str(&format!(" or {stored} is null or s.v > {stored}"));
            if self.settings.newest_by {
                text.push_str(&format!(
                    " or (s.v = {stored} and {} and {})",
                    self.is_later("s.e"),
                    self.differs()
                ));
            }
        }
        text.push(')');
        text.push_str(&self.is_not_buried());
        text
    }

    /// Continues a condition: the row was not deleted later.
    pub(super) fn is_not_buried(&self) -> String {
        if !self.tombstones {
            return String::new();
        }
        format!(
            " and not exists (select 1 from {} d where {} and \
             (d.{version} > s.v or (d.{version} = s.v and d.{} >= s.e)))",
            self.settings.tombstones(),
            self.layout.same_key(self.settings, "s", "d"),
            Own::ExtractedAt.identifier(),
            version = Own::Version.identifier(),
        )
    }
}

/// The rows of the group.
pub(super) const RANGE: &str = "s.r >= $1 and s.r < $2";
