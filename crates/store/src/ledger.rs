//! Takes what the stages did. Every entry may come twice and in any order.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use model::{Ages, PipelineName, RunId};
use twox_hash::XxHash3_64;
use wire::ledger::{
    BatchExtracted, BatchLoaded, BatchTransformed, LedgerEntry, PartExtracted, PartPaused,
    PartsPlanned, RunStopped, TargetSwept, Usage, ledger_entry::Event,
};

use crate::{
    Error, RunState, Store,
    database::Tx,
    ending::{Ending, end},
    notes::note,
    value::{Value, args},
};

/// Gone parts that a note names.
const NAMED_PARTS: usize = 3;

/// How the rows of batches begin.
const BATCHES: &str = "insert into batches (run_id, attempt, batch, part, sequence, cursor_before, \
                       cursor_after, records, quarantined, voided)";

/// What became of ledger entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// Runs whose books may have changed.
    pub changed: Vec<RunId>,
    /// Runs that were stopped.
    pub stopped: Vec<RunId>,
    /// Entries of runs that nobody knows.
    pub unknown: u64,
}

impl Store {
    /// Records ledger entries in one transaction. Repeating it changes nothing.
    ///
    /// # Errors
    ///
    /// When the database does not answer; then none is recorded.
    pub async fn record(
        &self,
        entries: Vec<LedgerEntry>,
        now: DateTime<Utc>,
    ) -> Result<Recorded, Error> {
        let mut recorded = Recorded::default();
        // Runs are locked in one order by everybody, so that nobody waits in a circle.
        let mut by_run: BTreeMap<RunId, Vec<LedgerEntry>> = BTreeMap::new();
        for entry in entries {
            match entry.run.parse() {
                Ok(run) => by_run.entry(run).or_default().push(entry),
                Err(_) => recorded.unknown += 1,
            }
        }
        let mut tx = self.pool.begin().await?;
        for (id, entries) in by_run {
            let number = entries.len() as u64;
            match record(&mut tx, id, entries, now).await? {
                Effect::Unknown => recorded.unknown += number,
                Effect::Nothing => {}
                Effect::Changed => recorded.changed.push(id),
                Effect::Stopped => recorded.stopped.push(id),
            }
        }
        tx.commit().await?;
        Ok(recorded)
    }
}

enum Effect {
    /// There is no such run.
    Unknown,
    /// Everything was known.
    Nothing,
    Changed,
    Stopped,
}

/// The run that entries are recorded for, locked.
struct Locked {
    id: RunId,
    pipeline: PipelineName,
    attempt: u32,
    planned: bool,
    /// It accounts for what was pushed.
    pushed: bool,
}

/// The rows that the entries of one run make.
#[derive(Default)]
struct Rows {
    batches: Vec<Vec<Value>>,
    stale_batches: Vec<Vec<Value>>,
    transforms: Vec<Vec<Value>>,
    /// Batches of pushes that their BatchTransformed tells of.
    heard_of: Vec<Vec<Value>>,
    outcomes: Vec<Vec<Value>>,
    part_ends: BTreeMap<(u32, u32), PartExtracted>,
    part_usages: BTreeMap<(u32, u32), Usage>,
    planned: Option<PartsPlanned>,
    swept: Vec<TargetSwept>,
    notes: Vec<(String, String)>,
    stopped: Option<RunStopped>,
}

async fn record(
    tx: &mut Tx,
    id: RunId,
    entries: Vec<LedgerEntry>,
    now: DateTime<Utc>,
) -> Result<Effect, Error> {
    let found: Vec<(String, String, i64, bool, bool)> = tx
        .fetch_locked(
            "select pipeline, state, attempt, planned, window_ends_at is not null from runs \
             where id = $1",
            args![id],
        )
        .await?;
    let Some((pipeline, state, attempt, planned, pushed)) = found.into_iter().next() else {
        return Ok(Effect::Unknown);
    };
    let run = Locked {
        id,
        pipeline: pipeline.parse().map_err(|error| Error::unreadable("runs.pipeline", error))?,
        attempt: u32::try_from(attempt)
            .map_err(|error| Error::unreadable("runs.attempt", error))?,
        planned,
        pushed,
    };
    // Also of a run that has ended: its records may be on their way still, and later ones are newer.
    for entry in &entries {
        if let Some(Event::PartsPlanned(planned)) = &entry.event {
            advance_clock(tx, &run.pipeline, planned.extraction_end).await?;
        }
    }
    let state: RunState = state.parse()?;
    // What was pushed may be told of after the end of its run.
    let reopens = pushed && matches!(state, RunState::Succeeded | RunState::Failed);
    if !state.is_going() && !reopens {
        return Ok(Effect::Nothing);
    }
    let mut rows = Rows::default();
    for entry in entries {
        rows.take(&run, entry);
    }
    let mut stopped = rows.stopped.take();
    if pushed && let Some(RunStopped { stage, reason, .. }) = stopped.take() {
        // Nobody can push it again, so nothing stops it.
        rows.notes.push((stage, reason));
    }
    let changed = rows.write(tx, &run, now).await?;
    if let Some(RunStopped { reason, hint, .. }) = stopped {
        let ending = Ending { state: RunState::Failed, reason: &reason, hint: &hint };
        end(tx, id, &ending, now).await?;
        return Ok(Effect::Stopped);
    }
    if !changed {
        return Ok(Effect::Nothing);
    }
    if reopens {
        tx.execute(
            "update runs set state = 'running', ended_at = null, reason = '', hint = '' \
             where id = $1",
            args![id],
        )
        .await?;
    }
    tx.execute("update runs set last_progress_at = $2 where id = $1", args![id, now]).await?;
    Ok(Effect::Changed)
}

impl Rows {
    fn take(&mut self, run: &Locked, entry: LedgerEntry) {
        let attempt = entry.attempt;
        match entry.event {
            Some(Event::PartsPlanned(planned)) if attempt == run.attempt && !run.planned => {
                self.planned.get_or_insert(planned);
            }
            Some(Event::BatchExtracted(batch)) => self.take_batch(run, attempt, batch),
            Some(Event::PartPaused(PartPaused { part, usage })) => {
                self.part_usages.insert((attempt, part), usage.unwrap_or_default());
            }
            Some(Event::PartExtracted(end)) => {
                if let Some(usage) = end.usage {
                    self.part_usages.insert((attempt, end.part), usage);
                }
                self.part_ends.entry((attempt, end.part)).or_insert(end);
            }
            Some(Event::BatchTransformed(transformed)) => {
                let BatchTransformed { batch, filtered, quarantined, extracted } = transformed;
                if run.pushed {
                    self.heard_of.push(pushed_batch(run, attempt, &batch, (extracted, 0)));
                }
                self.transforms.push(args![run.id, attempt, batch, filtered, quarantined]);
            }
            Some(Event::BatchLoaded(loaded)) => {
                let BatchLoaded { batch, target, loaded, unchanged, quarantined, ages } = loaded;
                let ages: Ages = ages.into_iter().collect();
                let ages = (!ages.is_empty())
                    .then(|| serde_json::to_string(&ages).expect("numbers can be written"));
                self.outcomes.push(args![
                    run.id,
                    attempt,
                    batch,
                    target,
                    loaded,
                    unchanged,
                    quarantined,
                    ages
                ]);
            }
            Some(Event::TargetSwept(swept)) if attempt == run.attempt => self.swept.push(swept),
            Some(Event::RunStopped(stopped)) => {
                self.stopped.get_or_insert(stopped);
            }
            Some(Event::Noted(noted)) => self.notes.push((noted.stage, noted.text)),
            // Known already, or of an earlier attempt.
            Some(Event::PartsPlanned(_) | Event::TargetSwept(_)) | None => {}
        }
    }

    fn take_batch(&mut self, run: &Locked, attempt: u32, batch: BatchExtracted) {
        if run.pushed {
            let counts = (batch.records, batch.quarantined);
            self.batches.push(pushed_batch(run, attempt, &batch.batch, counts));
            return;
        }
        // What an earlier attempt extracted and nobody knew of is extracted again.
        let stale = attempt < run.attempt;
        let row = args![
            run.id,
            attempt,
            batch.batch,
            batch.part,
            batch.sequence,
            batch.cursor_before,
            batch.cursor_after,
            batch.records,
            batch.quarantined,
            stale
        ];
        if stale { self.stale_batches.push(row) } else { self.batches.push(row) }
    }

    /// Returns whether anything was new.
    async fn write(self, tx: &mut Tx, run: &Locked, now: DateTime<Utc>) -> Result<bool, Error> {
        let mut new = if run.pushed {
            insert_pushed(tx, self.batches, self.heard_of).await?
        } else {
            insert_batches(tx, self.batches, self.stale_batches).await?
        };
        new += tx
            .insert(
                "insert into transforms (run_id, attempt, batch, filtered, quarantined)",
                self.transforms,
                "on conflict do nothing",
            )
            .await?;
        new += tx
            .insert(
                "insert into outcomes \
                 (run_id, attempt, batch, target, loaded, unchanged, quarantined, ages)",
                self.outcomes,
                "on conflict do nothing",
            )
            .await?;
        for ((attempt, part), end) in self.part_ends {
            new += tx
                .execute(
                    "insert into parts (run_id, attempt, part, end_batches, end_cursor) \
                     values ($1, $2, $3, $4, $5) \
                     on conflict (run_id, attempt, part) do update \
                     set end_batches = excluded.end_batches, end_cursor = excluded.end_cursor \
                     where parts.end_batches is null",
                    args![run.id, attempt, part, end.batches, end.cursor],
                )
                .await?;
        }
        for ((attempt, part), usage) in self.part_usages {
            keep_usage(tx, run, (attempt, part), usage).await?;
        }
        if let Some(planned) = self.planned {
            new += 1;
            plan(tx, run, planned, now).await?;
        }
        for TargetSwept { target, removed } in self.swept {
            new += tx
                .execute(
                    "update run_targets set sweep = 'done', swept = $3 \
                     where run_id = $1 and target = $2 and sweep = 'issued'",
                    args![run.id, target, removed],
                )
                .await?;
        }
        for (stage, text) in self.notes {
            note(tx, run.id, &stage, &text, now).await?;
        }
        Ok(new > 0)
    }
}

/// Keeps what reading a part has cost. The last to tell it is right.
async fn keep_usage(
    tx: &mut Tx,
    run: &Locked,
    (attempt, part): (u32, u32),
    usage: Usage,
) -> Result<(), Error> {
    tx.execute(
        "insert into parts (run_id, attempt, part, calls, received_bytes, waited_quota_ms, \
         slowed_ms, not_modified) values ($1, $2, $3, $4, $5, $6, $7, $8) \
         on conflict (run_id, attempt, part) do update set calls = excluded.calls, \
         received_bytes = excluded.received_bytes, waited_quota_ms = excluded.waited_quota_ms, \
         slowed_ms = excluded.slowed_ms, not_modified = excluded.not_modified",
        args![
            run.id,
            attempt,
            part,
            usage.calls,
            usage.received_bytes,
            usage.waited_quota_ms,
            usage.slowed_ms,
            usage.not_modified
        ],
    )
    .await?;
    Ok(())
}

/// Makes the row of a pushed batch. Pushes have no order, so its place is made of its name.
fn pushed_batch(
    run: &Locked,
    attempt: u32,
    batch: &str,
    (records, quarantined): (u32, u32),
) -> Vec<Value> {
    let hash = XxHash3_64::oneshot(batch.as_bytes());
    let (part, sequence) = (hash >> 32, hash & u64::from(u32::MAX));
    args![run.id, attempt, batch, part, sequence, "", "", records, quarantined, false]
}

/// What the extractor says of a batch counts; where that is lost, what the transformer says.
async fn insert_pushed(
    tx: &mut Tx,
    batches: Vec<Vec<Value>>,
    heard_of: Vec<Vec<Value>>,
) -> Result<u64, Error> {
    let mut new = 0;
    let told = "on conflict (run_id, attempt, batch) do update \
                set records = excluded.records, quarantined = excluded.quarantined \
                where batches.records <> excluded.records \
                or batches.quarantined <> excluded.quarantined";
    for (rows, conflict) in [(batches, told), (heard_of, "on conflict do nothing")] {
        // One statement cannot change a row twice.
        let mut seen = HashSet::new();
        let rows = rows.into_iter().filter(|row| seen.insert(row[2].clone())).collect();
        new += tx.insert(BATCHES, rows, conflict).await?;
    }
    Ok(new)
}

/// A batch whose place is taken by another one is kept beside it, voided; see `chain`.
async fn insert_batches(
    tx: &mut Tx,
    batches: Vec<Vec<Value>>,
    mut voided: Vec<Vec<Value>>,
) -> Result<u64, Error> {
    let number = batches.len() as u64;
    let new = tx.insert(BATCHES, batches.clone(), "on conflict do nothing").await?;
    if new < number {
        voided.extend(batches.into_iter().map(|mut row| {
            row.pop();
            row.push(true.into());
            row
        }));
    }
    Ok(new + tx.insert(BATCHES, voided, "on conflict do nothing").await?)
}

async fn plan(
    tx: &mut Tx,
    run: &Locked,
    planned: PartsPlanned,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let rows = planned
        .parts
        .into_iter()
        .enumerate()
        .map(|(part, name)| args![run.id, run.attempt, part as u64, name])
        .collect();
    tx.insert(
        "insert into parts (run_id, attempt, part, name)",
        rows,
        "on conflict (run_id, attempt, part) do update set name = excluded.name",
    )
    .await?;
    tx.execute("update runs set planned = true where id = $1", args![run.id]).await?;
    if !planned.gone.is_empty() {
        let named: Vec<String> =
            planned.gone.iter().take(NAMED_PARTS).map(|part| format!("`{part}`")).collect();
        let more = if planned.gone.len() > NAMED_PARTS { ", …" } else { "" };
        let text = format!(
            "{} known before gone from the source: {}{more}",
            match planned.gone.len() {
                1 => "1 part is".to_owned(),
                number => format!("{number} parts are"),
            },
            named.join(", ")
        );
        note(tx, run.id, "extractor", &text, now).await?;
    }
    Ok(())
}

async fn advance_clock(
    tx: &mut Tx,
    pipeline: &PipelineName,
    extraction_end: i64,
) -> Result<(), Error> {
    tx.execute(
        "insert into clocks (pipeline, extraction_end) values ($1, $2) \
         on conflict (pipeline) do update set extraction_end = excluded.extraction_end \
         where excluded.extraction_end > clocks.extraction_end",
        args![pipeline, extraction_end],
    )
    .await?;
    Ok(())
}
