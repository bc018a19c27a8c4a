use chrono::{DateTime, Utc};
use model::RunId;

use crate::{
    Error, RunState,
    database::Tx,
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

/// Ends a run that is still going: the one way out of `running`. Its books stay as sums; what each
/// stage did with each batch is forgotten. Returns whether the run was still going.
pub(crate) async fn end(
    tx: &mut Tx,
    id: RunId,
    ending: &Ending<'_>,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    if lock(tx, id).await? != RunState::Running {
        return Ok(false);
    }
    settle(tx, id, now).await?;
    release_replayed(tx, id).await?;
    for details in [
        "delete from outcomes where run_id = $1",
        "delete from transforms where run_id = $1",
        "delete from batches where run_id = $1",
        "delete from parts where run_id = $1",
    ] {
        tx.execute(details, args![id]).await?;
    }
    tx.execute(
        "update runs set state = $2, reason = $3, hint = $4, ended_at = $5 where id = $1",
        args![id, ending.state.as_str(), ending.reason, ending.hint, now],
    )
    .await?;
    Ok(true)
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
