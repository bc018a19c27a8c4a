//! Writes batches in one transaction.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use connect::{Error, Written};
use model::Batch;
use spec::Deletes;

use super::{
    failure::Failure,
    merge::{Layout, Merge},
    order::{Group, Order, Write},
    patches::Patches,
    plan,
    session::{Bind, Session},
    settings::Settings,
    shape::Shape,
    tally::Tally,
    unit::Unit,
};

/// Halvings after which it pays to index the stage table.
const INDEX_AFTER: u32 = 32;

/// What is known of a table, right or wrong.
#[derive(Debug)]
pub(crate) struct Known {
    /// It may hold none of the rows, so that writing them straight in is worth an attempt.
    pub(crate) fresh: AtomicBool,
    /// Patches have written to it.
    pub(crate) patched: AtomicBool,
}

/// Writes batches and tells what became of them. The caller commits, or rolls back on failure.
pub(crate) async fn write(
    session: &mut dyn Session,
    settings: &Settings,
    shape: &Shape,
    batches: &[Batch],
    units: &[Unit<'_>],
    known: &Known,
) -> Result<Vec<Written>, Failure> {
    let deletes = settings.deletes != Deletes::Ignore && units.iter().any(Unit::has_deletes);
    let patches = !settings.appends() && units.iter().any(Unit::has_patches);
    let alone = deletes || patches || known.patched.load(Relaxed);
    session.lock(&settings.table, shape, alone).await?;
    if patches {
        session.execute(plan::create_patches(settings, shape), &[]).await?;
    }
    let patched = patches || !settings.appends() && session.exists(&settings.patches()).await?;
    known.patched.store(patched, Relaxed);
    if patched && !alone {
        let what = format!("table `{}` cannot be written", settings.table.plain());
        return Err(Failure::Stale(Error::retry(what, "a patch has just been written to it")));
    }
    if deletes {
        let create = plan::create_tombstones(settings, shape);
        session.execute(create, &[]).await?;
    }
    let tombstones =
        settings.deletes != Deletes::Ignore && session.exists(&settings.tombstones()).await?;
    let mut load =
        Load { session, settings, tombstones, patched, tally: Tally::new(batches.len()) };
    for unit in units {
        let dialect = load.session.dialect();
        let layout = Layout::new(settings, dialect, &unit.fields, shape).map_err(Failure::Stale)?;
        let order = unit.order(settings, &layout, dialect, &mut load.tally);
        if !load.copy(unit, &layout, &order, &known.fresh).await? {
            load.merge(unit, &layout, order).await?;
        }
    }
    Ok(load.tally.finish())
}

struct Load<'a> {
    session: &'a mut dyn Session,
    settings: &'a Settings,
    tombstones: bool,
    patched: bool,
    tally: Tally,
}

impl Load<'_> {
    /// Tries to write all rows straight into the table, and tells whether that worked.
    async fn copy(
        &mut self,
        unit: &Unit<'_>,
        layout: &Layout,
        order: &Order,
        fresh: &AtomicBool,
    ) -> Result<bool, Failure> {
        let simple = matches!(&*order.groups, [group] if group.write == Write::Whole && group.present.iter().all(|present| *present));
        if !simple
            || !order.refused.is_empty()
            || self.tombstones
            || self.patched
            || self.settings.sweeps()
            || !layout.is_exact()
            || !self.session.copies()
            || !fresh.load(Relaxed)
        {
            return Ok(false);
        }
        self.savepoint().await?;
        match self.session.copy(unit, layout, &order.rows).await {
            Ok(()) => {
                self.release().await?;
                for row in &order.rows {
                    self.tally.loaded(unit.origins[*row as usize].0, 1);
                }
                Ok(true)
            }
            Err(Failure::Data { exists, .. }) => {
                if exists {
                    fresh.store(false, Relaxed);
                }
                self.roll_back().await?;
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Writes rows by way of the stage table.
    async fn merge(
        &mut self,
        unit: &Unit<'_>,
        layout: &Layout,
        order: Order,
    ) -> Result<(), Failure> {
        let mut todo = vec![order];
        while let Some(order) = todo.pop() {
            let mut rows = order.rows.clone();
            rows.extend(self.settings.sweeps().then_some(&order.refused).into_iter().flatten());
            if rows.is_empty() {
                continue;
            }
            self.savepoint().await?;
            let staged = self.session.stage(unit, layout, &rows, order.rows.len()).await;
            match staged {
                Ok(()) => {
                    self.release().await?;
                    self.write_staged(unit, layout, &order, rows.len()).await?;
                }
                Err(failure @ Failure::Data { .. }) => {
                    self.roll_back().await?;
                    let only = order.rows.first().copied();
                    match (order.split(), only) {
                        (Some((first, second)), _) => todo.extend([second, first]),
                        (None, Some(row)) => self.refuse(unit, row, failure),
                        (None, None) => {}
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    async fn write_staged(
        &mut self,
        unit: &Unit<'_>,
        layout: &Layout,
        order: &Order,
        staged: usize,
    ) -> Result<(), Failure> {
        let mut halvings = 0;
        for group in &order.groups {
            let merge = Merge {
                settings: self.settings,
                dialect: self.session.dialect(),
                layout,
                present: &group.present,
                tombstones: self.tombstones,
            };
            let mut todo = vec![group.rows.clone()];
            while let Some(rows) = todo.pop() {
                self.savepoint().await?;
                match self.write_group(unit, order, &merge, group, &rows).await {
                    Ok(()) => self.release().await?,
                    Err(failure @ Failure::Data { .. }) => {
                        self.roll_back().await?;
                        if rows.len() > 1 {
                            halvings += 1;
                            if halvings == INDEX_AFTER {
                                self.session.index_stage(layout).await?;
                            }
                            let (first, second) = halve(rows);
                            todo.extend([second, first]);
                        } else {
                            self.refuse(unit, order.rows[rows.start], failure);
                        }
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
        if self.settings.sweeps() {
            self.see(layout, staged).await?;
        }
        Ok(())
    }

    async fn write_group(
        &mut self,
        unit: &Unit<'_>,
        order: &Order,
        merge: &Merge<'_>,
        group: &Group,
        rows: &Range<usize>,
    ) -> Result<(), Failure> {
        let range = bounds(rows);
        let patches = Patches { merge, partial: group.write == Write::Patch };
        let counted = if self.patched {
            let (count, statements) = match group.write {
                Write::Delete => (patches.count_deleted(), patches.delete()),
                Write::Whole | Write::Patch => (patches.count(), patches.write()),
            };
            let counted = self.session.numbers(count, &range).await?;
            for statement in statements {
                self.session.execute(statement, &range).await?;
            }
            counted
        } else if group.write == Write::Delete {
            let counted = self.session.numbers(merge.count_deleted(), &range).await?;
            self.session.execute(merge.delete(), &range).await?;
            self.session.execute(merge.bury(), &range).await?;
            counted
        } else if merge.dialect.writes_in_queries() {
            self.session.numbers(merge.write_and_count(), &range).await?
        } else {
            let counted = self.session.numbers(merge.count(), &range).await?;
            self.session.execute(merge.write(), &range).await?;
            counted
        };
        // Rows that another writer has overtaken between reading and writing changed nothing.
        let accepted: i64 = counted.iter().filter_map(|row| row.get(2)).sum();
        let written = counted.first().and_then(|row| row.get(3)).copied();
        let mut overtaken = written.map_or(0, |written| accepted - written);
        for row in &order.rows[rows.clone()] {
            self.tally.unchanged(unit.origins[*row as usize], 1);
        }
        for row in counted {
            if let [batch, changed, ..] = row[..] {
                let lost = overtaken.min(changed);
                overtaken -= lost;
                self.tally.changed(batch, changed - lost);
            }
        }
        Ok(())
    }

    async fn see(&mut self, layout: &Layout, staged: usize) -> Result<(), Failure> {
        let present = vec![true; layout.columns.len()];
        let merge = Merge {
            settings: self.settings,
            dialect: self.session.dialect(),
            layout,
            present: &present,
            tombstones: self.tombstones,
        };
        let all = 0..staged;
        let mut todo = vec![all];
        while let Some(rows) = todo.pop() {
            self.savepoint().await?;
            match self.session.execute(merge.see(), &bounds(&rows)).await {
                Ok(_) => self.release().await?,
                // A key that does not even fit the table has no row there to keep.
                Err(Failure::Data { .. }) => {
                    self.roll_back().await?;
                    if rows.len() > 1 {
                        let (first, second) = halve(rows);
                        todo.extend([second, first]);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, unit: &Unit<'_>, row: u32, failure: Failure) {
        if let Failure::Data { code, message, field, .. } = failure {
            self.tally.refuse(unit.origins[row as usize], code, message, field);
        }
    }

    async fn savepoint(&mut self) -> Result<(), Failure> {
        self.run("savepoint tributary").await
    }

    async fn release(&mut self) -> Result<(), Failure> {
        self.run("release savepoint tributary").await
    }

    async fn roll_back(&mut self) -> Result<(), Failure> {
        self.run("rollback to savepoint tributary").await?;
        self.release().await
    }

    async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        self.session.execute(sql.to_owned(), &[]).await.map(|_| ())
    }
}

fn halve(rows: Range<usize>) -> (Range<usize>, Range<usize>) {
    let middle = rows.start + rows.len() / 2;
    (rows.start..middle, middle..rows.end)
}

fn bounds(rows: &Range<usize>) -> [Bind; 2] {
    let number = |at: usize| Bind::Integer(i64::try_from(at).unwrap_or(i64::MAX));
    [number(rows.start), number(rows.end)]
}
