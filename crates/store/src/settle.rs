//! Brings the books of a run up to date with what the stages reported.

use chrono::{DateTime, Utc};
use model::RunId;

use crate::{Error, Run, Trigger, chain, database::Tx, runs::get, value::args};

/// Whether every target is done with batch `b`, whose transformation, if any, is `t`.
macro_rules! done {
    () => {
        "(b.records = b.quarantined or (t.batch is not null and ( \
             b.records - b.quarantined - t.filtered - t.quarantined = 0 \
             or (select count(*) from outcomes o \
                 where o.run_id = b.run_id and o.attempt = b.attempt and o.batch = b.batch \
                 and o.loaded + o.unchanged + o.quarantined \
                     = b.records - b.quarantined - t.filtered - t.quarantined) \
             >= case when b.only_target is not null then 1 else ( \
                 select count(*) from run_targets x where x.run_id = b.run_id) end)))"
    };
}
pub(crate) use done;

/// Sums over the batches that are meant for one target, or for all.
#[derive(sqlx::FromRow)]
struct BatchSums {
    only_target: Option<String>,
    batches: i64,
    records: i64,
    refused: i64,
    transformed: i64,
    filtered: i64,
    quarantined: i64,
}

impl BatchSums {
    /// Records that a target is to account for.
    fn open(&self) -> i64 {
        self.records - self.refused - self.filtered - self.quarantined
    }
}

#[derive(sqlx::FromRow)]
struct OutcomeSums {
    target: String,
    loaded: i64,
    unchanged: i64,
    quarantined: i64,
}

/// Counts what is in the ledger, moves the loaded cursors, and writes both. The run is locked.
pub(crate) async fn settle(tx: &mut Tx, id: RunId, now: DateTime<Utc>) -> Result<(), Error> {
    tx.expect_many_rows().await?;
    let run = get(tx, id).await?;
    if run.trigger.reads() {
        chain::advance(tx, &run, now).await?;
    }
    let sums: Vec<BatchSums> = tx
        .fetch(
            "select b.only_target, count(*) as batches, \
                 cast(sum(b.records) as bigint) as records, \
                 cast(sum(b.quarantined) as bigint) as refused, \
                 count(t.batch) as transformed, \
                 cast(coalesce(sum(t.filtered), 0) as bigint) as filtered, \
                 cast(coalesce(sum(t.quarantined), 0) as bigint) as quarantined \
             from batches b left join transforms t \
                 on t.run_id = b.run_id and t.attempt = b.attempt and t.batch = b.batch \
             where b.run_id = $1 and not b.voided group by b.only_target",
            args![id],
        )
        .await?;
    let outcomes: Vec<OutcomeSums> = tx
        .fetch(
            "select o.target, cast(sum(o.loaded) as bigint) as loaded, \
                 cast(sum(o.unchanged) as bigint) as unchanged, \
                 cast(sum(o.quarantined) as bigint) as quarantined \
             from outcomes o join batches b \
                 on b.run_id = o.run_id and b.attempt = o.attempt and b.batch = o.batch \
             where b.run_id = $1 and not b.voided group by o.target",
            args![id],
        )
        .await?;
    let ended = run.planned && extraction_ended(tx, &run).await?;
    let mut accounted = ended && everything_done(tx, &run).await?;
    for target in &run.books.targets {
        let open: i64 = sums
            .iter()
            .filter(|sums| sums.only_target.as_ref().is_none_or(|only| *only == target.target))
            .map(BatchSums::open)
            .sum();
        let outcome = outcomes.iter().find(|outcome| outcome.target == target.target);
        let (loaded, unchanged, quarantined) = outcome
            .map_or((0, 0, 0), |outcome| (outcome.loaded, outcome.unchanged, outcome.quarantined));
        let missing = open - loaded - unchanged - quarantined;
        accounted &= missing == 0;
        tx.execute(
            "update run_targets \
             set loaded = $3, unchanged = $4, quarantined = $5, missing = $6 \
             where run_id = $1 and target = $2 and not ( \
                 loaded = $3 and unchanged = $4 and quarantined = $5 and missing = $6)",
            args![id, &target.target, loaded, unchanged, quarantined, missing],
        )
        .await?;
    }
    let total = |value: fn(&BatchSums) -> i64| sums.iter().map(value).sum::<i64>();
    tx.execute(
        "update runs set extracted = $2, batches = $3, batches_transformed = $4, \
         filtered = $5, quarantined = $6, extraction_ended = $7, balanced = $8 \
         where id = $1 and not (extracted = $2 and batches = $3 and batches_transformed = $4 \
         and filtered = $5 and quarantined = $6 and extraction_ended = $7 and balanced = $8)",
        args![
            id,
            total(|sums| sums.records),
            total(|sums| sums.batches),
            total(|sums| sums.transformed),
            total(|sums| sums.filtered),
            total(|sums| sums.refused + sums.quarantined),
            ended,
            accounted
        ],
    )
    .await?;
    add_up_usage(tx, id).await
}

/// What reading has cost, over all attempts.
async fn add_up_usage(tx: &mut Tx, id: RunId) -> Result<(), Error> {
    tx.execute(
        "update runs set (calls, received_bytes, waited_quota_ms, slowed_ms, not_modified) = ( \
             select cast(sum(calls) as bigint), cast(sum(received_bytes) as bigint), \
                 cast(sum(waited_quota_ms) as bigint), cast(sum(slowed_ms) as bigint), \
                 cast(sum(not_modified) as bigint) \
             from parts where run_id = $1) \
         where id = $1 and exists (select 1 from parts where run_id = $1 \
             and calls + received_bytes + waited_quota_ms + slowed_ms > 0)",
        args![id],
    )
    .await?;
    Ok(())
}

/// Every part that was planned was read to its end.
async fn extraction_ended(tx: &mut Tx, run: &Run) -> Result<bool, Error> {
    let open: Vec<(i64,)> = tx
        .fetch(
            "select count(*) from parts where run_id = $1 and attempt = $2 and end_batches is null",
            args![run.id, run.attempt],
        )
        .await?;
    Ok(open == [(0,)])
}

/// Every part's chain of loaded batches reaches its end; in a replay and in a run of pushes, every batch
/// is done.
async fn everything_done(tx: &mut Tx, run: &Run) -> Result<bool, Error> {
    let open: Vec<(i64,)> = if matches!(run.trigger, Trigger::Push | Trigger::Replay) {
        tx.fetch(
            concat!(
                "select count(*) from batches b left join transforms t on t.run_id = b.run_id \
                 and t.attempt = b.attempt and t.batch = b.batch \
                 where b.run_id = $1 and not b.voided and not ",
                done!()
            ),
            args![run.id],
        )
        .await?
    } else {
        tx.fetch(
            "select count(*) from parts where run_id = $1 and attempt = $2 and not completed",
            args![run.id, run.attempt],
        )
        .await?
    };
    Ok(open == [(0,)])
}
