use chrono::{DateTime, Utc};
use model::{Ages, RunId};

use crate::{
    Error, RunState,
    database::Tx,
    run::read_ages,
    runs::lock,
    settle::{done, settle},
    value::args,
};

/// How a run ends.
pub(crate) struct Ending<'a> {
    pub(crate) state: RunState,
    pub(crate) reason: &'a str,
    pub(crate) hint: &'a str,
}

/// Ends a run that has not ended: the one way to an end. Its books stay as sums; what each
/// stage did with each batch is forgotten. Returns whether the run had not ended.
pub(crate) async fn end(
    tx: &mut Tx,
    id: RunId,
    ending: &Ending<'_>,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    if lock(tx, id).await?.has_ended() {
        return Ok(false);
    }
    settle(tx, id, now).await?;
    release_replayed(tx, id).await?;
    keep_ages(tx, id).await?;
    if !may_be_told_of(tx, id, ending.state).await? {
        forget(tx, id).await?;
    }
    tx.execute(
        "update runs set state = $2, reason = $3, hint = $4, ended_at = $5 where id = $1",
        args![id, ending.state.as_str(), ending.reason, ending.hint, now],
    )
    .await?;
    Ok(true)
}

/// Tells whether entries may come after the end, as they do for pushes.
async fn may_be_told_of(tx: &mut Tx, id: RunId, state: RunState) -> Result<bool, Error> {
    if !matches!(state, RunState::Succeeded | RunState::Failed) {
        return Ok(false);
    }
    let open: Vec<(i64,)> = tx
        .fetch("select count(*) from runs where id = $1 and window_ends_at is not null", args![id])
        .await?;
    Ok(open == [(1,)])
}

/// Forgets what each stage did with each batch. Nothing can be added to the books any more.
pub(crate) async fn forget(tx: &mut Tx, id: RunId) -> Result<(), Error> {
    for details in [
        "delete from outcomes where run_id = $1",
        "delete from transforms where run_id = $1",
        "delete from batches where run_id = $1",
        "delete from parts where run_id = $1",
        "delete from run_cursors where run_id = $1",
        "update runs set window_ends_at = null where id = $1",
    ] {
        tx.execute(details, args![id]).await?;
    }
    Ok(())
}

/// Adds up how old changes were when they were loaded.
async fn keep_ages(tx: &mut Tx, id: RunId) -> Result<(), Error> {
    let rows: Vec<(String,)> = tx
        .fetch(
            "select o.ages from outcomes o join batches b \
                 on b.run_id = o.run_id and b.attempt = o.attempt and b.batch = o.batch \
             where o.run_id = $1 and o.ages is not null and not b.voided",
            args![id],
        )
        .await?;
    let mut ages = Ages::default();
    for (text,) in &rows {
        ages.merge(&read_ages(Some(text))?);
    }
    if !ages.is_empty() {
        let text = serde_json::to_string(&ages).expect("numbers can be written");
        tx.execute("update runs set ages = $2 where id = $1", args![id, text]).await?;
    }
    Ok(())
}

/// Removes the quarantined records whose replay is accounted for and gives the others free.
async fn release_replayed(tx: &mut Tx, id: RunId) -> Result<(), Error> {
    tx.execute(
        concat!(
            "delete from quarantine where replay_run = $1 and replay_batch in ( \
                 select b.batch from batches b left join transforms t on t.run_id = b.run_id \
                     and t.attempt = b.attempt and t.batch = b.batch \
                 where b.run_id = $1 and not b.voided and ",
            done!(),
            ")"
        ),
        args![id],
    )
    .await?;
    tx.execute(
        "update quarantine set replay_run = null, replay_batch = null where replay_run = $1",
        args![id],
    )
    .await?;
    Ok(())
}
