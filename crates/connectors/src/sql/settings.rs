use connect::Error;
use model::Contract;
use spec::{Deletes, Mode};

use super::quote::{Identifier, Table};

/// What a pipeline wants of a target table.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Name of the pipeline, for hints.
    pub(crate) pipeline: String,
    pub(crate) table: Table,
    /// Columns of the key; empty in append mode.
    pub(crate) key: Vec<Identifier>,
    /// The version comes from a field, so that two records may have the same one.
    pub(crate) newest_by: bool,
    pub(crate) mode: Mode,
    pub(crate) deletes: Deletes,
    pub(crate) audit: bool,
    pub(crate) contract: Contract,
}

impl Settings {
    pub(crate) fn new(pipeline: &spec::Pipeline, target: &spec::Target) -> Result<Self, Error> {
        let append = target.mode == Mode::Append;
        let key: Vec<_> = if append {
            Vec::new()
        } else {
            pipeline.key.iter().map(Identifier::new).collect::<Result<_, _>>()?
        };
        if key.is_empty() && !append {
            return Err(Error::stop(
                format!("target `{}` has no key to tell rows apart", target.name),
                "set `key:` in the pipeline, or `mode: append`",
            ));
        }
        Ok(Self {
            pipeline: pipeline.name.to_string(),
            table: Table::parse(&target.table)?,
            key,
            newest_by: pipeline.newest_by.is_some(),
            mode: target.mode,
            deletes: if append { Deletes::Ignore } else { target.deletes },
            audit: target.audit,
            contract: pipeline.contract,
        })
    }

    pub(crate) fn appends(&self) -> bool {
        self.mode == Mode::Append
    }

    /// Tells whether the target remembers which keys a run has written.
    pub(crate) fn sweeps(&self) -> bool {
        matches!(self.mode, Mode::Snapshot { .. })
    }

    /// Returns the columns of ours that every row has, in the order of the table.
    pub(crate) fn own_columns(&self) -> Vec<Own> {
        let mut own = Vec::new();
        if self.appends() {
            own.push(Own::Record);
        } else {
            own.push(Own::Version);
            if self.newest_by {
                own.push(Own::ExtractedAt);
            }
            if self.deletes == Deletes::Soft {
                own.push(Own::DeletedAt);
            }
        }
        if self.audit {
            own.push(Own::Run);
            if !self.appends() {
                own.push(Own::Record);
            }
            own.push(Own::LoadedAt);
        }
        own
    }

    /// Returns the columns by which a row is found again.
    pub(crate) fn conflict_columns(&self) -> Vec<Identifier> {
        if self.appends() { vec![Own::Record.identifier()] } else { self.key.clone() }
    }

    /// Returns the table of keys that runs have written.
    pub(crate) fn seen(&self) -> Table {
        self.table.beside("seen")
    }

    /// Returns the table of keys that were deleted, with the version of the delete.
    pub(crate) fn tombstones(&self) -> Table {
        self.table.beside("deleted")
    }

    /// Returns the table of the versions of fields that patches have written.
    pub(crate) fn patches(&self) -> Table {
        self.table.beside("patches")
    }

    /// Returns the table of the last swept run.
    pub(crate) fn swept(&self) -> Table {
        self.table.beside("swept")
    }
}

/// A column of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// Version of the row.
    Version,
    /// Extraction time of the row, which decides between equal versions.
    ExtractedAt,
    /// When the row was deleted.
    DeletedAt,
    /// Id of the record that wrote the row.
    Record,
    /// Run that wrote the row.
    Run,
    /// When the row was written.
    LoadedAt,
}

impl Own {
    const ALL: [Self; 6] = [
        Self::Version,
        Self::ExtractedAt,
        Self::DeletedAt,
        Self::Record,
        Self::Run,
        Self::LoadedAt,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Version => "_version",
            Self::ExtractedAt => "_extracted_at",
            Self::DeletedAt => "_deleted_at",
            Self::Record => "_record",
            Self::Run => "_run",
            Self::LoadedAt => "_loaded_at",
        }
    }

    pub(crate) fn identifier(self) -> Identifier {
        Identifier::known(self.name())
    }

    /// Tells whether a field of this name would collide with a column of ours.
    pub(crate) fn is_name(name: &str) -> bool {
        Self::ALL.iter().any(|own| own.name().eq_ignore_ascii_case(name))
    }
}
