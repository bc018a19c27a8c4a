//! Removes what a snapshot did not see.

use connect::{Error, Sweep};
use spec::Deletes;

use super::{
    failure::Failure,
    plan,
    quote::{join, list},
    session::{Bind, Session},
    settings::{Own, Settings},
    shape::Shape,
};

/// Removes the rows that the run did not write, and returns their number. The caller commits, or
/// rolls back on failure.
///
/// A run is swept once: the number of removed rows is kept, and the keys are forgotten.
pub(crate) async fn sweep(
    session: &mut dyn Session,
    settings: &Settings,
    shape: &Shape,
    sweep: &Sweep,
) -> Result<u64, Failure> {
    session.lock(&settings.table, shape, true).await?;
    for create in plan::create_seen(settings, shape) {
        session.execute(create, &[]).await?;
    }
    let run = sweep.run.to_string();
    let swept = settings.swept();
    let before = session
        .numbers(
            format!(
                "select case when _run = $1 then _removed else 0 end from {swept} where _run >= $1"
            ),
            &[Bind::Text(run.clone())],
        )
        .await?;
    if let Some([removed]) = before.first().map(Vec::as_slice) {
        return Ok(u64::try_from(*removed).unwrap_or(0));
    }
    let removed = if settings.deletes == Deletes::Ignore {
        0
    } else {
        let statements = Statements::new(settings, session.dialect().now());
        let bounds = [Bind::Text(run.clone()), Bind::Integer(sweep.extraction_base)];
        let total = session.numbers(statements.count_all(), &[]).await?;
        let doomed = session.numbers(statements.count_doomed(), &bounds).await?;
        let number =
            |rows: &[Vec<i64>]| rows.first().and_then(|row| row.first()).copied().unwrap_or(0);
        guard(settings, sweep, number(&doomed), number(&total))?;
        if number(&doomed) > 0 {
            if settings.deletes == Deletes::Hard {
                let create = plan::create_tombstones(settings, shape);
                session.execute(create, &[]).await?;
                session.execute(statements.bury(), &bounds).await?;
            }
            session.execute(statements.remove(), &bounds).await?;
            if session.exists(&settings.patches()).await? {
                session.execute(statements.forget_patches(), &[]).await?;
            }
        }
        number(&doomed)
    };
    let forget = format!("delete from {} where _run <= $1", settings.seen());
    session.execute(forget, &[Bind::Text(run.clone())]).await?;
    let remember = format!(
        "insert into {swept} (_target, _run, _removed) values (1, $1, $2) on conflict (_target) \
         do update set _run = excluded._run, _removed = excluded._removed"
    );
    session.execute(remember, &[Bind::Text(run), Bind::Integer(removed)]).await?;
    Ok(u64::try_from(removed).unwrap_or(0))
}

#[expect(clippy::cast_precision_loss, reason = "a share of rows need not be exact")]
fn guard(settings: &Settings, sweep: &Sweep, doomed: i64, total: i64) -> Result<(), Error> {
    if doomed == 0 {
        return Ok(());
    }
    let table = settings.table.plain();
    let confirm =
        format!("if the loss is right, run `tributary run {} --confirm-loss`", settings.pipeline);
    let share = doomed as f64 * 100.0 / total.max(1) as f64;
    if sweep.source_empty {
        return Err(Error::stop(
            format!(
                "the source had no records at all, so {doomed} of {total} rows of `{table}` would be removed"
            ),
            confirm,
        ));
    }
    if share > sweep.max_loss_percent {
        return Err(Error::stop(
            format!(
                "{doomed} of {total} rows of `{table}` ({share:.1} %) are gone from the source, more than the {} % that may be removed at once",
                sweep.max_loss_percent
            ),
            confirm,
        ));
    }
    Ok(())
}

/// `$1` is the run, `$2` the start of its extraction.
struct Statements<'a> {
    settings: &'a Settings,
    now: &'static str,
    doomed: String,
}

impl<'a> Statements<'a> {
    fn new(settings: &'a Settings, now: &'static str) -> Self {
        // A version that comes from a field says nothing about when the row came in.
        let came_in = if settings.newest_by { Own::ExtractedAt } else { Own::Version };
        let same_key = join(settings.key.iter().map(|key| format!("d.{key} = t.{key}")), " and ");
        let live = if settings.deletes == Deletes::Soft {
            format!("t.{} is null and ", Own::DeletedAt.identifier())
        } else {
            String::new()
        };
        let doomed = format!(
            "{live}(t.{came_in} is null or t.{came_in} <= $2) and not exists \
             (select 1 from {seen} d where d._run = $1 and {same_key})",
            came_in = came_in.identifier(),
            seen = settings.seen(),
        );
        Self { settings, now, doomed }
    }

    fn count_all(&self) -> String {
        let live = if self.settings.deletes == Deletes::Soft {
            format!(" where {} is null", Own::DeletedAt.identifier())
        } else {
            String::new()
        };
        format!("select count(*) from {}{live}", self.settings.table)
    }

    fn count_doomed(&self) -> String {
        format!("select count(*) from {} t where {}", self.settings.table, self.doomed)
    }

    /// A batch of an older run that comes late must not bring a removed row back.
    fn bury(&self) -> String {
        let (version, extracted) = (Own::Version.identifier(), Own::ExtractedAt.identifier());
        let keys = list(self.settings.key.iter());
        let stored = if self.settings.newest_by {
            format!("coalesce(t.{version}, {})", -i64::MAX)
        } else {
            "$2".to_owned()
        };
        format!(
            "insert into {tombstones} ({keys}, {version}, {extracted}) \
             select {values}, {stored}, $2 from {table} t where {doomed} \
             on conflict ({keys}) do update set {version} = excluded.{version}, \
             {extracted} = excluded.{extracted}",
            tombstones = self.settings.tombstones(),
            values = list(self.settings.key.iter().map(|key| format!("t.{key}"))),
            table = self.settings.table,
            doomed = self.doomed,
        )
    }

    fn forget_patches(&self) -> String {
        let same_key =
            join(self.settings.key.iter().map(|key| format!("t.{key} = p.{key}")), " and ");
        format!(
            "delete from {patches} as p where not exists (select 1 from {table} t where {same_key})",
            patches = self.settings.patches(),
            table = self.settings.table,
        )
    }

    fn remove(&self) -> String {
        let table = &self.settings.table;
        if self.settings.deletes == Deletes::Soft {
            let came_in = if self.settings.newest_by { Own::ExtractedAt } else { Own::Version };
            format!(
                "update {table} as t set {} = {}, {} = $2 where {}",
                Own::DeletedAt.identifier(),
                self.now,
                came_in.identifier(),
                self.doomed
            )
        } else {
            format!("delete from {table} as t where {}", self.doomed)
        }
    }
}
