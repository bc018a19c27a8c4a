//! What the server needs for following a table: a publication that names it, and a replication slot
//! that keeps the log for us.

use connect::Error;
use pgwire_replication::Lsn;
use sqlx::PgConnection;

use super::super::error::whole;
use crate::sql::quote::{Identifier, Table, list, statement};

/// `pgoutput` tells about messages from this version on.
const OLDEST_SERVER: i32 = 140_000;

/// The names of what belongs to one captured table.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) table: Table,
    pub(super) slot: String,
    pub(super) publication: String,
    /// What fails when something does.
    pub(super) what: String,
}

/// A table as the catalog knows it.
#[derive(Debug, Clone)]
pub(super) struct Captured {
    pub(super) id: u32,
}

/// A slot that can be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The server has forgotten everything before this.
    pub(super) confirmed: Lsn,
    /// Where the server's log ends.
    pub(super) end: Lsn,
}

#[derive(sqlx::FromRow)]
struct SlotRow {
    plugin: Option<String>,
    is_here: bool,
    is_lost: bool,
    confirmed: Option<String>,
}

#[derive(sqlx::FromRow)]
struct PublicationRow {
    complete: bool,
    via_root: bool,
    has_table: bool,
    filtered: bool,
}

impl Names {
    fn failed(&self, error: sqlx::Error) -> Error {
        whole(&self.what, error)
    }

    fn stop(&self, problem: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::stop(&*self.what, hint).because(problem.into())
    }

    /// Looks whether server and table can be captured, with records that `key` identifies.
    ///
    /// # Errors
    ///
    /// Stops the run and tells what to set.
    pub(super) async fn inspect(
        &self,
        connection: &mut PgConnection,
        key: &[String],
    ) -> Result<Captured, Error> {
        let (level, version): (String, i32) = sqlx::query_as(
            "select current_setting('wal_level'), \
             cast(current_setting('server_version_num') as int4)",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| self.failed(error))?;
        if version < OLDEST_SERVER {
            return Err(self.stop(
                "the server is older than PostgreSQL 14",
                "read the table with `cursor` instead of `capture`",
            ));
        }
        if level != "logical" {
            return Err(self.stop(
                format!("the server runs with `wal_level = {level}`"),
                "set `wal_level = logical` and restart the server",
            ));
        }
        let (id, kind, identity): (i64, String, String) = sqlx::query_as(
            "select cast(c.oid as int8), cast(c.relkind as text), cast(c.relreplident as text) \
             from pg_class c where c.oid = to_regclass($1)",
        )
        .bind(self.table.to_string())
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| self.failed(error))?;
        if kind != "r" && kind != "p" {
            return Err(self.stop(
                format!("`{}` is not a table, and only tables have changes", self.table.plain()),
                "capture the tables behind it, or read it without `capture`",
            ));
        }
        self.check_identity(connection, &identity, key).await?;
        let id =
            u32::try_from(id).map_err(|_| self.stop("the table has no number", "report this"))?;
        Ok(Captured { id })
    }

    /// With a publication but without an identity, the server refuses its users' updates and deletes.
    /// So this comes before anything is created.
    async fn check_identity(
        &self,
        connection: &mut PgConnection,
        identity: &str,
        key: &[String],
    ) -> Result<(), Error> {
        if identity == "f" {
            return Ok(());
        }
        let columns: Vec<String> = sqlx::query_scalar(
            "select cast(a.attname as text) from pg_index i \
             join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey) \
             where i.indrelid = to_regclass($1) and \
             case $2 when 'd' then i.indisprimary when 'i' then i.indisreplident else false end",
        )
        .bind(self.table.to_string())
        .bind(identity)
        .fetch_all(connection)
        .await
        .map_err(|error| self.failed(error))?;
        let table = self.table.plain();
        if columns.is_empty() {
            return Err(self.stop(
                format!(
                    "table `{table}` has no replica identity, so the log does not tell which rows \
                     are updated and deleted"
                ),
                format!(
                    "add a primary key, or run `alter table {} replica identity full`",
                    self.table
                ),
            ));
        }
        if let Some(missing) = key.iter().find(|name| !columns.contains(name)) {
            return Err(self.stop(
                format!(
                    "the replica identity of table `{table}` does not hold `{missing}`, so the log \
                     does not tell the key of a deleted row"
                ),
                format!(
                    "use {} as `key`, or run `alter table {} replica identity full`",
                    list(columns.iter().map(|name| format!("`{name}`"))),
                    self.table
                ),
            ));
        }
        Ok(())
    }

    /// Looks whether the publication tells all changes of the table. Returns whether it is there.
    ///
    /// # Errors
    ///
    /// Stops the run for one that does not.
    pub(super) async fn has_publication(
        &self,
        connection: &mut PgConnection,
    ) -> Result<bool, Error> {
        let found: Option<PublicationRow> = sqlx::query_as(
            "select p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate as complete, \
             p.pubviaroot or c.relkind <> 'p' as via_root, t.pubname is not null as has_table, \
             coalesce(to_jsonb(t) ->> 'rowfilter', '') <> '' as filtered \
             from pg_publication p \
             join pg_class c on c.oid = to_regclass($2) \
             join pg_namespace n on n.oid = c.relnamespace \
             left join pg_publication_tables t on t.pubname = p.pubname \
                 and t.schemaname = n.nspname and t.tablename = c.relname \
             where p.pubname = $1",
        )
        .bind(&self.publication)
        .bind(self.table.to_string())
        .fetch_optional(connection)
        .await
        .map_err(|error| self.failed(error))?;
        let Some(found) = found else { return Ok(false) };
        let (name, table) = (Identifier::known(&*self.publication), &self.table);
        let lacks = if !found.via_root {
            Some((
                "tells changes of partitions under their names",
                format!("run `alter publication {name} set (publish_via_partition_root = true)`"),
            ))
        } else if !found.has_table {
            Some((
                "does not hold the table",
                format!(
                    "run `alter publication {name} add table {table}`, then run once with `--full`"
                ),
            ))
        } else if !found.complete {
            Some((
                "leaves out some kinds of changes",
                format!(
                    "run `alter publication {name} set (publish = 'insert, update, delete, truncate')`"
                ),
            ))
        } else if found.filtered {
            Some((
                "leaves out some rows",
                format!("run `alter publication {name} set table {table}`; filter in a step"),
            ))
        } else {
            None
        };
        match lacks {
            Some((problem, hint)) => {
                Err(self.stop(format!("publication `{}` {problem}", self.publication), hint))
            }
            None => Ok(true),
        }
    }

    /// Creates the publication.
    ///
    /// # Errors
    ///
    /// When the user may not; the statement is then left to the owner of the table.
    pub(super) async fn publish(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let create = format!(
            "create publication {} for table {} with \
             (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)",
            Identifier::known(&*self.publication),
            self.table
        );
        let Err(error) = sqlx::query(statement(&*create)).execute(&mut *connection).await else {
            return Ok(());
        };
        match code(&error).as_deref() {
            // Another extractor was faster.
            Some("42710") => Ok(()),
            Some("42501") => Err(self.stop(
                format!("publication `{}` is missing and cannot be created", self.publication),
                format!("let the owner of the table run `{create}`"),
            )),
            _ => Err(self.failed(error)),
        }
    }

    /// Looks for the slot; `None`: there is none, or what it keeps is lost.
    ///
    /// # Errors
    ///
    /// Stops the run for a slot that is not for us.
    pub(super) async fn slot(&self, connection: &mut PgConnection) -> Result<Option<Slot>, Error> {
        let found: Option<SlotRow> = sqlx::query_as(
            "select cast(s.plugin as text) as plugin, \
             coalesce(s.database = current_database(), false) as is_here, \
             coalesce(s.wal_status = 'lost', false) or s.restart_lsn is null \
                 or coalesce(to_jsonb(s) ->> 'invalidation_reason', '') <> '' as is_lost, \
             cast(s.confirmed_flush_lsn as text) as confirmed \
             from pg_replication_slots s where s.slot_name = $1",
        )
        .bind(&self.slot)
        .fetch_optional(&mut *connection)
        .await
        .map_err(|error| self.failed(error))?;
        let Some(found) = found else { return Ok(None) };
        if found.plugin.as_deref() != Some("pgoutput") || !found.is_here {
            return Err(self.stop(
                format!("slot `{}` is of another kind or database", self.slot),
                "give `capture` a `slot` of its own",
            ));
        }
        if found.is_lost {
            return Ok(None);
        }
        let end: String = sqlx::query_scalar(
            "select cast(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
             else pg_current_wal_flush_lsn() end as text)",
        )
        .fetch_one(connection)
        .await
        .map_err(|error| self.failed(error))?;
        let read = |text: &str| {
            Lsn::parse(text).map_err(|cause| {
                self.stop("a position cannot be read", "report this").because(cause)
            })
        };
        let confirmed = read(found.confirmed.as_deref().unwrap_or("0/0"))?;
        Ok(Some(Slot { confirmed, end: read(&end)? }))
    }

    /// Creates the slot, in place of one whose log is lost.
    ///
    /// # Errors
    ///
    /// When the server has no place for it, or the user may not.
    pub(super) async fn create_slot(&self, connection: &mut PgConnection) -> Result<(), Error> {
        sqlx::query(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
             where slot_name = $1 and not active and (wal_status = 'lost' or restart_lsn is null)",
        )
        .bind(&self.slot)
        .execute(&mut *connection)
        .await
        .map_err(|error| self.failed(error))?;
        let created = sqlx::query("select pg_create_logical_replication_slot($1, 'pgoutput')")
            .bind(&self.slot)
            .execute(connection)
            .await;
        let Err(error) = created else { return Ok(()) };
        match code(&error).as_deref() {
            // Another extractor was faster.
            Some("42710") => Ok(()),
            Some("53400") => Err(self.stop(
                "all replication slots are in use",
                "raise `max_replication_slots`, or drop slots that nobody reads",
            )),
            Some("42501") => Err(self.stop(
                "the user may not create replication slots",
                "give the user of the connection URL the attribute `replication`",
            )),
            _ => Err(self.failed(error)),
        }
    }

    /// What to say where changes are lost.
    pub(super) fn lost(&self, problem: &str) -> Error {
        self.stop(
            format!("slot `{}` {problem}; changes since the last run may be lost", self.slot),
            "run once with `--full`, which reads the whole table and goes on from there; rows that \
             were deleted meanwhile stay in the target",
        )
    }

    /// Looks for the slot and checks that it has everything behind `at`.
    ///
    /// # Errors
    ///
    /// Stops the run if it has not.
    pub(super) async fn slot_at(
        &self,
        connection: &mut PgConnection,
        at: Lsn,
    ) -> Result<Slot, Error> {
        let slot = self.slot(connection).await?;
        let slot = slot.ok_or_else(|| self.lost("is gone or was invalidated by the server"))?;
        if slot.confirmed > at {
            return Err(self.lost("was moved on by something else"));
        }
        if slot.end < at {
            return Err(self.lost("belongs to a server whose log ends earlier"));
        }
        Ok(slot)
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}
