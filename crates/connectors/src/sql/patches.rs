//! The SQL that writes rows some of whose fields are newer than others, because patches wrote them.
//!
//! Beside the target stands a table with a row per key and field that a patch has written, with the
//! version of that value, and a row without a field for the base of the key: the version of the newest
//! record that spoke of the whole row. It is there from the first patch on, and has rows for a
//! key only while some field is newer than the base; without them the base is the row's own version.
//! A value is written where it is newer than the base and than the field, so that the order in
//! which records come does not matter. The statements read what the ones before them have written:
//! whoever runs them keeps everybody else out of the table.
//!
//! The base is `p`, the version of a field `q`; the other names are those of [`super::merge`].

use spec::Deletes;

use super::{
    merge::{Merge, RANGE},
    quote::{Identifier, join, list},
    settings::Own,
};

/// A version that is older than all others.
const NEVER: i64 = -i64::MAX;

/// Builds the statements for one group of rows of a table that has versions per field.
pub(crate) struct Patches<'a> {
    pub(crate) merge: &'a Merge<'a>,
    /// The rows are patches and do not carry all fields.
    pub(crate) partial: bool,
}

impl Patches<'_> {
    /// Returns batch and number of the rows that writing will change.
    pub(crate) fn count(&self) -> String {
        let mut changes = vec![format!("t.{} is null", self.first())];
        changes.extend(self.fields().map(|(index, name)| {
            format!("({} and {})", self.is_field_newer(name), self.merge.field_differs(index, name))
        }));
        if self.merge.settings.deletes == Deletes::Soft {
            changes.push(format!("t.{} is not null", Own::DeletedAt.identifier()));
        }
        format!(
            "select s.b, count(*) from {rows} where {accepted} and ({changes}) group by s.b",
            rows = self.rows(),
            accepted = self.is_accepted(),
            changes = join(changes, " or "),
        )
    }

    /// The statements that write the rows, in order.
    pub(crate) fn write(&self) -> Vec<String> {
        let mut statements = Vec::new();
        if self.partial {
            statements.push(self.begin());
        }
        statements.extend([self.update(), self.insert()]);
        if self.partial {
            statements.extend(self.remember());
        } else {
            statements.extend(self.settle());
        }
        statements
    }

    /// Returns batch and number of the rows that a delete will take away, or take fields from.
    pub(crate) fn count_deleted(&self) -> String {
        let live = match self.merge.settings.deletes {
            Deletes::Soft => format!(" and t.{} is null", Own::DeletedAt.identifier()),
            Deletes::Hard | Deletes::Ignore => String::new(),
        };
        format!(
            "select s.b, count(*) from {rows} where {RANGE} and t.{first} is not null and {newer}{live} \
             group by s.b",
            rows = self.rows(),
            first = self.first(),
            newer = self.is_newer(),
        )
    }

    /// The statements that delete, in order: what no later patch has written is gone.
    pub(crate) fn delete(&self) -> Vec<String> {
        let mut statements = Vec::new();
        if self.clearable().next().is_some() {
            statements.push(self.clear());
        }
        statements.push(self.merge.delete());
        statements.extend(self.settle());
        statements.push(self.merge.bury());
        statements
    }

    /// Empties the fields of rows that outlive their delete, because a later patch wrote to them.
    fn clear(&self) -> String {
        let set = self.clearable().map(|name| {
            let kept = format!("exists ({} and not {})", self.field_row(name), newer("q"));
            format!("{name} = case when {kept} then t.{name} end")
        });
        format!(
            "update {table} as t set {set} from {stage} s left join {patches} p on {base} \
             where {RANGE} and {same_key} and {newer} and not {whole}",
            table = self.merge.settings.table,
            set = list(set),
            stage = self.merge.layout.stage,
            patches = self.merge.settings.patches(),
            base = self.is_base(),
            same_key = self.same_key("t"),
            newer = self.is_newer(),
            whole = self.merge.is_newer("s.v", "s.e"),
        )
    }

    fn clearable(&self) -> impl Iterator<Item = &Identifier> {
        let columns = self.merge.layout.columns.iter().enumerate();
        columns
            .filter(|(index, column)| !self.merge.layout.key.contains(index) && !column.required)
            .map(|(_, column)| &column.name)
    }

    /// Gives keys that have none a base: their row as it is, or none yet.
    fn begin(&self) -> String {
        let extracted = if self.merge.settings.newest_by { Own::ExtractedAt } else { Own::Version };
        format!(
            "insert into {patches} ({keys}, _field, _version, _extracted_at) select {values}, '', \
             coalesce(t.{version}, {NEVER}), coalesce(t.{extracted}, {NEVER}) from {rows} \
             where {accepted} and p._field is null",
            patches = self.merge.settings.patches(),
            keys = list(&self.merge.settings.key),
            values = self.merge.key_values(),
            version = Own::Version.identifier(),
            extracted = extracted.identifier(),
            rows = self.rows(),
            accepted = self.is_accepted(),
        )
    }

    /// Writes the newer fields of rows that are there.
    fn update(&self) -> String {
        let whole = self.merge.is_newer("s.v", "s.e");
        let mut set: Vec<_> = self
            .fields()
            .map(|(index, name)| {
                let value = self.merge.layout.value(index, "s");
                format!(
                    "{name} = case when {} then {value} else t.{name} end",
                    self.is_field_newer(name)
                )
            })
            .collect();
        set.extend(self.merge.own_values("s").map(|(own, value)| {
            let name = own.identifier();
            format!("{name} = case when {whole} then {value} else t.{name} end")
        }));
        if self.merge.settings.deletes == Deletes::Soft {
            let deleted = Own::DeletedAt.identifier();
            // A patch of a row that was deleted begins it anew.
            set.extend(
                self.untouched().map(|name| {
                    format!("{name} = case when t.{deleted} is null then t.{name} end")
                }),
            );
            set.push(format!("{deleted} = null"));
        }
        format!(
            "update {table} as t set {set} from {stage} s left join {patches} p on {base} \
             where {accepted} and {same_key}",
            table = self.merge.settings.table,
            set = list(set),
            stage = self.merge.layout.stage,
            patches = self.merge.settings.patches(),
            base = self.is_base(),
            accepted = self.is_accepted(),
            same_key = self.same_key("t"),
        )
    }

    /// The fields that patches of this group leave alone.
    fn untouched(&self) -> impl Iterator<Item = &Identifier> {
        let carried = |name: &Identifier| self.fields().any(|(_, carried)| carried == name);
        self.clearable().filter(move |name| self.partial && !carried(name))
    }

    fn insert(&self) -> String {
        format!(
            "{insert} select {values} from {rows} where {accepted} and t.{first} is null order by s.r",
            insert = self.merge.insert(),
            values = self.merge.values("s"),
            rows = self.rows(),
            accepted = self.is_accepted(),
            first = self.first(),
        )
    }

    /// Keeps the versions of the fields that patches have written.
    fn remember(&self) -> Option<String> {
        let names = self.fields().map(|(_, name)| format!("select {} as name", name.literal()));
        let names = join(names, " union all ");
        (!names.is_empty()).then(|| {
            format!(
                "insert into {patches} as q ({keys}, _field, _version, _extracted_at) \
             select {values}, f.name, s.v, s.e from {stage} s join {patches} p on {base} \
             cross join ({names}) f where {RANGE} and {newer}{buried} \
             on conflict ({keys}, _field) do update set _version = excluded._version, \
             _extracted_at = excluded._extracted_at where excluded._version > q._version or \
             (excluded._version = q._version and excluded._extracted_at > q._extracted_at)",
                patches = self.merge.settings.patches(),
                keys = list(&self.merge.settings.key),
                values = self.merge.key_values(),
                stage = self.merge.layout.stage,
                base = self.is_base(),
                newer = newer("p"),
                buried = self.merge.is_not_buried(),
            )
        })
    }

    /// Moves bases up to records that speak of the whole row, and forgets what these have superseded.
    fn settle(&self) -> [String; 3] {
        let patches = self.merge.settings.patches();
        let stage = &self.merge.layout.stage;
        let keys = |one: &str, other: &str| {
            join(
                self.merge.settings.key.iter().map(|key| format!("{one}.{key} = {other}.{key}")),
                " and ",
            )
        };
        [
            format!(
                "update {patches} as p set _version = s.v, _extracted_at = s.e from {stage} s \
                 where {RANGE} and {base} and {newer}{buried}",
                base = self.is_base(),
                newer = newer("p"),
                buried = self.merge.is_not_buried(),
            ),
            format!(
                "delete from {patches} as q where q._field <> '' and exists (select 1 from {stage} s \
                 where {RANGE} and {same_key} and {superseded})",
                same_key = self.same_key("q"),
                superseded = "(q._version < s.v or (q._version = s.v and q._extracted_at <= s.e))",
            ),
            format!(
                "delete from {patches} as p where p._field = '' and exists (select 1 from {stage} s \
                 where {RANGE} and {same_key}) and not exists (select 1 from {patches} q \
                 where {keys} and q._field <> '')",
                same_key = self.same_key("p"),
                keys = keys("q", "p"),
            ),
        ]
    }

    fn rows(&self) -> String {
        format!(
            "{} left join {} p on {}",
            self.merge.rows(),
            self.merge.settings.patches(),
            self.is_base()
        )
    }

    /// The key is new, or the row is newer than its base; and was not deleted later.
    fn is_accepted(&self) -> String {
        format!(
            "{RANGE} and (t.{first} is null or {newer}){buried}",
            first = self.first(),
            newer = self.is_newer(),
            buried = self.merge.is_not_buried(),
        )
    }

    /// The row is newer than the base of its key.
    fn is_newer(&self) -> String {
        format!(
            "case when p._field is null then {} else {} end",
            self.merge.is_newer("s.v", "s.e"),
            newer("p")
        )
    }

    fn is_field_newer(&self, name: &Identifier) -> String {
        format!("not exists ({} and not {})", self.field_row(name), newer("q"))
    }

    /// The version of a field.
    fn field_row(&self, name: &Identifier) -> String {
        format!(
            "select 1 from {} q where {} and q._field = {}",
            self.merge.settings.patches(),
            self.same_key("q"),
            name.literal()
        )
    }

    fn is_base(&self) -> String {
        format!("{} and p._field = ''", self.same_key("p"))
    }

    fn same_key(&self, other: &str) -> String {
        self.merge.layout.same_key(self.merge.settings, "s", other)
    }

    fn first(&self) -> &Identifier {
        &self.merge.settings.key[0]
    }

    /// The fields that the rows carry, without the key.
    fn fields(&self) -> impl Iterator<Item = (usize, &Identifier)> {
        self.merge.written().filter(|(index, _)| !self.merge.layout.key.contains(index))
    }
}

/// The staged row is newer than a row of the versions.
fn newer(than: &str) -> String {
    format!("(s.v > {than}._version or (s.v = {than}._version and s.e > {than}._extracted_at))")
}
